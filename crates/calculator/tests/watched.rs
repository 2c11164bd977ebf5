//! What a client shows of itself.

use crate::{SECOND, ok, operation, retrying, scripted, seeded};
use calculator::{
    client::{Settings, stack},
    endpoints::Endpoints,
    pb::calculator_client::CalculatorClient,
    server::{self, dedup, listen, serve},
    state::Memory,
    watch::{calls::Calls, client::Client as Shown},
};
use cinchona::{
    balance::Options,
    breaker::BreakerPolicy,
    core::{PerMethod, Target},
    dashboard::{Health, Tile},
    fault::{FaultLayer, Rules},
    retry::{Backoff, HedgePolicy, Policy, RetryPolicy},
};
use cinchona_testkit::Answer;
use std::{future::pending, net::SocketAddr, time::Duration};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status};

#[tokio::test(start_paused = true)]
async fn retries_come_in_turn_and_hedges_side_by_side() {
    let calls = Calls::new();
    let down = || Answer::Status(Status::unavailable("down"));
    let (_server, mut client, _serving) =
        scripted([down(), down(), ok(3.0)], &retrying([Code::Unavailable]));
    let began = Instant::now();
    calls.note(began, &client.add(operation(1.0, 2.0)).await);
    assert_eq!((calls.total(), calls.retries_and_hedges()), ((1, 0), (2, 0)));

    let layers = Settings { rng: cinchona::core::Rng::seeded(1), ..seeded() }.layers().unwrap();
    let hedge = HedgePolicy::default().with_delay(SECOND / 10);
    let mut policies = PerMethod::from(Policy::from(RetryPolicy::default()));
    policies.insert("calculator.Calculator", "Add", hedge.into()).unwrap();
    layers.retry.set_policies(policies).unwrap();
    let script = [Answer::After(SECOND, Box::new(ok(3.0))), ok(3.0)];
    let server = cinchona_testkit::ScriptedServer::new(script);
    let network = cinchona_testkit::Network::new();
    let _serving = network.serve_service(server);
    let mut client = CalculatorClient::new(stack(network.channel(), &layers));
    let began = Instant::now();
    calls.note(began, &client.add(operation(1.0, 2.0)).await);
    assert_eq!((calls.total(), calls.retries_and_hedges()), ((2, 0), (2, 1)));
    let [_, attempts, failed] = calls.tiles();
    let counts: Vec<_> = attempts.strip.iter().map(|(_, count)| *count).collect();
    assert_eq!(counts, [0.0, 1.0, 1.0, 0.0]);
    let counts: Vec<_> = failed.numbers.iter().map(|(_, count, _)| *count).collect();
    assert_eq!(
        (&*failed.state, counts),
        ("3 of 3 kept from callers", vec![2.0, 0.0, 1.0, 0.0, 0.0])
    );
}

/// A server on a loopback socket, and what makes it fail.
fn faulty() -> (SocketAddr, Rules) {
    let (rules, state) = (Rules::new(1), Memory::new());
    let faults = FaultLayer::from(rules.clone());
    let mut layers = server::Layers::new(faults, dedup(state.clone()));
    layers.rules = Some((rules.clone(), None));
    let incoming = listen(([127, 0, 0, 1], 0).into()).unwrap();
    let addr = incoming.local_addr().unwrap();
    tokio::spawn(serve(incoming, state, layers, pending()));
    (addr, rules)
}

fn tile(shown: &Shown, kind: &str, name: &str) -> Option<Tile> {
    shown.tiles().into_iter().find(|tile| tile.kind == kind && tile.name == name)
}

// real clock: sockets have no other.
#[tokio::test]
async fn a_client_shows_its_endpoints_its_breakers_and_its_budget() {
    let servers = [faulty(), faulty()];
    let backoff = Backoff::new(SECOND / 1000, 1.0, SECOND).unwrap();
    let retry = RetryPolicy::default().with_backoff(backoff);
    let retry = retry.with_codes([Code::Unavailable]).unwrap();
    let open = BreakerPolicy::default().with_open_for(60 * SECOND, 60 * SECOND).unwrap();
    let open = open.with_consecutive_failures(Some(3)).unwrap();
    let layers = Settings { breaker: Some(open), retry, ..Settings::default() }.layers().unwrap();
    let watched = Endpoints::default();
    let layers = watched.watching(layers);
    let uri = |addr: &SocketAddr| format!("http://{addr}").parse::<http::Uri>().unwrap();
    let targets = servers.iter().map(|(addr, _)| Target::from(uri(addr))).collect::<Vec<_>>();
    let balance = layers.balance(targets, Options::default()).unwrap();
    let calls = Calls::new();
    let names = [("one", servers[0].0), ("two", servers[1].0)];
    let names = names.map(|(name, addr)| (addr.to_string(), name.to_owned())).into();
    let shown = Shown::new(&layers, balance.clone(), calls.clone(), watched).with_names(names);
    let mut client = CalculatorClient::new(stack(balance, &layers));
    servers[1].1.set("down", "status=UNAVAILABLE ttl=none".parse().unwrap()).unwrap();

    let is_open = async {
        while tile(&shown, "breaker", "two").is_none_or(|tile| tile.health != Health::Bad) {
            let began = Instant::now();
            calls.note(began, &client.add(operation(1.0, 2.0)).await);
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(60 * SECOND, is_open).await.unwrap();
    let breaker = tile(&shown, "breaker", "two").unwrap();
    assert!(breaker.state.starts_with("open, probe in "), "{}", breaker.state);
    let [one, two] = ["one", "two"].map(|name| tile(&shown, "endpoint", name).unwrap());
    assert_eq!((&*one.state, one.health), ("connected", Health::Good));
    assert_eq!((&*two.state, two.health), ("connected, breaker open", Health::Bad));
    assert_eq!(two.numbers[0], ("failed".into(), 100.0, "%"));
    let budget = tile(&shown, "client", "retry budget").unwrap().gauge.unwrap();
    // It has refilled in the meantime, perhaps.
    assert!((0.0..=1.0).contains(&budget), "{budget}");
    assert!(calls.retries_and_hedges().0 >= 3 && calls.total().1 == 0);

    let conditions = shown.conditions();
    let how = |what: &str| conditions.iter().find(|seen| seen.what == what).map(|seen| &*seen.how);
    assert_eq!((how("breaker two"), how("endpoint one")), (Some("open"), Some("connected")));
    let text = layers.metrics.render();
    let enforced = "grpc_lb_outlier_detection_ejections_enforced_total{grpc_target=\"calculator\",\
        grpc_lb_outlier_detection_detection_method=\"success_rate\"} 0\n";
    assert!(text.contains(enforced), "{text}");
    assert!(
        text.contains("cinchona_breaker_state{grpc_target=\"calculator\",circuit=\"http://"),
        "{text}"
    );
}
