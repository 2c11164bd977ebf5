//! The state of an endpoint, by what its server does on the wire.

use super::*;
use std::future::pending;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_stream::StreamExt;

const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

/// Serves each connection by writing this after so long, and then does that.
#[derive(Clone, Copy, Debug)]
struct Script {
    after: Duration,
    says: &'static [u8],
    then: Then,
}

#[derive(Clone, Copy, Debug)]
enum Then {
    Waits,
    Closes,
}

impl Script {
    const SILENT: Self = Self { after: Duration::ZERO, says: b"", then: Then::Waits };

    fn serve(self) -> Network {
        let network = Network::new();
        let mut incoming = network.incoming();
        tokio::spawn(async move {
            while let Some(connection) = incoming.next().await {
                let mut connection = connection.unwrap();
                tokio::spawn(async move {
                    sleep(self.after).await;
                    _ = connection.write_all(self.says).await;
                    match self.then {
                        Then::Closes => {}
                        Then::Waits => {
                            // It reads on, as a server does.
                            let mut bytes = [0; 1024];
                            while connection.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
                            pending::<()>().await;
                        }
                    }
                });
            }
        });
        network
    }
}

fn goaway(code: u8, debug: &str) -> Vec<u8> {
    let length = 8 + debug.len() as u8;
    let head = [0, 0, length, 7, 0, 0, 0, 0, 0];
    [&SETTINGS[..], &head, &[0x7f, 255, 255, 255, 0, 0, 0, code], debug.as_bytes()].concat()
}

fn over(network: &Network, options: Options) -> Balance {
    let options = Options { rng: Rng::seeded(1), ..options };
    Balance::with_connector(vec![target(0)], network.connector(), options).unwrap()
}

fn state(balance: &Balance) -> State {
    balance.states()[0].state
}

/// How long a call took, and what it failed with.
async fn failure(balance: &Balance) -> (Duration, String) {
    let began = Instant::now();
    let error = balance.clone().oneshot(request()).await.map(|_| ()).unwrap_err();
    let status = Status::from_error(error);
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    (Instant::now() - began, status.message().to_owned())
}

fn fail_fast() -> Options {
    Options { patience: Duration::ZERO, ..Options::default() }
}

// catalogue: S-B3
#[tokio::test(start_paused = true)]
async fn a_silent_port_is_connecting_and_then_has_failed() {
    let network = Script::SILENT.serve();
    let balance = over(&network, Options::default());
    let (took, message) = failure(&balance).await;
    assert_eq!(took, SECOND * 3 / 2);
    let expected =
        "/calculator.Calculator/Add: the endpoint is not connected: e0: is being connected";
    assert_eq!(message, expected);
    assert_eq!(state(&balance), State::Connecting);
    sleep(4 * SECOND).await;
    assert_eq!(state(&balance), State::TransientFailure);
    let (took, message) = failure(&balance).await;
    assert_eq!(took, Duration::ZERO);
    assert!(message.contains("e0: no HTTP/2 SETTINGS within 5s"), "{message}");

    let balance = over(&network, fail_fast());
    let (took, _) = failure(&balance).await;
    assert_eq!(took, 5 * SECOND, "as gRPC, which waits for what is connecting");
}

// catalogue: S-B3, S-E16
#[tokio::test(start_paused = true)]
async fn a_port_that_hangs_up_has_failed_like_one_that_refuses_with_its_reason() {
    for (says, expected) in [
        (&b""[..], "the server closed the connection before its HTTP/2 SETTINGS"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "the server speaks HTTP/1, not HTTP/2"),
        (&[21, 3, 1, 0, 2, 2, 70], "the server speaks TLS: its address is https://..."),
        (b"SSH-2.0-OpenSSH_9.7\r\n", "the server speaks something else, not HTTP/2"),
        (&[0, 0, 4, 8, 0, 0, 0, 0, 0], "the server speaks something else, not HTTP/2"),
    ] {
        for then in [Then::Closes, Then::Waits] {
            if says.is_empty() && matches!(then, Then::Waits) {
                continue;
            }
            let network = Script { says, then, ..Script::SILENT }.serve();
            let balance = over(&network, fail_fast());
            let (took, message) = failure(&balance).await;
            assert_eq!(took, Duration::ZERO, "{expected}");
            assert!(message.contains(expected), "{message}");
            assert_eq!(state(&balance), State::TransientFailure);
            sleep(540 * SECOND).await;
            assert!((12..=16).contains(&network.connects()), "{}", network.connects());
        }
    }
}

// catalogue: S-B3
#[tokio::test(start_paused = true)]
async fn an_endpoint_is_ready_when_its_settings_have_arrived() {
    let network = Script { after: 3 * SECOND, says: &SETTINGS, ..Script::SILENT }.serve();
    let balance = over(&network, Options::default());
    sleep(3 * SECOND - MS).await;
    assert_eq!(state(&balance), State::Connecting);
    sleep(2 * MS).await;
    assert_eq!(state(&balance), State::Ready);
}

// catalogue: S-B3
#[tokio::test(start_paused = true)]
async fn one_silent_port_of_three_costs_no_call() {
    for picker in [Picker::RoundRobin, Picker::PeakEwma, Picker::LeastRequest, Picker::Random] {
        let mut world = World::of(3);
        world.networks[1] = Script::SILENT.serve();
        let balance = world.balance(by(picker));
        assert_eq!(failures(&calls(&balance, 300).await), 0, "{picker:?}");
    }
}

// catalogue: S-B3
#[tokio::test(start_paused = true)]
async fn a_failed_endpoint_stays_so_while_it_is_tried_again() {
    let mut world = World::of(1);
    world.kill(0);
    let balance = world.balance(fail_fast());
    failure(&balance).await;
    world.networks[0].refuse(false);
    world.networks[0].blackhole(true);
    for _ in 0..60 {
        sleep(SECOND / 10).await;
        assert_eq!(state(&balance), State::TransientFailure);
        assert_eq!(failure(&balance).await.0, Duration::ZERO);
    }
    assert_eq!(world.networks[0].connects(), 2, "it is being tried");
    world.networks[0].blackhole(false);
    world.revive(0);
    sleep(5 * SECOND).await;
    assert_eq!(state(&balance), State::Ready);
}

// catalogue: S-B3
#[tokio::test(start_paused = true)]
async fn a_connection_that_is_lost_early_is_replaced_immediately() {
    let world = World::of(1);
    let balance = world.balance(Options::default());
    sleep(MS).await;
    assert_eq!(call(&balance).await, Code::Ok);
    let began = Instant::now();
    world.networks[0].reset();
    sleep(MS).await;
    assert_eq!(call(&balance).await, Code::Ok);
    assert!(Instant::now() - began <= 2 * MS);
}

// catalogue: S-E19
#[tokio::test(start_paused = true)]
async fn a_server_that_sends_goaway_on_each_connection_is_not_flooded() {
    for code in [0, 2, 11] {
        let says: &'static [u8] = goaway(code, "").leak();
        for then in [Then::Closes, Then::Waits] {
            let network = Script { says, then, ..Script::SILENT }.serve();
            let balance = over(&network, Options::default());
            sleep(10 * SECOND).await;
            let connects = network.connects();
            assert!((4..=8).contains(&connects), "{code} {then:?}: {connects}");
            assert_eq!(state(&balance), State::TransientFailure);
            let (took, message) = failure(&balance).await;
            assert_eq!(took, Duration::ZERO);
            assert!(message.contains("the server said GOAWAY ("), "{message}");
        }
    }
}

// catalogue: S-B4
#[tokio::test(start_paused = true)]
async fn nothing_is_pinged_by_default() {
    let world = World::new([Answer::After(3600 * SECOND, Box::new(ok()))]);
    let balance = world.balance(Options::default());
    sleep(MS).await;
    assert_eq!(call(&balance).await, Code::Ok, "after an hour of silence");
}

// catalogue: S-B4
#[tokio::test(start_paused = true)]
async fn a_server_that_forbids_pings_gets_half_as_many() {
    let says: &'static [u8] = goaway(11, "too_many_pings").leak();
    let network = Script { says, ..Script::SILENT }.serve();
    let keep_alive = Some((10 * SECOND, SECOND));
    let balance = over(&network, Options { keep_alive, ..Options::default() });
    sleep(10 * MS).await;
    let factor = || balance.0.set.known(|known| known.nodes[0].ping_factor());
    assert_eq!(factor(), 4, "twice in two connections");
    sleep(2 * SECOND).await;
    assert_eq!(factor(), 8);
}

// catalogue: S-B4
#[tokio::test(start_paused = true)]
async fn pings_detect_a_vanished_peer_while_calls_wait_and_only_then() {
    let world = World::new([Answer::Hang]);
    let options = Options { keep_alive: Some((SECOND, SECOND)), ..Options::default() };
    let balance = world.balance(options);
    sleep(SECOND).await;
    world.networks[0].freeze();
    world.networks[0].blackhole(true);
    sleep(3600 * SECOND).await;
    assert_eq!(world.networks[0].connects(), 1, "nothing is pinged without calls");
    let began = Instant::now();
    assert_eq!(call(&balance).await, Code::Unavailable);
    assert!(Instant::now() - began <= 3 * SECOND, "{:?}", Instant::now() - began);
}
