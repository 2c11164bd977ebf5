//! What one call does otherwise, line by line of `CallOptions`.

use crate::{asked, methods, ok, scripted, unavailable};
use cinchona::{
    client::{CallOptions, Settings},
    core::{Rng, Target},
    retry::{HedgePolicy, RetryPolicy},
};
use cinchona_testkit::{Answer, Received, ScriptedServer};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Status, transport::Server};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

const SECOND: Duration = Duration::from_secs(1);

fn asked_with(options: CallOptions) -> Request<HealthCheckRequest> {
    let mut request = Request::new(asked());
    request.extensions_mut().insert(options);
    request
}

/// Calls `Check` so, of a server with this script, and again without.
async fn called(
    script: impl IntoIterator<Item = Answer>,
    options: CallOptions,
) -> (Result<(), Status>, Vec<Received>) {
    let (server, network, _serving) = scripted(script);
    let settings = Settings::new(methods()).with_rng(Rng::seeded(1));
    let mut client = HealthClient::new(settings.layers().unwrap().around(network.channel()));
    let outcome = client.check(asked_with(options)).await.map(drop);
    (outcome, server.received())
}

// catalogue: S-D6
#[tokio::test(start_paused = true)]
async fn one_call_is_not_retried() {
    let (outcome, received) = called([unavailable(), ok()], CallOptions::new().once()).await;
    assert_eq!((outcome.unwrap_err().code(), received.len()), (Code::Unavailable, 1));
    let (outcome, received) = called([unavailable(), ok()], CallOptions::new()).await;
    assert!(outcome.is_ok() && received.len() == 2);
}

// catalogue: S-D6
#[tokio::test(start_paused = true)]
async fn one_call_has_another_policy() {
    let retry = RetryPolicy::default().with_codes([Code::Aborted]).unwrap().with_max_retries(1);
    let aborted = || Answer::Status(Status::aborted("again"));
    let options = CallOptions::new().with_policy(retry);
    let (outcome, received) = called([aborted(), aborted(), ok()], options).await;
    assert_eq!((outcome.unwrap_err().code(), received.len()), (Code::Aborted, 2));
}

// catalogue: S-D6
#[tokio::test(start_paused = true)]
async fn one_call_is_hedged() {
    let hedge = HedgePolicy::default().with_delay(SECOND).with_max_attempts(2);
    let options = CallOptions::new().with_hedge(hedge);
    let (outcome, received) = called([Answer::Hang, ok()], options).await;
    assert!(outcome.is_ok());
    assert_eq!(received[1].at - received[0].at, SECOND);
}

// catalogue: S-D6
#[tokio::test(start_paused = true)]
async fn the_attempts_of_one_call_have_another_limit() {
    let options = CallOptions::new().with_attempt_limit(2 * SECOND);
    let (outcome, received) = called([Answer::Hang, ok()], options).await;
    assert!(outcome.is_ok());
    let waited = received[1].at - received[0].at;
    assert!(waited >= 2 * SECOND && waited < 3 * SECOND, "{waited:?}");
    let options = CallOptions::new().without_attempt_limit();
    let slow = Answer::After(20 * SECOND, Box::new(ok()));
    let (outcome, received) = called([slow], options).await;
    assert!(outcome.is_ok() && received.len() == 1);
}

// catalogue: S-D6
#[tokio::test(start_paused = true)]
async fn one_call_has_a_key_of_its_own() {
    let options = CallOptions::new().with_key("order-7").unwrap();
    let (_, received) = called([ok()], options).await;
    assert_eq!(received[0].headers["idempotency-key"], "order-7");
    for key in ["", "two words", "\n", "schlüssel", &"k".repeat(256)] {
        assert_eq!(CallOptions::new().with_key(key).unwrap_err().field(), "key");
    }
}

// catalogue: S-D6
#[tokio::test]
async fn one_call_avoids_an_endpoint_while_there_is_another() {
    let mut servers = Vec::new();
    for _ in 0..2 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = ScriptedServer::new((0..40).map(|_| ok()));
        let serving = Server::builder().add_routes(server.routes());
        tokio::spawn(serving.serve_with_incoming(TcpListenerStream::new(listener)));
        servers.push((address, server));
    }
    let uri = |(address, _): &(_, _)| format!("http://{address}").parse::<Target>().unwrap();
    let targets: Vec<Target> = servers.iter().map(uri).collect();
    let channel = Settings::new(methods()).connect(targets.clone()).unwrap();
    let mut client = HealthClient::new(channel.clone());
    while channel.endpoints().iter().any(|seen| seen.state != cinchona::balance::State::Ready) {
        client.check(asked()).await.unwrap();
    }
    let (address, avoided) = &servers[0];
    let before = avoided.attempts();
    for _ in 0..10 {
        let options = CallOptions::new().avoiding(address.to_string());
        client.check(asked_with(options)).await.unwrap();
    }
    assert_eq!(avoided.attempts(), before);
    // Where there is no other, it is used.
    let channel = Settings::new(methods()).connect(vec![targets[0].clone()]).unwrap();
    let options = CallOptions::new().avoiding(address.to_string());
    HealthClient::new(channel).check(asked_with(options)).await.unwrap();
    assert_eq!(avoided.attempts(), before + 1);
}
