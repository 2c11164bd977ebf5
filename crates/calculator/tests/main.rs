//! Stories of the whole: real clients and servers, real HTTP/2; in virtual time where no process
//! is killed.
#![expect(clippy::unwrap_used, reason = "a test fails where something is missing")]

#[cfg(unix)]
mod ends;
mod hang;
mod hops;
mod joined;
mod lasting;
mod logs;
mod observed;
mod page;
mod programs;
mod protected;
mod secrets;
mod trust;
mod watched;

use calculator::{
    client::{Client, Settings, client},
    pb::{
        BinaryOperation, Number, RangeRequest, Result as Value,
        calculator_client::CalculatorClient, calculator_server::CalculatorServer,
    },
    server::{Layers, dedup, serve},
    service::Calculator,
    state::Memory,
};
use cinchona::{
    balance::{self, Balance},
    core::{Rng, Target},
    fault::{FaultLayer, Faults, When},
    retry::{Ledger, RetryPolicy, Stop},
};
use cinchona_testkit::{Answer, Network, ScriptedServer, Serving, encode};
use http::Uri;
use std::{future::pending, time::Duration};
use tokio::time::Instant;
use tokio_stream::StreamExt;
use tonic::{Code, Request, Status, body::Body, transport::Endpoint};
use tonic_types::{ErrorDetails, StatusExt};

const SECOND: Duration = Duration::from_secs(1);

fn operation(a: f64, b: f64) -> BinaryOperation {
    BinaryOperation { a, b }
}

fn ok(value: f64) -> Answer {
    Answer::Ok(encode(&Value { value }))
}

/// The client's stack over HTTP/2 to a server that answers by `script`.
fn scripted(
    script: impl IntoIterator<Item = Answer>,
    settings: &Settings,
) -> (ScriptedServer, Client, Serving) {
    let (server, network) = (ScriptedServer::new(script), Network::new());
    let serving = network.serve_service(server.clone());
    (server, client(network.channel(), &settings.clone().layers().unwrap()), serving)
}

/// The server's stack on an in-memory network.
fn calculator(faults: Faults) -> (Network, FaultLayer) {
    let (network, faults) = (Network::new(), FaultLayer::new(faults).unwrap());
    let state = Memory::new();
    let layers = Layers::new(faults.clone(), dedup(state.clone()));
    tokio::spawn(serve(network.incoming(), state, layers, pending()));
    (network, faults)
}

fn seeded() -> Settings {
    Settings { rng: Rng::seeded(1), ..Settings::default() }
}

fn retrying(codes: impl IntoIterator<Item = Code>) -> Settings {
    Settings { retry: RetryPolicy::default().with_codes(codes).unwrap(), ..seeded() }
}

fn arrivals(server: &ScriptedServer) -> Vec<Instant> {
    server.received().iter().map(|received| received.at).collect()
}

#[tokio::test(start_paused = true)]
async fn a_slow_server_times_out_and_is_retried() {
    let slow = Answer::After(3 * SECOND, Box::new(ok(1.0)));
    let (server, mut client, _serving) = scripted([slow, ok(15.0)], &seeded());
    let response = client.add(operation(10.0, 5.0)).await.unwrap();
    let ledger = response.extensions().get::<Ledger>().unwrap();
    let codes: Vec<Code> = ledger.attempts().iter().map(|a| a.verdict.code()).collect();
    assert_eq!(codes, [Code::DeadlineExceeded, Code::Ok]);
    assert_eq!(ledger.attempts()[0].duration, 2 * SECOND);
    assert_eq!(response.into_inner().value, 15.0);
    assert_eq!((server.attempts(), server.dropped()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn the_first_attempt_fails_and_the_second_succeeds() {
    let failure = Answer::Status(Status::unavailable("simulated failure"));
    let (server, mut client, _serving) =
        scripted([failure, ok(15.0)], &retrying([Code::Unavailable]));
    let response = client.add(operation(10.0, 5.0)).await.unwrap();
    assert_eq!(response.into_inner().value, 15.0);
    let received = server.received();
    assert_eq!(received.len(), 2);
    assert_eq!(received[1].message(), Some(operation(10.0, 5.0)));
    assert_eq!(received[1].headers["grpc-previous-rpc-attempts"], "1");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_in_its_details_when_to_come_again_is_asked_then() {
    let details = ErrorDetails::with_retry_info(Some(7 * SECOND));
    for code in [Code::ResourceExhausted, Code::Unavailable] {
        let later = Status::with_error_details(code, "quota", details.clone());
        let answers = [Answer::Status(later.clone()), ok(15.0)];
        let (server, mut client, _serving) = scripted(answers, &retrying([code]));
        client.add(operation(10.0, 5.0)).await.unwrap();
        let arrivals = arrivals(&server);
        assert_eq!(arrivals[1] - arrivals[0], 7 * SECOND, "{code}");
        // Where the code is not retried, it is not.
        let answers = [Answer::Status(later), ok(15.0)];
        let (server, mut client, _serving) = scripted(answers, &retrying([]));
        assert_eq!(client.add(operation(10.0, 5.0)).await.unwrap_err().code(), code);
        assert_eq!(server.attempts(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn all_retries_time_out_and_the_call_fails_with_deadline_exceeded() {
    for seed in 0..20 {
        let settings = Settings { rng: Rng::seeded(seed), ..Settings::default() };
        let (server, mut client, _serving) = scripted([Answer::Hang], &settings);
        let status = client.add(operation(10.0, 5.0)).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded);
        let ledger = Ledger::of(&status).unwrap();
        assert_eq!((ledger.attempts().len(), ledger.stopped()), (4, Stop::Exhausted));
        let waits: Vec<Duration> =
            arrivals(&server).windows(2).map(|pair| pair[1] - pair[0] - 2 * SECOND).collect();
        assert_eq!(waits.len(), 3);
        for (n, wait) in [1, 2, 4].into_iter().zip(waits) {
            assert!(n * SECOND <= wait && wait < (n + 1) * SECOND, "wait of {n} s: {wait:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn division_by_zero_makes_exactly_one_attempt() {
    let (network, faults) = calculator(Faults::default());
    let settings = retrying([Code::DeadlineExceeded, Code::Unavailable]);
    let mut client = client(network.channel(), &settings.clone().layers().unwrap());
    let status = client.divide(operation(1.0, 0.0)).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "division by zero"));
    assert_eq!(Ledger::of(&status).unwrap().stopped(), Stop::NotRetryable);
    assert_eq!(faults.counters().executed, 1);
}

/// What the generated client gets for one request of each kind.
async fn answers<C>(mut client: CalculatorClient<C>) -> Vec<Result<Vec<f64>, (Code, String)>>
where
    C: tonic::client::GrpcService<Body>,
    C::Error: Into<cinchona::core::BoxError>,
    C::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    <C::ResponseBody as http_body::Body>::Error: Into<cinchona::core::BoxError> + Send,
{
    let unary = |outcome: Result<tonic::Response<Value>, Status>| {
        let refused = |status: Status| (status.code(), status.message().to_owned());
        outcome.map(|response| vec![response.into_inner().value]).map_err(refused)
    };
    let numbers = [1.5, 2.5].map(|value| Number { value });
    let range = RangeRequest { first: 1.0, last: 3.0, step: None };
    let streamed = client.range(range).await.unwrap().into_inner();
    vec![
        unary(client.add(operation(10.0, 5.0)).await),
        unary(client.subtract(operation(10.0, 5.0)).await),
        unary(client.multiply(operation(10.0, 5.0)).await),
        unary(client.divide(operation(10.0, 5.0)).await),
        unary(client.divide(operation(10.0, 0.0)).await),
        unary(client.sum(tokio_stream::iter(numbers)).await),
        Ok(streamed.map(|value| value.unwrap().value).collect().await),
    ]
}

#[tokio::test(start_paused = true)]
async fn the_same_handler_and_client_answer_alike_bare_and_wrapped() {
    let bare =
        answers(CalculatorClient::new(CalculatorServer::new(Calculator::<Memory>::default())))
            .await;
    let (network, _) = calculator(Faults::default());
    let wrapped = answers(client(network.channel(), &seeded().layers().unwrap())).await;
    assert_eq!(bare, wrapped);
    let refused = Err((Code::InvalidArgument, "division by zero".to_owned()));
    let values = [vec![15.0], vec![5.0], vec![50.0], vec![2.0]].map(Ok);
    assert_eq!(bare[..4], values);
    assert_eq!(bare[4..], [refused, Ok(vec![4.0]), Ok(vec![1.0, 2.0, 3.0])]);
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_fails_after_execution_makes_the_calculator_at_least_once() {
    for (when, executed) in [(When::Before, 0), (When::After, 4)] {
        let (network, faults) = calculator(Faults { failure_rate: 1.0, when, ..Faults::default() });
        let mut client =
            client(network.channel(), &retrying([Code::Unavailable]).layers().unwrap());
        let status = client.add(operation(10.0, 5.0)).await.unwrap_err();
        assert_eq!(Ledger::of(&status).unwrap().attempts().len(), 4);
        assert_eq!(faults.counters().executed, executed, "{when:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_away_for_a_second_is_not_noticed_and_not_hammered() {
    let (network, _) = calculator(Faults::default());
    let target = Target::from(Uri::from_static("http://server"));
    let options = balance::Options { rng: Rng::seeded(1), ..balance::Options::of_one_endpoint() };
    let channel = Balance::with_connector(vec![target], network.connector(), options).unwrap();
    let client = client(channel, &retrying([Code::Unavailable]).layers().unwrap());
    for outage in ["at start", "between calls"] {
        let before = network.connects();
        network.refuse(true);
        network.reset();
        let back = tokio::spawn({
            let network = network.clone();
            async move {
                tokio::time::sleep(SECOND).await;
                network.refuse(false);
            }
        });
        let calls: Vec<_> = (0..50)
            .map(|n| {
                let mut client = client.clone();
                tokio::spawn(async move { client.add(operation(f64::from(n), 1.0)).await })
            })
            .collect();
        for call in calls {
            call.await.unwrap().unwrap();
        }
        back.await.unwrap();
        assert!(network.connects() - before <= 5, "{outage}: {}", network.connects() - before);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_streamed_is_replayed() {
    let failure = Answer::Status(Status::unavailable("simulated failure"));
    let (server, mut client, _serving) =
        scripted([failure, ok(6.0)], &retrying([Code::Unavailable]));
    let numbers = [1.0, 2.0, 3.0].map(|value| Number { value });
    let slowly = tokio_stream::iter(numbers).then(|number| async move {
        tokio::time::sleep(SECOND / 10).await;
        number
    });
    let sum = client.sum(Request::new(slowly)).await.unwrap();
    assert_eq!(sum.into_inner().value, 6.0);
    let received = server.received();
    assert_eq!((received.len(), &received[0].body), (2, &received[1].body));
}
