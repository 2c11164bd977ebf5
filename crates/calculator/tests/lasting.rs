//! Calls that last, on the stack of the README, and the servers that keep to `grpc-timeout`.

use super::*;
use calculator::{
    DESCRIPTORS,
    pb::{CounterRequest, CounterResult, Empty, calculator_server::Calculator as Service},
};
use cinchona::{
    core::{Methods, PerMethod},
    deadline::{
        AttemptTimeoutLayer, AttemptTimeoutSettings, CallDeadlineLayer, CallDeadlineSettings,
        ServerDeadlineLayer,
    },
    retry::{HedgePolicy, Policy, RetryLayer, RetrySettings},
};
use std::{
    pin::Pin,
    sync::{Arc, Mutex},
};
use tokio::time::sleep;
use tokio_stream::Stream;
use tonic::{Response, Streaming, transport::Server};
use tower::ServiceBuilder;

/// Sends each number after a wait, and takes its time for sums.
#[derive(Clone, Debug, Default)]
struct Slow {
    waits: Vec<u64>,
    stalls: bool,
    /// The `grpc-timeout` of each call.
    sent: Arc<Mutex<Vec<Option<String>>>>,
}

impl Slow {
    fn note<T>(&self, request: &Request<T>) {
        let sent = request.metadata().get("grpc-timeout");
        let sent = sent.map(|sent| sent.to_str().unwrap().to_owned());
        self.sent.lock().unwrap().push(sent);
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Service for Slow {
    type RangeStream = Pin<Box<dyn Stream<Item = Result<Value, Status>> + Send>>;

    async fn range(&self, request: Request<RangeRequest>) -> Answer<Self::RangeStream> {
        self.note(&request);
        let numbers = tokio_stream::iter(self.waits.clone()).then(|wait| async move {
            sleep(Duration::from_millis(100 * wait)).await;
            Ok(Value { value: wait as f64 })
        });
        if self.stalls {
            return Ok(Response::new(Box::pin(numbers.chain(tokio_stream::pending()))));
        }
        Ok(Response::new(Box::pin(numbers)))
    }

    async fn sum(&self, request: Request<Streaming<Number>>) -> Answer<Value> {
        self.note(&request);
        let (mut numbers, mut sum) = (request.into_inner(), 0.0);
        while let Some(Number { value }) = numbers.message().await? {
            sum += value;
        }
        if self.stalls {
            pending::<()>().await;
        }
        Ok(Response::new(Value { value: sum }))
    }

    async fn add(&self, request: Request<BinaryOperation>) -> Answer<Value> {
        self.note(&request);
        pending().await
    }

    async fn subtract(&self, _: Request<BinaryOperation>) -> Answer<Value> {
        Err(Status::cancelled("Timeout expired"))
    }

    async fn multiply(&self, _: Request<BinaryOperation>) -> Answer<Value> {
        Err(Status::unimplemented(""))
    }

    async fn divide(&self, _: Request<BinaryOperation>) -> Answer<Value> {
        Err(Status::unimplemented(""))
    }

    async fn increment_counter(&self, _: Request<CounterRequest>) -> Answer<CounterResult> {
        Err(Status::unimplemented(""))
    }

    async fn get_counter(&self, _: Request<Empty>) -> Answer<CounterResult> {
        Err(Status::unimplemented(""))
    }

    async fn reset_counter(&self, _: Request<Empty>) -> Answer<CounterResult> {
        Err(Status::unimplemented(""))
    }
}

/// The client's layers of the README: 10 s a call, 2 s an attempt.
fn deadline() -> CallDeadlineLayer {
    CallDeadlineSettings::new().with_limit(10 * SECOND).layer()
}

fn retry() -> RetryLayer {
    let policy = RetryPolicy::default().with_codes([Code::DeadlineExceeded, Code::Unavailable]);
    let methods = Methods::from_file_descriptor_set(DESCRIPTORS).unwrap();
    RetrySettings::new(policy.unwrap(), methods).with_rng(Rng::seeded(1)).layer()
}

fn attempt() -> AttemptTimeoutLayer {
    AttemptTimeoutLayer::new(2 * SECOND)
}

/// A client behind these layers of a `server` that keeps to `grpc-timeout`, streams included.
macro_rules! client_of {
    ($server:expr, $deadline:expr, $retry:expr, $attempt:expr) => {{
        let network = Network::new();
        let mut server = Server::builder().layer(ServerDeadlineLayer::new());
        let server = server.add_service(CalculatorServer::new($server.clone()));
        tokio::spawn(server.serve_with_incoming(network.incoming()));
        let stack = ServiceBuilder::new().layer($deadline).layer($retry).layer($attempt);
        CalculatorClient::new(stack.service(network.channel()))
    }};
    ($server:expr) => {
        client_of!($server, deadline(), retry(), attempt())
    };
}

fn slow(waits: &[u64]) -> Slow {
    Slow { waits: waits.to_vec(), ..Slow::default() }
}

fn stalling(waits: &[u64]) -> Slow {
    Slow { stalls: true, ..slow(waits) }
}

fn sent(server: &Slow) -> Vec<Option<String>> {
    server.sent.lock().unwrap().clone()
}

/// How many numbers came, and how it ended.
async fn read(answer: Result<Response<Streaming<Value>>, Status>) -> (usize, Code) {
    let mut numbers = match answer {
        Ok(response) => response.into_inner(),
        Err(status) => return (0, status.code()),
    };
    let mut count = 0;
    loop {
        match numbers.message().await {
            Ok(Some(_)) => count += 1,
            Ok(None) => return (count, Code::Ok),
            Err(status) => return (count, status.code()),
        }
    }
}

const RANGE: RangeRequest = RangeRequest { first: 0.0, last: 1.0, step: None };

// catalogue: S-D5
#[tokio::test(start_paused = true)]
async fn a_stream_that_lasts_arrives_whole() {
    for waits in [[0, 30, 30, 30, 30], [15, 1_000, 1_000, 36_000, 10]] {
        let server = slow(&waits);
        let mut client = client_of!(server);
        assert_eq!(read(client.range(RANGE).await).await, (5, Code::Ok), "{waits:?}");
        assert_eq!(sent(&server), [None], "the server would end it by that");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_lasts_is_hedged_like_any_other() {
    let hedged = Policy::from(HedgePolicy::default().with_delay(SECOND));
    let mut policies = PerMethod::new();
    policies.insert("calculator.Calculator", "Range", hedged).unwrap();
    let retry = retry();
    retry.set_policies(policies).unwrap();
    let server = slow(&[5, 30, 30, 30, 30]);
    let mut client = client_of!(server, deadline(), retry, attempt());
    assert_eq!(read(client.range(RANGE).await).await, (5, Code::Ok));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_silent_before_its_first_message_is_ended_by_the_limit() {
    let mut client = client_of!(slow(&[90_000]));
    let began = Instant::now();
    assert_eq!(read(client.range(RANGE).await).await, (0, Code::DeadlineExceeded));
    assert_eq!(Instant::now() - began, 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_falls_silent_is_ended_where_that_is_asked() {
    let silence = AttemptTimeoutSettings::new(2 * SECOND).with_silence(4 * SECOND).layer();
    let mut client = client_of!(stalling(&[0, 30, 30]), deadline(), retry(), silence);
    let began = Instant::now();
    assert_eq!(read(client.range(RANGE).await).await, (3, Code::DeadlineExceeded));
    assert_eq!((Instant::now() - began).as_secs(), 10);
    let mut client = client_of!(stalling(&[0, 30, 30]));
    let hour = tokio::time::timeout(3600 * SECOND, async { read(client.range(RANGE).await).await });
    assert!(hour.await.is_err(), "it is not asked");
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_the_caller_ends_a_stream_and_is_told() {
    let server = slow(&[0, 30, 30, 30, 30]);
    let mut client = client_of!(server);
    let mut request = Request::new(RANGE);
    request.set_timeout(7 * SECOND);
    let began = Instant::now();
    assert_eq!(read(client.range(request).await).await, (3, Code::DeadlineExceeded));
    assert_eq!((Instant::now() - began).as_secs_f64().round(), 7.0);
    assert_eq!(sent(&server), [Some("7000000u".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn an_upload_takes_as_long_as_its_caller_does() {
    let upload = || {
        tokio_stream::iter(1..=5).then(|value| async move {
            sleep(30 * SECOND).await;
            Number { value: f64::from(value) }
        })
    };
    let server = Slow::default();
    let mut client = client_of!(server);
    assert_eq!(client.sum(upload()).await.unwrap().into_inner().value, 15.0);
    assert_eq!(sent(&server), [None]);
    // Once all is sent, the limit is for the answer.
    let mut client = client_of!(stalling(&[]), deadline(), once(), attempt());
    let began = Instant::now();
    let status = client.sum(upload()).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!((Instant::now() - began).as_secs(), 152);
}

/// No retries.
fn once() -> RetryLayer {
    RetryLayer::new(RetryPolicy::default().with_max_retries(0), Methods::unknown())
}

#[tokio::test(start_paused = true)]
async fn a_unary_call_is_bounded_and_told_as_before() {
    let server = Slow::default();
    let mut client = client_of!(server);
    let began = Instant::now();
    let status = client.add(operation(1.0, 2.0)).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(Instant::now() - began <= 10 * SECOND);
    assert_eq!(sent(&server)[0].as_deref(), Some("2000000u"));
    assert!(sent(&server).len() >= 2, "it is retried");
}

#[tokio::test(start_paused = true)]
async fn a_servers_own_word_that_a_timeout_expired_stays() {
    let none = tower::layer::util::Identity::new();
    let mut client = client_of!(Slow::default(), deadline(), none, attempt());
    let status = client.subtract(operation(1.0, 2.0)).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Cancelled, "Timeout expired"));
}
