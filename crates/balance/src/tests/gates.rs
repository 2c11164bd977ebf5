//! Gates of endpoints.

use super::*;
use cinchona_core::{Evidence, Gate, Rejected, Verdict};
use cinchona_plumbing::{Ticket, cause};
use std::sync::{
    Mutex,
    atomic::{AtomicI64, Ordering},
};

/// Shut for some endpoints; counts the admitted calls.
#[derive(Debug, Default)]
struct Doors {
    shut: Mutex<Vec<String>>,
    inside: AtomicI64,
    left: Mutex<Vec<Evidence>>,
}

#[derive(Debug)]
struct Door(Arc<Doors>, String);

impl Gate for Door {
    fn is_open_to(&self, _: &str, _: Instant) -> bool {
        !self.0.shut.lock().unwrap().contains(&self.1)
    }

    fn enter(&self, path: &str, now: Instant) -> Result<Ticket, Rejected> {
        if !self.is_open_to(path, now) {
            let wait = Duration::from_secs(self.1.len() as u64);
            return Err(Rejected::new(format!("{} is shut", self.1), Some(wait)));
        }
        self.0.inside.fetch_add(1, Ordering::Relaxed);
        Ok(Ticket(1, 2))
    }

    fn leave(&self, ticket: Ticket, evidence: Evidence, _: Duration, _: Instant) {
        assert_eq!(ticket, Ticket(1, 2));
        self.0.inside.fetch_sub(1, Ordering::Relaxed);
        self.0.left.lock().unwrap().push(evidence);
    }
}

fn gated(doors: &Arc<Doors>) -> Options {
    let doors = doors.clone();
    let gate = move |target: &Target| -> Arc<dyn Gate> {
        Arc::new(Door(doors.clone(), target.uri.host().unwrap_or_default().to_owned()))
    };
    Options { gate: Some(Arc::new(gate)), picker: Picker::RoundRobin, ..Options::default() }
}

#[tokio::test(start_paused = true)]
async fn calls_go_to_endpoints_that_admit_them() {
    for picker in
        [Picker::PeakEwma, Picker::RoundRobin, Picker::WeightedRoundRobin, Picker::PickFirst]
    {
        let (world, doors) = (World::of(3), Arc::new(Doors::default()));
        doors.shut.lock().unwrap().push(name(0));
        let balance = world.balance(Options { picker, ..gated(&doors) });
        assert_eq!(calls(&balance, 60).await, [Code::Ok; 60]);
        let attempts = world.attempts();
        assert_eq!((attempts[0], attempts[1] + attempts[2]), (0, 60), "{picker:?}");
        assert_eq!(doors.inside.load(Ordering::Relaxed), 0, "every admitted call has left");
        assert_eq!(*doors.left.lock().unwrap(), [Evidence::Good(Code::Ok); 60]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_with_a_pushback_is_no_failure_to_a_gate() {
    let mut shed = Status::unavailable("too much to do");
    let failed = Answer::Status(shed.clone());
    shed.metadata_mut().insert("grpc-retry-pushback-ms", "0".parse().unwrap());
    for (answer, heard) in [
        (Answer::Status(shed.clone()), Evidence::Nothing(Some(Code::Unavailable))),
        (Answer::HeadersThenStatus(shed), Evidence::Nothing(Some(Code::Unavailable))),
        (failed, Evidence::Bad(Code::Unavailable)),
    ] {
        let (world, doors) = (World::new([answer]), Arc::new(Doors::default()));
        let balance = world.balance(gated(&doors));
        assert_eq!(call(&balance).await, Code::Unavailable);
        assert_eq!(*doors.left.lock().unwrap(), [heard]);
        // Outlier detection counts both: gRFC A50 knows no exception.
        assert_eq!(balance.states()[0].failures, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn if_all_gates_are_shut_a_call_fails_immediately_and_names_the_first_to_open() {
    let (world, doors) = (World::of(2), Arc::new(Doors::default()));
    let balance = world.balance(gated(&doors));
    assert_eq!(call(&balance).await, Code::Ok);
    doors.shut.lock().unwrap().extend([name(0), name(1)]);
    let began = Instant::now();
    let error = balance.clone().oneshot(request()).await.unwrap_err();
    assert_eq!(Instant::now(), began);
    assert!(matches!(Verdict::of_error(&*error), Verdict::NotProcessed(_)));
    let rejected: &Rejected = cause::find_cause(&*error).unwrap();
    assert_eq!(rejected.retry_after(), Some(2 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_leaves_and_one_past_its_deadline_has_failed() {
    let (given_up, late) = (Evidence::Nothing(None), Evidence::Bad(Code::DeadlineExceeded));
    for (timeout_header, evidence) in [(None, given_up), (Some("1S"), late)] {
        let (world, doors) = (World::new([Answer::Hang]), Arc::new(Doors::default()));
        let balance = world.balance(gated(&doors));
        sleep(SECOND).await;
        let mut request = request();
        if let Some(value) = timeout_header {
            request.headers_mut().insert("grpc-timeout", value.parse().unwrap());
        }
        let outcome = timeout(SECOND, balance.clone().oneshot(request)).await;
        // Either this timer ends it, or that of tonic's channel.
        assert!(outcome.is_err() || evidence == late, "{outcome:?}");
        assert_eq!(doors.inside.load(Ordering::Relaxed), 0);
        assert_eq!(*doors.left.lock().unwrap(), [evidence]);
    }
}

#[tokio::test(start_paused = true)]
async fn where_all_are_at_capacity_the_call_fails_with_resource_exhausted_and_their_loads() {
    /// At full capacity.
    #[derive(Debug)]
    struct Full(String);

    impl Gate for Full {
        fn is_open_to(&self, _: &str, _: Instant) -> bool {
            false
        }

        fn enter(&self, _: &str, _: Instant) -> Result<Ticket, Rejected> {
            Err(Rejected::exhausted(format!("{} 64/64", self.0)))
        }

        fn leave(&self, _: Ticket, _: Evidence, _: Duration, _: Instant) {}
    }

    let world = World::of(2);
    let gate = |target: &Target| -> Arc<dyn Gate> {
        Arc::new(Full(target.uri.host().unwrap_or_default().to_owned()))
    };
    let balance = world.balance(Options { gate: Some(Arc::new(gate)), ..Options::default() });
    sleep(SECOND).await;
    let error = balance.clone().oneshot(request()).await.unwrap_err();
    assert_eq!(Verdict::of_error(&*error), Verdict::MaybeProcessed(Code::ResourceExhausted));
    let status = Status::from_error(error);
    assert_eq!(
        status.message(),
        "/calculator.Calculator/Add: all are at capacity: e0 64/64, e1 64/64"
    );
}

#[tokio::test(start_paused = true)]
async fn least_request_avoids_the_busy_one_and_random_picks_all_alike() {
    let world = World::new([Answer::Hang, ok(), ok()]);
    let balance = world.balance(by(Picker::LeastRequest));
    sleep(SECOND).await;
    let mut hanging = Vec::new();
    while world.attempts()[0] < 1 {
        let mut call = Box::pin(send(&balance, request()));
        _ = timeout(MS, &mut call).await;
        hanging.push(call);
    }
    let before = world.attempts()[0];
    for _ in 0..300 {
        _ = timeout(MS, send(&balance, request())).await;
    }
    // Two idle ones are always the better choice of two.
    assert_eq!(world.attempts()[0], before);

    let world = World::of(3);
    let balance = world.balance(by(Picker::Random));
    calls(&balance, 3000).await;
    for attempts in world.attempts() {
        assert!((900..1100).contains(&attempts), "{attempts}");
    }
}
