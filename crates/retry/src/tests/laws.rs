//! The laws of a tower service: readiness, clones, drop at every await.

use super::*;
use tokio::time::advance;
use tokio_test::{assert_pending, assert_ready_err, assert_ready_ok, task};
use tower::{ServiceBuilder, buffer::BufferLayer, limit::ConcurrencyLimitLayer};
use tower_test::mock::{self, Handle, Mock, Spawn};

type Mocked = Spawn<Retry<Mock<Request, Response>>>;

fn mocked() -> (Mocked, Handle<Request, Response>) {
    mock::spawn_layer(layer(on([Code::Unavailable])))
}

fn unavailable() -> Response {
    Status::unavailable("simulated").into_http()
}

#[tokio::test(start_paused = true)]
async fn readiness_is_that_of_the_service_below() {
    let (mut service, mut handle) = mocked();
    handle.allow(0);
    assert_pending!(service.poll_ready());
    handle.allow(1);
    assert_ready_ok!(service.poll_ready());
    handle.send_error("gone");
    assert_eq!(assert_ready_err!(service.poll_ready()).to_string(), "gone");
}

#[tokio::test(start_paused = true)]
async fn the_ready_service_makes_the_first_attempt_and_is_readied_for_the_next() {
    let (mut service, mut handle) = mocked();
    handle.allow(1);
    assert_ready_ok!(service.poll_ready());
    let mut call = task::spawn(service.call(request()));
    assert_pending!(call.poll());
    handle.next_request().await.unwrap().1.send_response(unavailable());
    assert_pending!(call.poll());
    advance(2 * SECOND).await;
    // The backoff is over, but the service below is not ready.
    assert_pending!(call.poll());
    assert_pending!(task::spawn(handle.next_request()).poll());
    handle.allow(1);
    assert_pending!(call.poll());
    handle.next_request().await.unwrap().1.send_response(Status::ok("").into_http());
    assert_ready_ok!(call.poll());
}

#[tokio::test(start_paused = true)]
async fn a_service_below_that_fails_to_get_ready_fails_the_attempt() {
    let (mut service, mut handle) = mocked();
    handle.allow(1);
    assert_ready_ok!(service.poll_ready());
    let mut call = task::spawn(service.call(request()));
    assert_pending!(call.poll());
    handle.next_request().await.unwrap().1.send_response(unavailable());
    assert_pending!(call.poll());
    handle.send_error("gone");
    advance(2 * SECOND).await;
    let status = Status::from_error(assert_ready_err!(call.poll()));
    let ledger = Ledger::of(&status).unwrap();
    assert_eq!((ledger.attempts().len(), ledger.stopped()), (2, Stop::NotRetryable));
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_during_an_attempt_drops_that_attempt() {
    let server = ScriptedServer::new([Answer::Hang]);
    let mut call = task::spawn(layer(on([])).layer(server.clone()).oneshot(request()));
    assert_pending!(call.poll());
    assert_eq!((server.attempts(), server.dropped()), (1, 0));
    drop(call);
    assert_eq!((server.attempts(), server.dropped()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_during_its_backoff_makes_no_other_attempt() {
    let server = ScriptedServer::new([failing(Code::Unavailable)]);
    let client = layer(on([Code::Unavailable])).layer(server.clone());
    let mut call = task::spawn(client.oneshot(request()));
    assert_pending!(call.poll());
    drop(call);
    advance(10 * SECOND).await;
    assert_eq!((server.attempts(), server.dropped()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_while_the_service_below_is_not_ready_makes_no_other_attempt() {
    let (mut service, mut handle) = mocked();
    handle.allow(1);
    assert_ready_ok!(service.poll_ready());
    let mut call = task::spawn(service.call(request()));
    assert_pending!(call.poll());
    handle.next_request().await.unwrap().1.send_response(unavailable());
    assert_pending!(call.poll());
    advance(2 * SECOND).await;
    assert_pending!(call.poll());
    drop(call);
    handle.allow(1);
    assert_pending!(task::spawn(handle.next_request()).poll());
}

#[tokio::test(start_paused = true)]
async fn clones_call_independently() {
    let server = ScriptedServer::new([failing(Code::Unavailable), ok()]);
    let client = layer(on([Code::Unavailable])).layer(server.clone());
    let calls =
        [client.clone(), client.clone(), client].map(|c| tokio::spawn(c.oneshot(request())));
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(server.attempts(), 4);
}

#[tokio::test(start_paused = true)]
async fn it_works_over_a_buffer_and_frees_the_permit_of_a_limit_before_it_retries() {
    let server = ScriptedServer::new([failing(Code::Unavailable), ok()]);
    let client = ServiceBuilder::new()
        .layer(layer(on([Code::Unavailable])))
        .layer(BufferLayer::new(8))
        .layer(ConcurrencyLimitLayer::new(1))
        .service(server.clone());
    let calls: Vec<_> = (0..4).map(|_| tokio::spawn(client.clone().oneshot(request()))).collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(server.attempts(), 5);
}

#[tokio::test(start_paused = true)]
async fn it_does_not_deadlock_right_over_a_limit_of_one() {
    let server = ScriptedServer::new([failing(Code::Unavailable), ok()]);
    let client = ServiceBuilder::new()
        .layer(layer(on([Code::Unavailable])))
        .layer(ConcurrencyLimitLayer::new(1))
        .service(server.clone());
    let answered = tokio::time::timeout(60 * SECOND, client.oneshot(request())).await;
    assert!(answered.is_ok_and(|answer| answer.is_ok()));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_polled_after_its_end_fails_and_does_not_wait() {
    let always = tower::service_fn(|_: Request| {
        std::future::poll_fn(|_| std::task::Poll::Ready(Ok::<_, BoxError>(unavailable())))
    });
    let mut service = layer(on([Code::Internal])).layer(always);
    let mut call = task::spawn(tower::Service::call(&mut service, request()));
    assert_ready_err!(call.poll());
    let again = assert_ready_err!(call.poll()).to_string();
    assert!(again.contains("polled"), "{again}");
}
