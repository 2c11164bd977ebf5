//! Every wait of a call ends, whatever the list, the endpoints, the source and the settings.

use super::*;
use cinchona_core::{Evidence, Gate, Rejected};
use cinchona_plumbing::{Signals, Ticket};
use std::future::pending;

/// The behaviour of the source of endpoints.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Says {
    Nothing,
    /// Nothing, since it cannot find out.
    Failure,
    Ends,
    Panics,
    Empty,
    /// Immediately, or after a second.
    Known,
    Later,
    NoAddress,
}

/// The behaviour of the only endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Does {
    Serve,
    Refuse,
    Blackhole,
    HangUp,
    /// After it has served.
    Vanish,
    Gone,
}

/// The behaviour of the user's callbacks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Calls {
    None,
    GatePanics,
    GateShut,
    ConfigureFails,
    ConfigurePanics,
    Unhealthy,
}

struct Source(Says, Signals);

#[derive(Debug)]
struct Shut;

impl Discover for Source {
    async fn next(&mut self) -> Option<Vec<Target>> {
        let said = std::mem::replace(&mut self.0, Says::Nothing);
        match said {
            Says::Nothing | Says::Known => pending().await,
            Says::Failure => {
                self.1.failed("nobody knows");
                pending().await
            }
            Says::Ends => None,
            Says::Panics => panic!("out of luck"),
            Says::Empty => Some(Vec::new()),
            Says::Later => {
                sleep(SECOND).await;
                Some(vec![target(0)])
            }
            Says::NoAddress => Some(vec![Uri::from_static("ftp://x").into()]),
        }
    }

    fn known(&mut self) -> Option<Vec<Target>> {
        (self.0 == Says::Known).then(|| vec![target(0)])
    }

    fn signals(&self) -> Signals {
        self.1.clone()
    }
}

impl Gate for Shut {
    fn is_open_to(&self, _: &str, _: Instant) -> bool {
        false
    }

    fn enter(&self, _: &str, _: Instant) -> Result<Ticket, Rejected> {
        Err(Rejected::new("shut", None))
    }

    fn leave(&self, _: Ticket, _: Evidence, _: Duration, _: Instant) {}
}

fn world(does: Does) -> World {
    let world = World::new([Answer::After(MS, Box::new(ok()))]);
    world.networks[0].refuse(does == Does::Refuse);
    world.networks[0].blackhole(does == Does::Blackhole);
    if does == Does::HangUp {
        drop(world.networks[0].incoming());
    }
    world
}

fn options(calls: Calls, picker: Picker, patience: Duration) -> Options {
    let default = Options { picker, patience, ..Options::default() };
    match calls {
        Calls::None => default,
        Calls::GatePanics => Options { gate: Some(Arc::new(|_| panic!("no gate"))), ..default },
        Calls::GateShut => Options { gate: Some(Arc::new(|_| Arc::new(Shut))), ..default },
        Calls::ConfigureFails => {
            Options { configure: Some(Arc::new(|_| Err("no certificate".into()))), ..default }
        }
        Calls::ConfigurePanics => {
            Options { configure: Some(Arc::new(|_| panic!("no settings"))), ..default }
        }
        Calls::Unhealthy => Options { health: Some("bank".to_owned()), ..default },
    }
}

/// Whether a call fails, how long it took, and its message.
async fn outcome(balance: &Balance) -> (Code, Duration, String) {
    let began = Instant::now();
    let outcome = timeout(600 * SECOND, balance.clone().oneshot(request())).await;
    let outcome = outcome.expect("the wait ends");
    let (code, message) = match outcome {
        Ok(_) => (Code::Ok, String::new()),
        Err(error) => {
            let status = Status::from_error(error);
            (status.code(), status.message().to_owned())
        }
    };
    (code, Instant::now() - began, message)
}

const PICKERS: [Picker; 6] = [
    Picker::PeakEwma,
    Picker::LeastRequest,
    Picker::Random,
    Picker::RoundRobin,
    Picker::WeightedRoundRobin,
    Picker::PickFirst,
];

// catalogue: S-B2
#[tokio::test(start_paused = true)]
async fn a_call_ends_by_its_patience_in_every_state_with_the_reason() {
    use {Calls::*, Does::*, Says::*};
    let patiences = [Duration::ZERO, 3 * SECOND / 2, 7 * SECOND];
    for says in [Nothing, Failure, Ends, Panics, Empty, Known, Later, NoAddress] {
        for does in [Serve, Refuse, Blackhole, HangUp, Vanish, Gone] {
            for calls in
                [Calls::None, GatePanics, GateShut, ConfigureFails, ConfigurePanics, Unhealthy]
            {
                for picker in PICKERS {
                    for patience in patiences {
                        let what = format!("{says:?} {does:?} {calls:?} {picker:?} {patience:?}");
                        trial((says, does, calls), picker, patience, &what).await;
                    }
                }
            }
        }
    }
}

async fn trial(
    (says, does, calls): (Says, Does, Calls),
    picker: Picker,
    patience: Duration,
    what: &str,
) {
    let mut world = world(does);
    let source = Source(says, Signals::default());
    let balance = world.balance_over(source, options(calls, picker, patience));
    // While endpoints are found and connected, gRPC's fail-fast waits.
    let longest = if patience.is_zero() { 5 * SECOND } else { patience };
    let is_found = matches!(says, Says::Known | Says::Later);
    let is_open =
        calls == Calls::None || (calls == Calls::Unhealthy && picker == Picker::PickFirst);
    if matches!(does, Does::Vanish | Does::Gone) && is_found {
        sleep(2 * SECOND).await;
        if does == Does::Gone {
            world.kill(0);
        } else {
            world.networks[0].reset();
            world.networks[0].blackhole(true);
        }
    }
    for wait in [Duration::ZERO, MS, SECOND, 10 * SECOND] {
        sleep(wait).await;
        let (code, took, message) = outcome(&balance).await;
        let may_serve = is_found && is_open && does == Does::Serve;
        let expected = if may_serve && took < longest { Code::Ok } else { Code::Unavailable };
        assert_eq!(code, expected, "{what}: {message}");
        // A scripted answer takes a millisecond.
        assert!(took <= longest + 2 * MS, "{what}: {took:?} {message}");
        if code == Code::Unavailable {
            assert!(message.starts_with("/calculator.Calculator/Add"), "{message}");
            let names_why = match says {
                Says::Nothing => message.contains("no endpoints have been found yet"),
                Says::Failure => message.contains("nobody knows"),
                Says::Panics => message.contains("out of luck"),
                Says::Ends | Says::Empty => message.contains("there are no endpoints"),
                Says::NoAddress => message.contains("\"ftp://x/\""),
                _ if calls == Calls::GateShut => true,
                Says::Known | Says::Later => {
                    message.contains("e0: ")
                        || message.contains("found yet")
                        // It was on its way.
                        || message.contains("at e0: ")
                }
            };
            assert!(names_why, "{what}: {message}");
        }
    }
}

// catalogue: S-B2
#[tokio::test(start_paused = true)]
async fn callbacks_that_panic_or_fail_are_reasons() {
    for (calls, expected) in [
        (Calls::GatePanics, "e0: gate panicked: no gate"),
        (Calls::ConfigureFails, "e0: configure: no certificate"),
        (Calls::ConfigurePanics, "e0: configure panicked: no settings"),
    ] {
        let world = world(Does::Serve);
        let options = options(calls, Picker::RoundRobin, Duration::ZERO);
        let balance = world.balance(options);
        let (_, took, message) = outcome(&balance).await;
        assert!(message.contains(expected) && took.is_zero(), "{message} {took:?}");
    }
}

// catalogue: S-B2
#[test]
fn a_call_on_a_balancer_whose_runtime_is_gone_fails_with_that_reason() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().start_paused(true).build().unwrap()
    };
    let first = runtime();
    let balance = first.block_on(async {
        let world = World::of(1);
        let balance = world.balance(Options::default());
        assert_eq!(call(&balance).await, Code::Ok);
        balance
    });
    drop(first);
    let (code, took, message) = runtime().block_on(outcome(&balance));
    assert_eq!((code, took), (Code::Unavailable, Duration::ZERO));
    assert!(message.contains("is gone"), "{message}");
}

// catalogue: S-B2
#[tokio::test(start_paused = true)]
async fn the_initial_value_of_a_watch_is_used_immediately() {
    let world = World::of(1);
    let (_targets, found) = watch::channel(vec![target(0)]);
    let balance = world.balance_over(found, Options::default());
    let (code, took, _) = outcome(&balance).await;
    assert_eq!((code, took), (Code::Ok, Duration::ZERO));
}

// catalogue: S-B1
#[tokio::test(start_paused = true)]
async fn a_slow_source_is_not_interrupted() {
    struct Slow(u32, Arc<std::sync::atomic::AtomicU32>);
    impl Discover for Slow {
        async fn next(&mut self) -> Option<Vec<Target>> {
            self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            sleep(30 * SECOND).await;
            self.0 += 1;
            Some(vec![target(self.0 as usize % 2)])
        }
    }
    let (world, begun) = (World::of(2), Arc::default());
    let balance = world.balance_over(Slow(0, Arc::clone(&begun)), Options::default());
    sleep(601 * SECOND).await;
    assert_eq!(begun.load(std::sync::atomic::Ordering::Relaxed), 21, "20 have ended");
    assert_eq!(balance.states()[0].target, target(0));
}

// catalogue: S-B1
#[tokio::test(start_paused = true)]
async fn a_source_that_ends_or_panics_leaves_its_endpoints() {
    struct Once(bool, bool);
    impl Discover for Once {
        async fn next(&mut self) -> Option<Vec<Target>> {
            let is_first = !std::mem::replace(&mut self.0, true);
            assert!(is_first || !self.1, "it ends badly");
            is_first.then(|| vec![target(0)])
        }
    }
    for panics in [false, true] {
        let world = World::of(1);
        let balance = world.balance_over(Once(false, panics), Options::default());
        sleep(100 * SECOND).await;
        assert_eq!(failures(&calls(&balance, 10).await), 0);
    }
}
