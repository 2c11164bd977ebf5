//! The breakers, each in the windows that it has.

use crate::harness::{
    Closure, Down, Goes, Layered, ROUNDS, Subject, Table, Tower, allocations, answer, median,
    one_thread, two_threads,
};
use cinchona_breaker::{BreakerLayer, BreakerPolicy, Window};
use failsafe::{CircuitBreaker as _, FailurePolicy as _};
use http::{Request, Response};
use recloser::Recloser;
use seatbelt::{RecoveryInfo, ResilienceContext, breaker};
use std::{hint::black_box, sync::Arc, time::Duration};
use tick::Clock;
use tonic::{Status, body::Body};
use tower::{Layer, service_fn};
use tower_resilience_circuitbreaker::{
    CircuitBreakerConfigBuilder, CircuitBreakerLayer, DefaultClassifier, SlidingWindowType,
};

type Outcome = Result<Response<Body>, Down>;

struct Contestant {
    name: &'static str,
    opens: Opens,
    kind: Kind,
    /// At most so many calls are timed at a time.
    most: u64,
    make: Box<dyn Fn() -> Box<dyn Subject>>,
}

/// What it opens by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opens {
    Never,
    InARow,
    Time,
    Count,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// No breaker: what is subtracted from all others that are called the same way.
    Nothing,
    Ours,
    Tower,
    /// A service of seatbelt's own kind.
    Layered,
    Closure,
    NothingInClosure,
}

/// What is measured, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    Closed,
    TwoThreads,
    Rejected,
}

const PASSES: [Pass; 3] = [Pass::Closed, Pass::TwoThreads, Pass::Rejected];
const IN_A_ROW: u32 = 3;
const RATE: f64 = 0.5;
const WINDOW: Duration = Duration::from_secs(10);
const CALLS: u32 = 100;
const MIN_CALLS: u32 = 20;
/// Longer than anything that is timed.
const OPEN_FOR: Duration = Duration::from_secs(60);

/// Measures all of them.
pub(crate) fn table() -> Table {
    let all = contestants();
    let mut nanos = vec![[const { Vec::new() }; 3]; all.len()];
    for round in 0..ROUNDS {
        for turn in 0..all.len() {
            // Nobody always follows the same one.
            let which = (turn + round) % all.len();
            for (pass, nanos) in PASSES.iter().zip(&mut nanos[which]) {
                nanos.push(all[which].measure(*pass));
            }
        }
    }
    let gross: Vec<[f64; 3]> = nanos.into_iter().map(|passes| passes.map(median)).collect();
    let floor = |kind| all.iter().position(|other| other.kind == kind).expect("there is one");
    let (services, closures) = (gross[floor(Kind::Nothing)], gross[floor(Kind::NothingInClosure)]);
    let net = |of: usize, pass: usize| match all[of].kind {
        Kind::Closure | Kind::NothingInClosure => gross[of][pass] - closures[pass],
        _ => gross[of][pass] - services[pass],
    };
    // Of the fastest tower service with the same window.
    let ratio = |of: usize, pass: usize| {
        let is_peer =
            |other: &usize| all[*other].kind == Kind::Tower && all[*other].opens == all[of].opens;
        let fastest = (0..all.len()).filter(is_peer).map(|peer| net(peer, pass));
        net(of, pass) / fastest.fold(f64::INFINITY, f64::min)
    };

    let row = |of: usize| {
        let contestant = &all[of];
        let mut row = vec![contestant.name.to_owned(), contestant.opens.name().to_owned()];
        for (pass, gross) in gross[of].iter().enumerate() {
            let net = match contestant.kind {
                Kind::Nothing | Kind::NothingInClosure => "-".to_owned(),
                _ => format!("{:.1}", net(of, pass)),
            };
            row.extend([format!("{gross:.1}"), net]);
        }
        row.extend(contestant.allocations().map(|allocations| format!("{allocations:.2}")));
        row.extend((0..PASSES.len()).map(|pass| match contestant.kind {
            Kind::Ours => format!("{:.2}", ratio(of, pass)),
            _ => "-".to_owned(),
        }));
        row
    };
    let head = [
        "breaker",
        "opens by",
        "closed ns",
        "net",
        "2 threads ns",
        "net",
        "rejected ns",
        "net",
        "allocs closed",
        "rejected",
        "ratio closed",
        "2 threads",
        "rejected",
    ];
    Table {
        title: format!("circuit breakers: ns per call, median of {ROUNDS} rounds"),
        head: head.map(str::to_owned).to_vec(),
        rows: (0..all.len()).map(row).collect(),
    }
}

fn contestants() -> Vec<Contestant> {
    use Kind::{Closure as InClosure, Layered as Own, Nothing, NothingInClosure, Ours};
    use Opens::{Count, InARow, Never, Time};
    let policy = BreakerPolicy::default().with_open_for(OPEN_FOR, OPEN_FOR).expect("allowed");
    let policy = policy.with_consecutive_failures(Some(IN_A_ROW)).expect("allowed");
    let rate = policy.with_consecutive_failures(None).and_then(|p| p.with_failure_rate(RATE));
    let rate = rate.and_then(|p| p.with_min_calls(MIN_CALLS)).expect("allowed");
    let time = rate.with_window(Window::Time(WINDOW)).expect("allowed");
    let count = rate.with_window(Window::Count(CALLS)).expect("allowed");
    vec![
        entry("no breaker, service", Never, Nothing, || Tower(service_fn(answer))),
        entry("cinchona", InARow, Ours, move || ours(policy)),
        entry("cinchona", Time, Ours, move || ours(time)),
        entry("cinchona", Count, Ours, move || ours(count)),
        entry("seatbelt 0.11.0", Time, Kind::Tower, || {
            Tower(seatbelt(has_failed, service_fn(answer)))
        }),
        entry("seatbelt 0.11.0, Err only", Time, Kind::Tower, || {
            Tower(seatbelt(Outcome::is_err, service_fn(answer)))
        }),
        entry("seatbelt 0.11.0, Err only, not tower", Time, Own, || {
            let inner = layered::Execute::new(answer);
            Layered(Arc::new(seatbelt(Outcome::is_err, inner)))
        }),
        entry("tower-resilience 0.13.0", InARow, Kind::Tower, || {
            tower_resilience(|builder| builder.consecutive_failures(IN_A_ROW as usize))
        }),
        entry("tower-resilience 0.13.0, Err only", InARow, Kind::Tower, || {
            tower_resilience_err_only(|builder| builder.consecutive_failures(IN_A_ROW as usize))
        }),
        entry("tower-resilience 0.13.0", Count, Kind::Tower, || tower_resilience(by_count)),
        entry("tower-resilience 0.13.0, Err only", Count, Kind::Tower, || {
            tower_resilience_err_only(by_count)
        }),
        entry("tower-resilience 0.13.0, Err only", Time, Kind::Tower, || {
            tower_resilience_err_only(by_time)
        })
        .at_most(200),
        entry("no breaker, closure", Never, NothingInClosure, || Closure(|goes| job(goes).is_ok())),
        entry("failsafe 1.3.0", InARow, InClosure, || {
            let breaker = failsafe::Config::new().failure_policy(in_a_row()).build();
            Closure(move |goes| breaker.call(|| job(goes)).is_ok())
        }),
        entry("failsafe 1.3.0", Time, InClosure, || {
            let backoff = failsafe::backoff::constant(OPEN_FOR);
            let rate = failsafe::failure_policy::success_rate_over_time_window(
                RATE, MIN_CALLS, WINDOW, backoff,
            );
            let policy = rate.or_else(in_a_row());
            let breaker = failsafe::Config::new().failure_policy(policy).build();
            Closure(move |goes| breaker.call(|| job(goes)).is_ok())
        }),
        entry("recloser 1.4.0", Count, InClosure, || {
            let builder = Recloser::custom().error_rate(RATE as f32).open_wait(OPEN_FOR);
            let breaker = Arc::new(builder.closed_len(CALLS as usize).build());
            Closure(move |goes| breaker.call(|| job(goes)).is_ok())
        }),
    ]
}

fn entry<S: Subject + 'static>(
    name: &'static str,
    opens: Opens,
    kind: Kind,
    make: impl Fn() -> S + 'static,
) -> Contestant {
    let make = move || -> Box<dyn Subject> { Box::new(make()) };
    Contestant { name, opens, kind, most: u64::MAX, make: Box::new(make) }
}

fn ours(policy: BreakerPolicy) -> impl Subject {
    Tower(BreakerLayer::new(policy).layer(service_fn(answer)))
}

fn seatbelt<S>(
    failed: impl Fn(&Outcome) -> bool + Send + Sync + 'static,
    inner: S,
) -> breaker::Breaker<Request<Body>, Outcome, S> {
    let context = ResilienceContext::new(Clock::new_tokio());
    breaker::Breaker::layer("breaker", &context)
        .recovery_with(move |outcome: &Outcome, _| match failed(outcome) {
            true => RecoveryInfo::retry(),
            false => RecoveryInfo::never(),
        })
        .rejected_input_error(|_request, _| Down)
        .failure_threshold(RATE as f32)
        .min_throughput(MIN_CALLS)
        .sampling_duration(WINDOW)
        .break_duration(OPEN_FOR)
        .layer(inner)
}

type Builder = CircuitBreakerConfigBuilder<DefaultClassifier>;

fn tower_resilience(opens: impl Fn(Builder) -> Builder) -> impl Subject {
    let builder = opens(CircuitBreakerLayer::builder()).wait_duration_in_open(OPEN_FOR);
    let layer = builder.failure_classifier(has_failed).build().expect("allowed");
    Tower(layer.layer(service_fn(answer)))
}

fn tower_resilience_err_only(opens: impl Fn(Builder) -> Builder) -> impl Subject {
    let builder = opens(CircuitBreakerLayer::builder()).wait_duration_in_open(OPEN_FOR);
    Tower(builder.build().expect("allowed").layer(service_fn(answer)))
}

fn by_count(builder: Builder) -> Builder {
    let builder = builder.sliding_window_type(SlidingWindowType::CountBased);
    let builder = builder.sliding_window_size(CALLS as usize);
    builder.failure_rate_threshold(RATE).minimum_number_of_calls(MIN_CALLS as usize)
}

fn by_time(builder: Builder) -> Builder {
    let builder = builder.sliding_window_type(SlidingWindowType::TimeBased);
    let builder = builder.sliding_window_duration(WINDOW);
    builder.failure_rate_threshold(RATE).minimum_number_of_calls(MIN_CALLS as usize)
}

fn in_a_row() -> failsafe::failure_policy::ConsecutiveFailures<failsafe::backoff::Constant> {
    let backoff = failsafe::backoff::constant(OPEN_FOR);
    failsafe::failure_policy::consecutive_failures(IN_A_ROW, backoff)
}

/// The least code by which a peer knows which gRPC calls have failed.
fn has_failed(outcome: &Outcome) -> bool {
    let status = outcome.as_ref().ok().and_then(|head| head.headers().get(Status::GRPC_STATUS));
    status.is_none_or(|code| code != "0")
}

fn job(goes: Goes) -> Result<(), Down> {
    match black_box(goes) {
        Goes::Well => Ok(()),
        Goes::Wrong => Err(Down),
    }
}

// === impl Contestant ===

impl Contestant {
    fn at_most(self, most: u64) -> Self {
        Self { most, ..self }
    }

    fn measure(&self, pass: Pass) -> f64 {
        let nanos = match pass {
            Pass::Closed => one_thread(&mut *self.closed(), Goes::Well, self.most),
            Pass::TwoThreads => two_threads(&mut *self.closed(), Goes::Well, self.most),
            Pass::Rejected => {
                let mut open = self.open();
                let nanos = one_thread(&mut *open, Goes::Wrong, u64::MAX);
                self.must_be_open(&mut *open);
                nanos
            }
        };
        assert!(nanos.is_finite(), "{}", self.name);
        nanos
    }

    fn allocations(&self) -> [f64; 2] {
        let closed = allocations(&mut *self.closed(), Goes::Well);
        [closed, allocations(&mut *self.open(), Goes::Wrong)]
    }

    fn closed(&self) -> Box<dyn Subject> {
        let mut subject = (self.make)();
        assert_eq!(subject.call(10, Goes::Well), 10, "{} is not closed", self.name);
        subject
    }

    fn open(&self) -> Box<dyn Subject> {
        let mut subject = (self.make)();
        // More than any window needs.
        subject.call(2 * u64::from(CALLS), Goes::Wrong);
        self.must_be_open(&mut *subject);
        subject
    }

    fn must_be_open(&self, subject: &mut dyn Subject) {
        let answered = subject.call(1, Goes::Well);
        assert_eq!(answered == 0, self.opens != Opens::Never, "{} is not open", self.name);
    }
}

// === impl Opens ===

impl Opens {
    const fn name(self) -> &'static str {
        match self {
            Self::Never => "-",
            Self::InARow => "3 in a row",
            Self::Time => "rate, 10 s",
            Self::Count => "rate, 100 calls",
        }
    }
}
