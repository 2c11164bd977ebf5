//! Gauges are correct: when no call is in flight, every gauge is at 0, and nothing is held.

use crate::{
    bare::{Bare, Plan},
    layers::{self, Boxed, Case},
    virtually,
};
use cinchona::{
    balance::{Balance, Options},
    breaker::{BreakerPolicy, BreakerSettings},
    core::{Mode, Rng, Switch, Target},
    fault::{FaultLayer, Rules},
    observe::{AttemptLayer, CallLayer, Metrics, ServerLayer, Value},
};
use cinchona_testkit::{Answer, Network, ScriptedServer, encode};
use http::{Request, Uri};
use http_body_util::BodyExt;
use rand::RngExt;
use std::time::Duration;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tonic::{Status, body::Body};
use tower::{Layer, Service, ServiceExt, service_fn};

const MS: Duration = Duration::from_millis(1);
const TRIALS: u64 = 12;
const CALLS: u64 = 40;

/// Makes a call, unless its caller gives up before.
async fn made(mut service: Boxed, plan: Plan, after: Duration, patience: Duration) {
    sleep(after).await;
    let called = async {
        let Ok(ready) = service.ready().await else { return };
        let Ok(response) = ready.call(plan.request(true)).await else { return };
        _ = response.into_body().collect().await;
    };
    _ = timeout(patience, called).await;
}

/// Makes concurrent calls of every kind, of which many are dropped, and some panic, while `turn` is
/// called now and then.
pub(crate) async fn at_random(rng: &Rng, layer: impl Fn(Bare) -> Boxed, mut turn: impl FnMut(u32)) {
    let mut calls = JoinSet::new();
    for _ in 0..CALLS {
        let plan = Plan::drawn(rng);
        let (after, patience) = (rng.draw().random_range(0..50), rng.draw().random_range(0..80));
        let service = layer(Bare::new(&plan, true).0);
        calls.spawn(made(service, plan, MS * after, MS * patience));
    }
    for _ in 0..10 {
        sleep(7 * MS).await;
        turn(rng.draw().random_range(0..3));
    }
    while let Some(ended) = calls.join_next().await {
        // Those of the user's code that panic are the tasks' own.
        assert!(ended.is_ok() || ended.unwrap_err().is_panic());
    }
}

fn turn(switch: &Switch, to: u32) {
    switch.set([Mode::Enforce, Mode::Shadow, Mode::Off][to as usize]);
}

// catalogue: S-E15
#[test]
fn every_gauge_returns_to_0_however_calls_end_and_switches_are_turned() {
    crate::off::quiet();
    for seed in 0..TRIALS {
        virtually(async {
            let rng = Rng::seeded(seed);
            for Case { file, switch, layer, gauges, .. } in layers::all(Switch::default) {
                at_random(&rng, layer, |to| {
                    if seed % 2 == 1 {
                        turn(&switch, to);
                    }
                })
                .await;
                // An execution without its caller has a lease of 1 s.
                sleep(2000 * MS).await;
                assert!(gauges().iter().all(|gauge| *gauge == 0), "{file}: {:?}", gauges());
            }
        });
    }
}

// catalogue: S-E15
#[test]
fn a_breaker_lets_probes_through_however_those_before_have_ended() {
    crate::off::quiet();
    for seed in 0..TRIALS {
        virtually(async {
            let (rng, switch) = (Rng::seeded(seed), Switch::default());
            let policy = BreakerPolicy::default().with_consecutive_failures(Some(1)).unwrap();
            let policy = policy.with_open_for(2 * MS, 4 * MS).unwrap();
            let layer = BreakerSettings::new(policy).with_switch(switch.clone()).layer();
            at_random(
                &rng,
                |bare| layers::boxed(layer.layer(bare)),
                |to| {
                    if seed % 2 == 1 {
                        turn(&switch, to);
                    }
                },
            )
            .await;
            switch.set(Mode::Enforce);
            for _ in 0..3 {
                sleep(3_600_000 * MS).await;
                let service = layer.layer(Bare::new(&Plan::plain(), true).0);
                let answered = service.oneshot(Plan::plain().request(true)).await;
                _ = answered.unwrap().into_body().collect().await;
            }
        });
    }
}

// catalogue: S-E15
#[test]
fn a_fault_is_active_for_no_longer_than_its_call() {
    crate::off::quiet();
    for seed in 0..TRIALS {
        virtually(async {
            let rng = Rng::seeded(seed);
            let slow = "rate=0.5 drip=1/3ms".parse().unwrap();
            let rules = Rules::new(seed)
                .with("slow", slow)
                .with("late", "rate=0.5 delay=5ms".parse().unwrap())
                .with("hung", "rate=0.2 hang".parse().unwrap())
                .with_most_active(100);
            let layer = FaultLayer::from(rules.clone());
            at_random(&rng, |bare| layers::boxed(layer.layer(bare)), |_| {}).await;
            rules.clear();
            let rules = rules.with("all", "delay=1ms".parse().unwrap()).with_most_active(1);
            let before = layer.counters();
            let service = layer.layer(Bare::new(&Plan::plain(), true).0);
            _ = service.oneshot(Plan::plain().request(true)).await.unwrap();
            let after = layer.counters();
            assert_eq!((after.delayed, after.spared), (before.delayed + 1, before.spared));
            drop(rules);
        });
    }
}

/// How many calls began, and how many ended, by the metrics of that name.
fn counted(metrics: &Metrics, started: &str, ended: &str) -> (f64, f64) {
    let of = |name: &str| {
        let found = metrics.collect().into_iter().filter(|metric| metric.name == name);
        let values = found.flat_map(|metric| metric.series).map(|(_, value)| match value {
            Value::Histogram { counts, .. } => counts.iter().sum::<u64>() as f64,
            Value::Counter(count) | Value::Gauge(count) => count,
            other => panic!("{other:?}"),
        });
        values.sum()
    };
    (of(started), of(ended))
}

// catalogue: S-E15
#[test]
fn every_call_that_was_counted_as_begun_is_counted_as_ended() {
    crate::off::quiet();
    for seed in 0..TRIALS {
        virtually(async {
            let (rng, metrics) = (Rng::seeded(seed), Metrics::new(layers::methods()));
            let call = CallLayer::new(&metrics, "any");
            let (attempt, server) =
                (AttemptLayer::new(&metrics, "any"), ServerLayer::new(&metrics));
            let client = |bare| layers::boxed(call.layer(attempt.layer(bare)));
            at_random(&rng, client, |_| {}).await;
            at_random(&rng, |bare| layers::boxed(server.layer(bare)), |_| {}).await;
            for of in ["client.attempt", "server.call"] {
                let name = |what: &str| format!("grpc.{of}.{what}");
                let (started, ended) = counted(&metrics, &name("started"), &name("duration"));
                assert!(started > 0.0 && started == ended, "{of}: {started}, {ended}");
            }
        });
    }
}

fn answers(rng: &Rng) -> Vec<Answer> {
    let answer = || {
        let one = encode(&1_u32);
        let answer = match rng.draw().random_range(0..7) {
            0 => Answer::Status(Status::unavailable("scripted")),
            1 => Answer::HeadersThenHang,
            2 => Answer::MessageThenHang(one),
            3 => Answer::MessageThenReset(one, h2::Reason::CANCEL),
            4 => Answer::Reset(h2::Reason::REFUSED_STREAM),
            5 => Answer::Hang,
            _ => Answer::Ok(one),
        };
        Answer::After(MS * rng.draw().random_range(0..20), Box::new(answer))
    };
    (0..200).map(|_| answer()).collect()
}

async fn sent(balance: Balance, after: Duration, patience: Duration) {
    sleep(after).await;
    let called = async {
        let request = Request::post("http://any/a.B/Read").body(Body::empty()).unwrap();
        let Ok(response) = balance.oneshot(request).await else { return };
        _ = response.into_body().collect().await;
    };
    _ = timeout(patience, called).await;
}

// catalogue: S-E15
#[test]
fn a_balancer_has_nothing_in_flight_after_the_last_call_however_it_ended() {
    for seed in 0..TRIALS / 4 {
        virtually(async {
            let (rng, network) = (Rng::seeded(seed), Network::new());
            let serving = network.serve_service(ScriptedServer::new(answers(&rng)));
            let target: Target = Uri::from_static("http://any").into();
            let connector = service_fn(move |uri: Uri| network.connector().oneshot(uri));
            let options = Options { rng: rng.clone(), ..Options::default() };
            let balance = Balance::with_connector(vec![target], connector, options).unwrap();
            let mut calls = JoinSet::new();
            for _ in 0..3 * CALLS {
                let times = [(); 2].map(|()| MS * rng.draw().random_range(0..100));
                calls.spawn(sent(balance.clone(), times[0], times[1]));
            }
            calls.join_all().await;
            sleep(MS).await;
            assert!(balance.states().iter().all(|seen| seen.in_flight == 0), "{seed}");
            drop(serving);
        });
    }
}
