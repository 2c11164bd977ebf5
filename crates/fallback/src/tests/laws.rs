//! The laws of a tower service: readiness, clones, drop at every await.

use super::*;
use crate::answer::Source;
use cinchona_core::{AttemptKind, Call, Deadline};
use tokio_test::{assert_pending, assert_ready_ok, task};
use tower_test::mock::{self, Handle, Mock, Spawn};

type Sent = Request<Body>;
type Given = Response<Body>;
type Mocked = Spawn<Fallback<Mock<Sent, Given>>>;

fn mocked(layer: FallbackLayer) -> (Mocked, Handle<Sent, Given>) {
    mock::spawn_layer(layer)
}

fn defaulting_settings() -> FallbackSettings {
    settings().with_default("bank.Bank", "", 5_u32.encode_to_vec()).unwrap()
}

fn defaulting() -> FallbackLayer {
    defaulting_settings().layer()
}

#[tokio::test(start_paused = true)]
async fn readiness_is_that_of_the_service_below() {
    let (mut service, mut handle) = mocked(caching());
    handle.allow(0);
    assert_pending!(service.poll_ready());
    handle.allow(1);
    assert_ready_ok!(service.poll_ready());
    let mut call = task::spawn(service.call(balance()));
    assert_pending!(call.poll());
    let given = Status::not_found("none").into_http();
    handle.next_request().await.unwrap().1.send_response(given);
    assert_ready_ok!(call.poll());
}

#[tokio::test(start_paused = true)]
async fn a_service_that_fails_to_get_ready_fails_the_call_which_is_given_a_second_answer() {
    let (mut service, mut handle) = mocked(defaulting());
    handle.send_error("gone");
    assert_ready_ok!(service.poll_ready());
    assert_ready_ok!(service.poll_ready());
    let response = assert_ready_ok!(task::spawn(service.call(balance())).poll());
    assert_eq!(response.headers()[DEGRADED], "default");
    handle.send_error("gone");
    assert_ready_ok!(service.poll_ready());
    let error = service.call(request(WATCH, 1)).await.unwrap_err();
    assert_eq!(error.to_string(), "gone");
}

#[tokio::test(start_paused = true)]
async fn the_alternate_is_called_when_it_is_ready() {
    let (alternate, mut other) = mock::pair::<Sent, Given>();
    other.allow(0);
    let server = ScriptedServer::new([down()]);
    let client = settings().with_alternate(alternate).layer().layer(server);
    let mut call = task::spawn(client.oneshot(balance()));
    assert_pending!(call.poll());
    assert_pending!(task::spawn(other.next_request()).poll());
    other.allow(1);
    assert_pending!(call.poll());
    let good = Answer::of(encode(&3_u32)).play(Source::Default).map(Body::new);
    other.next_request().await.unwrap().1.send_response(good);
    let response = assert_ready_ok!(call.poll());
    assert_eq!(response.headers()[DEGRADED], "alternate");
}

#[tokio::test(start_paused = true)]
async fn an_alternate_that_fails_to_get_ready_has_no_answer() {
    let (alternate, mut other) = mock::pair::<Sent, Given>();
    other.send_error("gone");
    let client = defaulting_settings()
        .with_alternate(alternate)
        .layer()
        .layer(ScriptedServer::new([down()]));
    assert_eq!(ask(&client, balance()).await, second("default", 5));
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_at_any_await_leaves_nothing_behind() {
    for hangs in [Reply::Hang, Reply::HeadersThenHang] {
        let (first, second) = (ScriptedServer::new([hangs.clone()]), ScriptedServer::new([hangs]));
        let layer = caching();
        let mut call = task::spawn(layer.layer(first.clone()).oneshot(balance()));
        assert_pending!(call.poll());
        assert_eq!((first.attempts(), first.dropped()), (1, 0));
        drop(call);
        assert_eq!(first.dropped(), 1);

        let layer = settings().with_alternate(second.clone()).layer();
        let failing =
            ScriptedServer::new([Reply::HeadersThenStatus(Status::internal("simulated"))]);
        let mut call = task::spawn(layer.layer(failing.clone()).oneshot(balance()));
        assert_pending!(call.poll());
        assert_eq!((failing.dropped(), second.attempts(), second.dropped()), (0, 1, 0));
        drop(call);
        assert_eq!(second.dropped(), 1);
        assert_eq!(layer.counters(), FallbackCounters::default());
    }
}

#[tokio::test(start_paused = true)]
async fn the_alternate_gets_the_remaining_time_and_is_not_called_after_the_deadline() {
    let alternate = ScriptedServer::new([ok(3)]);
    let slow = Reply::After(4 * SECOND, Box::new(down()));
    let client = defaulting_settings()
        .with_alternate(alternate.clone())
        .layer()
        .layer(ScriptedServer::new([slow]));
    let within = |limit: Duration| {
        let mut request = balance();
        let deadline = Deadline::after(limit, Instant::now());
        deadline.stamp(request.headers_mut(), Instant::now());
        request.extensions_mut().insert(deadline);
        request
    };
    assert_eq!(ask(&client, within(10 * SECOND)).await, second("alternate", 3));
    assert_eq!(alternate.received()[0].headers["grpc-timeout"], "6000000u");
    assert_eq!(ask(&client, within(4 * SECOND)).await, second("default", 5));
    assert_eq!(alternate.attempts(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_of_the_alternate_has_its_own_record_and_the_same_deadline() {
    let (seen, all) = std::sync::mpsc::channel();
    let mut other = ScriptedServer::new([ok(3)]);
    let alternate = tower::service_fn(move |mut request: Sent| {
        let deadline = Deadline::handed_on(&request);
        let attempts = Call::of(&mut request, Instant::now).attempts().len();
        seen.send((deadline, attempts)).unwrap();
        other.call(request)
    });
    let client = settings().with_alternate(alternate).layer().layer(ScriptedServer::new([down()]));
    let mut request = balance();
    let deadline = Deadline::after(10 * SECOND, Instant::now());
    let call = Call::of(&mut request, Instant::now);
    call.set_deadline(Some(deadline));
    *call = call.begins(AttemptKind::First, Instant::now());
    assert_eq!(ask(&client, request).await, second("alternate", 3));
    assert_eq!(all.try_recv(), Ok((Some(deadline), 0)));
}

#[test]
fn services_and_futures_are_as_the_service_below_allows() {
    fn is_shared<T: Send + Sync + Clone + 'static>(_: &T) {}
    fn is_sent<T: Send + 'static>(_: &T) {}
    let mut client = defaulting_settings()
        .with_alternate(ScriptedServer::new([]))
        .layer()
        .layer(ScriptedServer::new([]));
    is_shared(&client);
    is_sent(&client.call(balance()));
}
