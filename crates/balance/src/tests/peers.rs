//! What servers, networks and users do to connections.

use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A call that its attempt timeout ends.
async fn attempt(balance: &Balance) -> Option<Code> {
    timeout(2 * SECOND, call(balance)).await.ok()
}

/// How long it takes from now until calls are answered.
async fn until_answered(balance: &Balance) -> Duration {
    let began = Instant::now();
    while attempt(balance).await != Some(Code::Ok) {
        sleep(MS).await;
    }
    Instant::now() - began
}

// catalogue: S-B5
#[tokio::test(start_paused = true)]
async fn a_frozen_connection_is_abandoned_with_the_call_that_detects_it() {
    for picker in [Picker::RoundRobin, Picker::PickFirst] {
        let world = World::of(1);
        let balance = world.balance(by(picker));
        calls(&balance, 10).await;
        sleep(10 * SECOND).await;
        world.networks[0].freeze();
        assert_eq!(attempt(&balance).await, None);
        assert_eq!(timeout(MS, call(&balance)).await, Ok(Code::Ok), "at once: {picker:?}");
    }
}

// catalogue: S-B5
#[tokio::test(start_paused = true)]
async fn a_frozen_connection_is_abandoned_if_another_can_be_made() {
    // Its connections are frozen, and new ones are served.
    for count in [1, 3] {
        let world = World::of(count);
        let balance = world.balance(by(Picker::RoundRobin));
        sleep(SECOND).await;
        calls(&balance, 10).await;
        sleep(60 * SECOND).await;
        for round in 0..5 {
            world.networks[0].freeze();
            let began = Instant::now();
            let mut lost = 0;
            while Instant::now() < began + 10 * SECOND {
                lost += usize::from(attempt(&balance).await != Some(Code::Ok));
                sleep(100 * MS).await;
            }
            assert_eq!(lost, 1, "{count} {round}: the one that found out");
        }
    }
}

// catalogue: S-B4, S-B5
#[tokio::test(start_paused = true)]
async fn a_vanished_peer_is_abandoned_within_the_attempt_and_a_second() {
    let world = World::of(3);
    let balance = world.balance(by(Picker::RoundRobin));
    sleep(SECOND).await;
    calls(&balance, 10).await;
    world.networks[0].freeze();
    world.networks[0].blackhole(true);
    let began = Instant::now();
    let mut losses = Vec::new();
    while Instant::now() < began + 60 * SECOND {
        let now = Instant::now();
        if attempt(&balance).await.is_none() {
            losses.push(now - began);
        }
        sleep(10 * MS).await;
    }
    let last = losses.iter().max().unwrap();
    assert!(*last <= 3 * SECOND, "{losses:?}");
    assert_eq!(balance.states()[0].state, State::TransientFailure);
    world.networks[0].blackhole(false);
    sleep(120 * SECOND).await;
    assert_eq!(balance.states()[0].state, State::Ready, "it is back");

    let world = World::of(1);
    let balance = world.balance(Options::default());
    calls(&balance, 10).await;
    world.networks[0].freeze();
    world.networks[0].blackhole(true);
    assert_eq!(attempt(&balance).await, None);
    let next = Instant::now();
    assert_eq!(call(&balance).await, Code::Unavailable, "it is not sent there");
    assert_eq!(Instant::now() - next, SECOND * 3 / 2, "by its patience");

    let error = balance.clone().oneshot(request()).await.map(|_| ()).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("e0: the server answers nothing"), "{message}");
}

// catalogue: S-B5
#[tokio::test(start_paused = true)]
async fn a_slow_server_is_not_abandoned() {
    let world = World::new([Answer::After(3 * SECOND, Box::new(ok()))]);
    let balance = world.balance(Options::default());
    sleep(SECOND).await;
    let patient = tokio::spawn({
        let balance = balance.clone();
        async move { call(&balance).await }
    });
    for _ in 0..20 {
        assert_eq!(attempt(&balance).await, None, "it takes three seconds");
        assert_eq!(balance.states()[0].state, State::Ready);
    }
    assert_eq!(patient.await.unwrap(), Code::Ok, "what it had begun goes on");
    let connects = world.networks[0].connects();
    assert!(connects <= 22, "at most one more for each call: {connects}");
    assert!(world.networks[0].live() <= 3, "{}", world.networks[0].live());
}

// catalogue: S-B5
#[tokio::test(start_paused = true)]
async fn callers_that_wait_less_than_half_a_second_detect_it_together() {
    let world = World::of(1);
    let balance = world.balance(Options::default());
    calls(&balance, 10).await;
    sleep(10 * SECOND).await;
    world.networks[0].freeze();
    let mut lost = 0;
    while timeout(SECOND / 10, call(&balance)).await != Ok(Code::Ok) {
        lost += 1;
    }
    assert!((1..=6).contains(&lost), "{lost}");
}

// catalogue: S-B4
#[tokio::test(start_paused = true)]
async fn a_server_that_answers_nothing_is_not_connected_to_each_second() {
    let world = World::new([Answer::Hang]);
    let balance = world.balance(Options::default());
    for _ in 0..300 {
        _ = attempt(&balance).await;
    }
    let connects = world.networks[0].connects();
    assert!(connects <= 16, "{connects} in ten minutes");
}

// catalogue: S-E19
#[tokio::test(start_paused = true)]
async fn a_server_that_ends_connections_after_a_few_calls_each_costs_no_call() {
    for most in [1, 5, 30] {
        let network = Network::new();
        let mut incoming = network.incoming();
        tokio::spawn(async move {
            use tokio_stream::StreamExt as _;
            while let Some(connection) = incoming.next().await {
                tokio::spawn(serve_some(connection.unwrap(), most));
            }
        });
        let balance =
            Balance::with_connector(vec![target(0)], network.connector(), Options::default());
        let balance = balance.unwrap();
        let mut lost = 0;
        for _ in 0..100 {
            lost += usize::from(call(&balance).await != Code::Ok);
        }
        assert_eq!(lost, 0, "{most}");
        assert!(network.connects() >= 100 / most as u64);
    }
}

/// So many calls, and then a graceful GOAWAY.
async fn serve_some(connection: cinchona_testkit::Connection, most: usize) {
    let mut h2 = h2::server::handshake(connection).await.unwrap();
    let mut served = 0;
    while let Some(Ok((_, mut respond))) = h2.accept().await {
        let head = Response::builder().header("content-type", "application/grpc").body(());
        let mut send = respond.send_response(head.unwrap(), false).unwrap();
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
        send.send_trailers(trailers).unwrap();
        served += 1;
        if served == most {
            h2.graceful_shutdown();
        }
    }
}

// catalogue: S-B8
#[tokio::test(start_paused = true)]
async fn configure_is_called_for_each_connection() {
    let world = World::of(1);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let configure = move |endpoint: tonic::transport::Endpoint| {
        let n = count.fetch_add(1, Ordering::Relaxed);
        if n == 2 {
            return Err("the certificate is being replaced".into());
        }
        Ok(Some(endpoint.user_agent(format!("orders/{n}"))?))
    };
    let configure = Some(Arc::new(configure) as _);
    let balance = world.balance(Options { configure, ..Options::default() });
    for n in 0..2 {
        sleep(2 * SECOND).await;
        assert_eq!(call(&balance).await, Code::Ok);
        let received = world.servers[0].received();
        let agent = received.last().unwrap().headers["user-agent"].to_str().unwrap().to_owned();
        assert!(agent.starts_with(&format!("orders/{n} ")), "{agent}");
        world.networks[0].reset();
    }
    sleep(100 * MS).await;
    let error = balance.clone().oneshot(request()).await;
    assert!(error.is_ok(), "it waits, and the next attempt succeeds");
    assert_eq!(asked.load(Ordering::Relaxed), 4);
}

// catalogue: S-B7
#[tokio::test(start_paused = true)]
async fn the_name_of_a_target_is_its_authority_wherever_it_is() {
    let network = Network::new();
    let server = ScriptedServer::new([ok()]);
    let _serving = network.serve_service(server.clone());
    let (seen, connector) = (Arc::new(std::sync::Mutex::default()), network.connector());
    let uris = Arc::clone(&seen);
    let connector = service_fn(move |uri: Uri| {
        *uris.lock().unwrap() = uri.to_string();
        connector.clone().oneshot(uri)
    });
    let address = cinchona_core::Address::Ip("10.0.0.1:50051".parse().unwrap());
    let target = Target::from(Uri::from_static("http://orders.internal:50051")).at([address]);
    let balance = Balance::with_connector(vec![target], connector, Options::default()).unwrap();
    assert_eq!(call(&balance).await, Code::Ok);
    assert_eq!(*seen.lock().unwrap(), "http://10.0.0.1:50051/");
    assert_eq!(server.received()[0].authority.as_deref(), Some("orders.internal:50051"));
}

// catalogue: S-B9
#[tokio::test(start_paused = true)]
async fn another_weight_is_the_same_endpoint() {
    let world = World::of(2);
    let (targets, found) = watch::channel(world.targets());
    let balance = world.balance_over(found, by(Picker::WeightedRoundRobin));
    sleep(SECOND).await;
    calls(&balance, 100).await;
    for weight in 2..22 {
        let weights = [1, weight].into_iter().zip(world.targets());
        targets.send_replace(weights.map(|(weight, t)| t.with_weight(weight)).collect());
        sleep(MS).await;
    }
    let before = world.attempts();
    calls(&balance, 2200).await;
    let after: Vec<usize> = world.attempts().iter().zip(before).map(|(a, b)| a - b).collect();
    assert!((95..=105).contains(&after[0]), "{after:?}");
    assert_eq!(world.networks[1].connects(), 1);
    let states = balance.states();
    assert_eq!(states[1].target.weight, 21);
    assert_eq!(states.iter().map(|seen| seen.calls).sum::<u64>(), 2300);
}

// catalogue: S-B11
#[tokio::test(start_paused = true)]
async fn a_watch_of_health_delays_no_shutdown() {
    use tonic_health::ServingStatus::NotServing;
    for says_not_serving in [false, true] {
        let (reporter, service) = tonic_health::server::health_reporter();
        reporter.set_service_status("", tonic_health::ServingStatus::Serving).await;
        let network = Network::new();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let server = tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming_shutdown(network.incoming(), async { drop(stopped.await) });
        let server = tokio::spawn(server);
        let balance = over_health(&network, Picker::RoundRobin);
        sleep(5 * SECOND).await;
        assert_eq!(balance.states()[0].state, State::Ready);
        if says_not_serving {
            reporter.set_service_status("", NotServing).await;
            sleep(MS).await;
            assert_eq!(balance.states()[0].state, State::TransientFailure);
        }
        stop.send(()).unwrap();
        timeout(SECOND, server).await.expect("it is held up").unwrap().unwrap();
    }
}

fn over_health(network: &Network, picker: Picker) -> Balance {
    let options = Options { health: Some(String::new()), rng: Rng::seeded(1), ..by(picker) };
    Balance::with_connector(vec![target(0)], network.connector(), options).unwrap()
}

// catalogue: S-B12
#[tokio::test(start_paused = true)]
async fn pick_first_has_one_connection_and_keeps_it() {
    let mut world = World::of(3);
    let (targets, found) = watch::channel(world.targets());
    let balance = world.balance_over(found, by(Picker::PickFirst));
    sleep(SECOND).await;
    calls(&balance, 10).await;
    let connects =
        |world: &World| -> Vec<u64> { world.networks.iter().map(Network::connects).collect() };
    assert_eq!(connects(&world), [1, 0, 0]);
    world.kill(0);
    sleep(MS).await;
    calls(&balance, 10).await;
    world.revive(0);
    sleep(300 * SECOND).await;
    calls(&balance, 10).await;
    assert_eq!(world.attempts(), [10, 20, 0], "it stays with what it has");
    assert_eq!(world.networks[0].live(), 0);
    let mut reversed = world.targets();
    reversed.reverse();
    targets.send_replace(reversed);
    sleep(SECOND).await;
    calls(&balance, 10).await;
    assert_eq!(world.attempts(), [10, 30, 0], "also in another list that has it");
    targets.send_replace(vec![target(2)]);
    sleep(SECOND).await;
    calls(&balance, 10).await;
    assert_eq!(world.attempts(), [10, 30, 10]);
    let states: Vec<State> = balance.states().iter().map(|seen| seen.state).collect();
    assert_eq!(states, [State::Ready]);
}

// catalogue: S-B12
#[tokio::test(start_paused = true)]
async fn clients_that_shuffle_do_not_all_use_the_same_endpoint() {
    let mut used = [0; 3];
    for seed in 0..30 {
        let world = World::of(3);
        let options = Options { shuffle_address_list: true, ..by(Picker::PickFirst) };
        let networks = world.networks.clone();
        let connector = service_fn(move |uri: Uri| {
            let n: usize = uri.host().unwrap()[1..].parse().unwrap();
            networks[n].connector().oneshot(uri)
        });
        let options = Options { rng: Rng::seeded(seed), ..options };
        let balance = Balance::with_connector(world.targets(), connector, options).unwrap();
        calls(&balance, 1).await;
        used[world.attempts().iter().position(|n| *n == 1).unwrap()] += 1;
    }
    assert!(used.iter().all(|n| *n >= 3), "{used:?}");
}

// catalogue: S-B13
#[tokio::test(start_paused = true)]
async fn an_outage_ends_for_all_when_it_ends_for_one() {
    let mut world = World::of(3);
    let balance = world.balance(by(Picker::RoundRobin));
    sleep(SECOND).await;
    (0..3).for_each(|n| world.kill(n));
    sleep(600 * SECOND).await;
    (0..3).for_each(|n| world.revive(n));
    while balance.states().iter().all(|seen| seen.state != State::Ready) {
        sleep(10 * MS).await;
    }
    sleep(20 * MS).await;
    assert!(balance.states().iter().all(|seen| seen.state == State::Ready));
}

// catalogue: S-B13
#[tokio::test(start_paused = true)]
async fn the_backoff_is_a_setting() {
    let mut world = World::of(1);
    world.kill(0);
    let backoff = cinchona_plumbing::Backoff::new(SECOND / 10, 1.0, SECOND / 10).unwrap();
    let backoff = backoff.with_jitter(cinchona_plumbing::Jitter::None);
    let balance = world.balance(Options { backoff, ..Options::default() });
    sleep(600 * SECOND).await;
    assert!((5990..=6001).contains(&world.networks[0].connects()));
    world.revive(0);
    let took = until_answered(&balance).await;
    assert!(took <= SECOND / 5, "{took:?}");
}

// catalogue: S-D13
#[tokio::test(start_paused = true)]
async fn an_error_in_transit_names_method_endpoint_and_cause() {
    let world = World::new([Answer::Hang]);
    let balance = world.balance(Options::default());
    sleep(SECOND).await;
    let calling = tokio::spawn(balance.clone().oneshot(request()));
    sleep(SECOND).await;
    world.networks[0].reset();
    let error = calling.await.unwrap().map(|_| ()).unwrap_err();
    let verdict = cinchona_core::Verdict::of_error(&*error);
    assert_eq!(verdict, cinchona_core::Verdict::MaybeProcessed(Code::Unavailable));
    let status = Status::from_error(error);
    assert_eq!(status.code(), Code::Unavailable);
    let expected = "/calculator.Calculator/Add at e0: ";
    assert!(status.message().starts_with(expected), "{}", status.message());
    assert!(status.message().contains("reset"), "{}", status.message());
}

#[tokio::test(start_paused = true)]
async fn a_connection_lost_during_an_answer_is_unavailable_under_any_layer() {
    let world = World::new([Answer::HeadersThenHang]);
    let balance = world.balance(Options::default());
    sleep(SECOND).await;
    let response = balance.oneshot(request()).await.unwrap();
    let reading = tokio::spawn(async move { response.into_body().collect().await });
    sleep(SECOND).await;
    world.networks[0].reset();
    let status = reading.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(status.message().starts_with("/calculator.Calculator/Add at e0: "), "{status}");
}
