//! The situations in which a tonic client hangs, or says something else than what happened.

use super::*;
use cinchona::{
    core::BoxError,
    deadline::{AttemptTimeoutLayer, CallDeadlineSettings},
};
use std::future::Future;
use tokio::time::timeout;
use tonic::transport::{Channel, Server};
use tower::service_fn;

const LIMIT: Duration = Duration::from_millis(100);

fn limited() -> Settings {
    Settings { timeout: LIMIT, retry: RetryPolicy::default().with_max_retries(0), ..seeded() }
}

/// The status of a call that ends within a minute, and after how long.
async fn ending<T>(call: impl Future<Output = Result<T, Status>>) -> (Code, Duration) {
    let began = Instant::now();
    let outcome = timeout(60 * SECOND, call).await.expect("the call hangs");
    (outcome.err().expect("the call fails").code(), Instant::now() - began)
}

fn add(a: f64, b: f64) -> Request<BinaryOperation> {
    Request::new(operation(a, b))
}

fn add_within(limit: Duration) -> Request<BinaryOperation> {
    let mut request = add(10.0, 5.0);
    request.set_timeout(limit);
    request
}

const IN_TIME: (Code, Duration) = (Code::DeadlineExceeded, LIMIT);

// catalogue: D20
#[tokio::test(start_paused = true)]
async fn a_the_timeout_of_the_endpoint_is_deadline_exceeded() {
    let network = Network::new();
    let _serving = network.serve_service(ScriptedServer::new([Answer::Hang]));
    let endpoint = Endpoint::from_static("http://server").timeout(LIMIT);
    let channel = endpoint.connect_with_connector_lazy(network.connector());
    let settings = Settings { timeout: SECOND, ..limited() };
    assert_eq!(
        ending(client(channel, &settings.clone().layers().unwrap()).add(add(1.0, 2.0))).await,
        IN_TIME
    );
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_lost_within_the_response_is_unavailable() {
    let network = Network::new();
    let _serving = network.serve_service(ScriptedServer::new([Answer::HeadersThenHang]));
    let mut client = client(network.channel(), &seeded().layers().unwrap());
    let (ending, ()) = tokio::join!(ending(client.add(add(1.0, 2.0))), async {
        tokio::time::sleep(LIMIT).await;
        network.reset();
    });
    assert_eq!(ending, (Code::Unavailable, LIMIT));
}

#[tokio::test(start_paused = true)]
async fn b_the_timeout_of_the_request_is_deadline_exceeded() {
    let (_, mut client, _serving) = scripted([Answer::Hang], &seeded());
    assert_eq!(ending(client.add(add_within(LIMIT))).await, IN_TIME);
}

#[tokio::test(start_paused = true)]
async fn c_the_limit_that_a_tonic_server_sets_itself_is_told_in_its_own_words() {
    let network = Network::new();
    let slow = FaultLayer::new(Faults { slow_rate: 1.0, ..Faults::default() }).unwrap();
    let calculator = CalculatorServer::new(Calculator::<Memory>::default());
    let server = Server::builder().timeout(LIMIT).layer(slow).add_service(calculator);
    tokio::spawn(server.serve_with_incoming(network.incoming()));
    let settings = Settings { timeout: 2 * SECOND, ..limited() };
    let (code, _) =
        ending(client(network.channel(), &settings.clone().layers().unwrap()).add(add(1.0, 2.0)))
            .await;
    // The server received a deadline of 2 s, which is not what ends this call.
    assert_eq!(code, Code::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn d_a_stream_that_stalls_after_its_headers_ends() {
    let (server, mut client, _serving) = scripted([Answer::HeadersThenHang], &limited());
    let streaming = async {
        let request = RangeRequest { first: 1.0, last: 9.0, step: None };
        client.range(request).await?.into_inner().message().await
    };
    assert_eq!(ending(streaming).await, IN_TIME);
    tokio::task::yield_now().await;
    assert_eq!(server.dropped(), 1);
}

#[tokio::test(start_paused = true)]
async fn e_a_peer_that_accepts_and_never_speaks_is_deadline_exceeded() {
    let network = Network::new();
    let silent = network.incoming();
    let mut client = client(network.channel(), &limited().layers().unwrap());
    assert_eq!(ending(client.add(add(1.0, 2.0))).await, IN_TIME);
    drop(silent);
}

#[tokio::test(start_paused = true)]
async fn h_a_balancer_without_endpoints_is_deadline_exceeded() {
    let (empty, _keep) = Channel::balance_channel::<u8>(1);
    assert_eq!(
        ending(client(empty, &limited().layers().unwrap()).add(add(1.0, 2.0))).await,
        IN_TIME
    );
}

#[tokio::test(start_paused = true)]
async fn k_a_connector_that_never_answers_is_deadline_exceeded() {
    let never = service_fn(|_: http::Uri| {
        pending::<Result<hyper_util::rt::TokioIo<tokio::io::DuplexStream>, BoxError>>()
    });
    let endpoint = Endpoint::from_static("http://server").timeout(LIMIT);
    let channel = endpoint.connect_with_connector_lazy(never);
    let mut client = client(channel, &seeded().layers().unwrap());
    assert_eq!(ending(client.add(add_within(LIMIT))).await, IN_TIME);
}

#[tokio::test(start_paused = true)]
async fn k2_a_balancer_without_endpoints_heeds_the_timeout_of_the_request() {
    let (empty, _keep) = Channel::balance_channel::<u8>(1);
    assert_eq!(
        ending(client(empty, &seeded().layers().unwrap()).add(add_within(LIMIT))).await,
        IN_TIME
    );
}

#[tokio::test(start_paused = true)]
async fn m_a_server_killed_during_a_call_is_unavailable_and_can_be_retried() {
    for (codes, expected) in [
        (vec![Code::DeadlineExceeded], Err(Code::Unavailable)),
        (vec![Code::Unavailable], Ok(15.0)),
    ] {
        let (server, network) = (ScriptedServer::new([Answer::Hang, ok(15.0)]), Network::new());
        let _serving = network.serve_service(server.clone());
        let mut client = client(network.channel(), &retrying(codes).layers().unwrap());
        let kill = async {
            while server.attempts() == 0 {
                tokio::task::yield_now().await;
            }
            network.reset();
        };
        let (outcome, ()) = tokio::join!(client.add(add(10.0, 5.0)), kill);
        let outcome = outcome.map(|response| response.into_inner().value);
        assert_eq!(outcome.map_err(|status| status.code()), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_never_made_counts_against_the_deadline_of_the_call() {
    let network = Network::new();
    network.blackhole(true);
    let stack = tower::ServiceBuilder::new()
        .layer(CallDeadlineSettings::new().with_limit(LIMIT).layer())
        .layer(AttemptTimeoutLayer::default())
        .service(network.channel());
    assert_eq!(ending(CalculatorClient::new(stack).add(add(1.0, 2.0))).await, IN_TIME);
}
