//! The deadline of an execution.

use super::*;
use cinchona_core::{Deadline, ServerContext};
use std::sync::Mutex;

/// The remaining time that a handler sees, after `works`: by its task, its request's extensions and
/// its headers.
type Seen = (Option<Duration>, Option<Duration>, Option<Duration>, u32);

fn watching(works: Duration) -> (Bank, Arc<Mutex<Vec<Seen>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = seen.clone();
    let service = service_fn(move |request: Request<Body>| {
        let noted = noted.clone();
        async move {
            sleep(works).await;
            let left = |deadline: Deadline| deadline.remaining(Instant::now());
            let inbound = ServerContext::current().unwrap();
            noted.lock().unwrap().push((
                inbound.deadline.map(left),
                request.extensions().get::<Deadline>().copied().map(left),
                Deadline::parse_timeout(request.headers()).unwrap(),
                inbound.previous_attempts,
            ));
            Ok(answer(0))
        }
    });
    (BoxCloneSyncService::new(service), seen)
}

/// A call whose caller's time is `left`, as sent in all ways.
fn impatient(left: Duration) -> (ServerContext, Request<Body>) {
    let deadline = Deadline::after(left, Instant::now());
    let mut request = pay("k");
    request.extensions_mut().insert(deadline);
    deadline.stamp(request.headers_mut(), Instant::now());
    (ServerContext::new(Some(deadline), 2), request)
}

// catalogue: S-C4
#[tokio::test(start_paused = true)]
async fn an_execution_has_the_time_of_its_lease_or_its_callers_where_that_is_longer() {
    for left in [SECOND / 4, SECOND, 60 * SECOND] {
        let (service, seen) = watching(SECOND / 2);
        let layer = settings().with_lease(10 * SECOND).unwrap().layer(MemoryStore::new());
        let service = layer.layer(service);
        let (inbound, request) = impatient(left);
        let called = tokio::time::timeout(left, inbound.scope(ask(&service, request))).await;
        assert_eq!(called.is_err(), left < SECOND / 2);
        sleep(SECOND).await;
        let time = left.max(10 * SECOND);
        let after = time - SECOND / 2;
        let seen = seen.lock().unwrap().clone();
        assert_eq!(seen, [(Some(after), Some(after), Some(time), 2)]);
        assert!(is_replay(&ask(&service, pay("k")).await));
    }
}

#[tokio::test(start_paused = true)]
async fn an_execution_is_not_cut_off_while_its_caller_waits_for_up_to_an_hour() {
    for (left, works, is_answered) in
        [(120, 40, true), (120, 121, false), (9000, 3599, true), (9000, 3601, false)]
    {
        let (service, _) = watching(works * SECOND);
        let layer = settings().with_guarantee(Guarantee::AtMostOnce).layer(MemoryStore::new());
        let (inbound, request) = impatient(left * SECOND);
        let answer = inbound.scope(ask(&layer.layer(service), request)).await;
        assert_eq!(status(&answer).code() == Code::Ok, is_answered, "{left} {works}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_unlimited_lease_is_no_deadline_and_none_is_invented() {
    let (service, seen) = watching(Duration::ZERO);
    let layer = settings().with_lease(Duration::MAX).unwrap().layer(MemoryStore::new());
    let (inbound, request) = impatient(SECOND);
    inbound.scope(ask(&layer.layer(service.clone()), request)).await;
    ask(&dedup().layer(service), pay("k")).await;
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen, [(None, None, None, 2), (Some(30 * SECOND), None, None, 0)]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_not_recognised_keeps_its_callers_deadline() {
    let (service, seen) = watching(Duration::ZERO);
    let (inbound, mut request) = impatient(SECOND);
    request.headers_mut().remove(IDEMPOTENCY_KEY);
    inbound.scope(ask(&dedup().layer(service), request)).await;
    assert_eq!(seen.lock().unwrap()[0], (Some(SECOND), Some(SECOND), Some(SECOND), 2));
}

#[tokio::test(start_paused = true)]
async fn the_calls_of_a_handler_go_on_when_its_caller_has_gone() {
    let (bank, executed) = bank(Duration::ZERO, &[]);
    let service = service_fn(move |_: Request<Body>| {
        let bank = bank.clone();
        async move {
            sleep(SECOND).await;
            // As client layers do.
            let left =
                ServerContext::current().unwrap().deadline.unwrap().remaining(Instant::now());
            if left.is_zero() {
                return Ok(Status::deadline_exceeded("call deadline of 0ns exceeded").into_http());
            }
            bank.oneshot(to("/Other/Call", None, message("", 0))).await
        }
    });
    let service = dedup().layer(service);
    let (inbound, request) = impatient(SECOND / 2);
    let call = tokio::time::timeout(SECOND / 2, inbound.scope(ask(&service, request)));
    assert!(call.await.is_err());
    let retry = ask(&service, pay("k")).await;
    assert_eq!((status(&retry).code(), is_replay(&retry)), (Code::Ok, true));
    assert_eq!(executed.load(Ordering::Relaxed), 1);
}

// catalogue: S-P7
#[tokio::test(start_paused = true)]
async fn abandoned_calls_leave_no_task_after_their_leases() {
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let (service, executed) = bank(Duration::MAX / 4, &[]);
    for in_flight in [InFlight::Join, InFlight::Reject(SECOND)] {
        let layer = settings()
            .with_lease(10 * SECOND)
            .unwrap()
            .with_in_flight(in_flight)
            .layer(MemoryStore::new());
        let service = layer.layer(service.clone());
        let calls: Vec<_> =
            (0..8).map(|n| tokio::spawn(service.clone().oneshot(pay(["a", "b"][n % 2])))).collect();
        sleep(SECOND).await;
        calls.iter().for_each(tokio::task::JoinHandle::abort);
        drop((layer, service));
        sleep(SECOND).await;
        assert_eq!(tasks(), before + 2, "executions go on as long as their leases");
        sleep(10 * SECOND).await;
        assert_eq!(tasks(), before);
    }
    assert_eq!(executed.load(Ordering::Relaxed), 4);
}
