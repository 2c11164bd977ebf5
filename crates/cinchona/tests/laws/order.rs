//! A layer in a harmful place logs a warning, once.

use crate::layers::methods;
use cinchona::{
    deadline::CallDeadlineLayer,
    idempotency::IdempotencyKeyLayer,
    observe::{CallLayer, Metrics},
    retry::{RetryLayer, RetryPolicy},
};
use cinchona_testkit::{Answer, Logs, ScriptedServer, encode};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service, ServiceExt};

const PATH: &str = "/a.B/Unary";

/// The warnings of two calls of three attempts each through `inner`, within retries.
fn warned<S, B>(within: impl Fn(ScriptedServer) -> S) -> Vec<String>
where
    S: Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + 'static,
    S::Error: Into<cinchona::core::BoxError>,
    S::Future: Send,
    B: http_body::Body<Data = bytes::Bytes, Error: Into<cinchona::core::BoxError>> + Send + 'static,
{
    crate::virtually(async {
        let logs = Logs::of("cinchona");
        let failure = || Answer::Status(Status::unavailable("for now"));
        let policy = RetryPolicy::default().with_codes([Code::Unavailable]).unwrap();
        let retry = RetryLayer::new(policy, cinchona::core::Methods::all_idempotent());
        for _ in 0..2 {
            let server = ScriptedServer::new([failure(), failure(), Answer::Ok(encode(&7_u32))]);
            let client = retry.layer(within(server.clone()));
            let request = http::Request::post(PATH).body(Body::empty()).unwrap();
            assert!(client.oneshot(request).await.is_ok());
            assert_eq!(server.attempts(), 3);
        }
        let warnings = logs.events().into_iter();
        let warnings = warnings.filter(|event| event.level == tracing::Level::WARN);
        warnings.map(|event| event.message).collect()
    })
}

// catalogue: S-D8
#[test]
fn a_key_layer_within_the_retries_says_so_once() {
    let layer = IdempotencyKeyLayer::new(methods());
    let [warning] = &warned(|server| layer.layer(server))[..] else { panic!("one") };
    assert!(warning.contains("put `IdempotencyKeyLayer` around `RetryLayer`"), "{warning}");
}

// catalogue: S-D8
#[test]
fn a_call_deadline_within_the_retries_says_so_once() {
    let layer = CallDeadlineLayer::new();
    let [warning] = &warned(|server| layer.layer(server))[..] else { panic!("one") };
    assert!(warning.contains("put `CallDeadlineLayer` around `RetryLayer`"), "{warning}");
}

#[test]
fn a_call_layer_within_the_retries_says_so_once() {
    let layer = CallLayer::new(&Metrics::new(methods()), "any");
    let [warning] = &warned(|server| layer.layer(server))[..] else { panic!("one") };
    assert!(warning.contains("put `CallLayer` around `RetryLayer`"), "{warning}");
}

// catalogue: S-D8
#[test]
fn a_retry_layer_within_the_attempts_of_another_says_so_once() {
    let policy = RetryPolicy::default().with_max_retries(0);
    let layer = RetryLayer::new(policy, cinchona::core::Methods::unknown());
    let [warning] = &warned(|server| layer.layer(server))[..] else { panic!("one") };
    assert!(warning.contains("leave one of them out"), "{warning}");
}
