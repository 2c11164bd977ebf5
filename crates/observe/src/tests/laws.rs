//! The laws of every layer.

use super::{TARGET, metrics};
use crate::{AttemptLayer, CallLayer, Observed, ServerLayer};
use std::convert::Infallible;
use tokio_test::{assert_pending, assert_ready, assert_ready_err, assert_ready_ok, task};
use tonic::{Status, body::Body, server::NamedService};
use tower::{Layer, Service, service_fn};
use tower_test::mock;

/// `inner` in each of the layers.
fn layered<S: Clone>(inner: &S) -> Vec<Observed<S>> {
    let metrics = metrics();
    vec![
        CallLayer::new(&metrics, TARGET).layer(inner.clone()),
        AttemptLayer::new(&metrics, TARGET).layer(inner.clone()),
        ServerLayer::new(&metrics).layer(inner.clone()),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_layer_is_ready_when_the_service_below_is_and_calls_that_one() {
    let (inner, mut handle) = mock::pair::<http::Request<Body>, http::Response<Body>>();
    for mut layered in layered(&inner) {
        handle.allow(0);
        let mut ready = task::spawn(());
        assert_pending!(
            ready.enter(|cx, _| Service::<http::Request<Body>>::poll_ready(&mut layered, cx))
        );
        handle.allow(1);
        assert_ready_ok!(
            ready.enter(|cx, _| Service::<http::Request<Body>>::poll_ready(&mut layered, cx))
        );
        // The mock panics where one is called that is not ready.
        let mut called = task::spawn(layered.call(super::request()));
        assert_pending!(called.poll());
        let (_, answer) = handle.next_request().await.unwrap();
        answer.send_response(Status::not_found("none").into_http());
        let response = assert_ready_ok!(called.poll());
        assert_eq!(response.headers()["grpc-status"], "5", "passed on as it was");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_is_passed_on_unchanged() {
    let failing = service_fn(|_: http::Request<Body>| async {
        Err::<http::Response<Body>, _>(Status::aborted("mine"))
    });
    for mut layered in layered(&failing) {
        let mut called = task::spawn(layered.call(super::request()));
        let error: Status = assert_ready_err!(called.poll());
        assert_eq!(error.message(), "mine");
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_that_comes_with_the_head_is_passed_on() {
    let answering = service_fn(|_: http::Request<Body>| async {
        Ok::<_, Infallible>(http::Response::new(Body::empty()))
    });
    for mut layered in layered(&answering) {
        let mut called = task::spawn(layered.call(super::request()));
        let body = assert_ready!(called.poll()).unwrap().into_body();
        assert!(http_body::Body::is_end_stream(&body));
        assert_eq!(http_body::Body::size_hint(&body).exact(), Some(0));
    }
}

#[test]
fn a_named_service_keeps_its_name() {
    #[derive(Debug)]
    struct Named;
    impl NamedService for Named {
        const NAME: &'static str = "calculator.Calculator";
    }
    assert_eq!(<Observed<Named> as NamedService>::NAME, "calculator.Calculator");
}
