//! The laws of a set of rules, in virtual time.

use super::*;
use crate::{FaultCounters, FaultLayer, FaultSettings, Faults, rule::Wait};
use std::{convert::Infallible, future::Future, net::SocketAddr, pin::Pin};
use tokio::time::{advance, sleep, timeout};
use tonic::{Code, body::Body, transport::server::TcpConnectInfo};
use tower::{Layer, ServiceExt, service_fn, util::BoxCloneSyncService};

const ADD: &str = "/calculator.Calculator/Add";
const SECOND: Duration = Duration::from_secs(1);

type Answers = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Infallible>;

fn rule(text: &str) -> Rule {
    text.parse().unwrap_or_else(|error: Malformed| panic!("{error}"))
}

fn served(layer: &FaultLayer) -> Answers {
    BoxCloneSyncService::new(
        layer.layer(service_fn(|_| async {
            Ok::<_, Infallible>(http::Response::new(Body::empty()))
        })),
    )
}

fn request(path: &str) -> http::Request<Body> {
    http::Request::builder().uri(path).body(Body::empty()).unwrap()
}

async fn answer(service: &Answers, request: http::Request<Body>) -> http::Response<Body> {
    service.clone().oneshot(request).await.unwrap()
}

async fn fails(service: &Answers, request: http::Request<Body>) -> bool {
    cinchona_plumbing::status::code(answer(service, request).await.headers()).is_some()
}

/// Whether each of so many calls fails.
async fn pattern(service: &Answers, calls: usize) -> String {
    let mut pattern = String::new();
    for _ in 0..calls {
        pattern.push(if fails(service, request(ADD)).await { 'x' } else { '.' });
    }
    pattern
}

fn site(text: &str) -> (Rules, FaultLayer, Answers) {
    let rules = Rules::new(7).with("case", rule(text));
    let layer = FaultLayer::from(rules.clone());
    let service = served(&layer);
    (rules, layer, service)
}

#[tokio::test(start_paused = true)]
async fn first_and_every_count_the_requests_that_match() {
    for (text, expected) in [
        ("status=ABORTED", "xxxxxx"),
        ("first=2 status=ABORTED", "xx...."),
        ("every=3 status=ABORTED", "..x..x"),
        ("every=2 first=2 status=ABORTED", ".x.x.."),
        ("rate=0 status=ABORTED", "......"),
    ] {
        let (rules, _, service) = site(text);
        assert!(!fails(&service, request("/grpc.health.v1.Health/Check")).await, "exempt");
        assert_eq!(pattern(&service, 6).await, expected, "{text}");
        let listed = &rules.list()[0];
        let hits = expected.matches('x').count() as u64;
        assert_eq!((listed.matched, listed.injected), (6, hits), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_window_opens_and_closes_and_a_ttl_ends_the_rule() {
    let (rules, _, service) = site("window=2s..4s status=ABORTED");
    rules.set("ttl", rule("ttl=7s window=6s.. status=ABORTED")).unwrap();
    let mut seen = String::new();
    for _ in 0..9 {
        seen.push_str(&pattern(&service, 1).await);
        advance(SECOND).await;
    }
    assert_eq!(seen, "..xx..x..");
    assert_eq!(rules.list().len(), 1, "the other is over");
}

#[tokio::test(start_paused = true)]
async fn a_rule_hits_the_requests_it_selects() {
    let with = |key: &'static str, value: &str| {
        let mut request = request(ADD);
        request.headers_mut().insert(key, value.parse().unwrap());
        request
    };
    let from = |peer: &str| {
        let mut request = request(ADD);
        let peer: SocketAddr = peer.parse().unwrap();
        let info = TcpConnectInfo { local_addr: None, remote_addr: Some(peer) };
        request.extensions_mut().insert(info);
        request
    };
    let tried = |previous: &str| with("grpc-previous-rpc-attempts", previous);
    for (text, hit, spared) in [
        ("method=/calculator.Calculator/Add", request(ADD), request("/calculator.Calculator/Ad")),
        ("method=/calculator.Calculator/*", request(ADD), request("/calculator.Calculator2/Add")),
        ("metadata.x-who=me", with("x-who", "me"), with("x-who", "men")),
        ("metadata.x-who=me*", with("x-who", "men"), with("x-who", "one")),
        ("metadata.x-who=*", with("x-who", ""), request(ADD)),
        ("caller=10.0.0.7", from("10.0.0.7:1"), from("10.0.0.8:1")),
        ("caller=10.0.0.7", from("[::ffff:10.0.0.7]:1"), request(ADD)),
        ("caller=10.0.0.7:2", from("10.0.0.7:2"), from("10.0.0.7:1")),
        ("attempt=1", request(ADD), tried("1")),
        ("attempt=2..3", tried("2"), tried("3")),
        ("attempt=2..", tried("9"), tried("x")),
        ("health", request("/grpc.health.v1.Health/Check"), request("/")),
        ("method=*", request(ADD), request("/grpc.health.v1.Health/Check")),
    ] {
        let (_, layer, service) = site(&format!("{text} status=ABORTED"));
        assert!(fails(&service, hit).await, "{text}");
        if text != "health" {
            assert!(!fails(&service, spared).await, "{text}");
        }
        assert_eq!(layer.counters().injected(), 1, "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_hits_the_same_requests_in_any_order_and_rules_draw_independently() {
    async fn hit(seed: u64, name: &str, order: impl Iterator<Item = u32>) -> Vec<u32> {
        let rules = Rules::new(seed).with(name, rule("rate=0.3 status=ABORTED"));
        let service = served(&rules.into());
        let mut hit = Vec::new();
        for id in order {
            let mut request = request(ADD);
            request.headers_mut().insert("x-request-id", id.into());
            if fails(&service, request).await {
                hit.push(id);
            }
        }
        hit.sort_unstable();
        hit
    }
    let forth = hit(7, "a", 0..1000).await;
    assert_eq!(forth, hit(7, "a", (0..1000).rev()).await);
    assert_ne!(forth, hit(8, "a", 0..1000).await);
    assert_ne!(forth, hit(7, "b", 0..1000).await);
    assert!((250..350).contains(&forth.len()), "{}", forth.len());
}

#[tokio::test(start_paused = true)]
async fn delays_add_up_and_the_first_effect_applies() {
    let faults = Faults { slow_rate: 1.0, slow_delay: SECOND, ..Faults::default() };
    let rules = Rules::new(7)
        .with("a", rule("delay=2s"))
        .with("b", rule("delay=4s when=after"))
        .with("c", rule("status=ABORTED when=after"))
        .with("d", rule("delay=8s status=INTERNAL"));
    let layer = FaultSettings::new(faults).unwrap().with_rules(rules.clone()).with_marks().layer();
    let begun = Instant::now();
    let response = answer(&served(&layer), request(ADD)).await;
    assert_eq!(Instant::now() - begun, 7 * SECOND);
    assert_eq!(cinchona_plumbing::status::code(response.headers()), Some(Code::Aborted));
    let marks: Vec<_> = response.headers().get_all("fault-injected").iter().collect();
    assert_eq!(marks, ["a", "b", "c"]);
    assert_eq!(rules.list()[3].matched, 0);
    let seen = layer.counters();
    let expected = FaultCounters {
        matched: 1,
        delayed: 2,
        executed: 1,
        failed_after: 1,
        ..FaultCounters::default()
    };
    assert_eq!(seen, expected);
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_the_settings_takes_precedence_over_a_rules() {
    let faults = Faults { failure_rate: 1.0, ..Faults::default() };
    let rules = Rules::new(7).with("a", rule("hang")).with("b", rule("delay=1s"));
    let layer = FaultSettings::new(faults).unwrap().with_rules(rules.clone()).layer();
    let response = answer(&served(&layer), request(ADD)).await;
    assert_eq!(cinchona_plumbing::status::code(response.headers()), Some(Code::Unavailable));
    let injected: Vec<_> = rules.list().iter().map(|rule| rule.injected).collect();
    assert_eq!((injected, layer.counters().injected()), (vec![0, 1], 2));
}

#[tokio::test(start_paused = true)]
async fn a_rule_without_a_ttl_is_refused_while_running_unless_it_is_none() {
    let rules = Rules::default();
    let refused = rules.set("a", rule("hang")).unwrap_err().to_string();
    assert!(refused.starts_with("ttl: ") && refused.contains("ttl=none"), "{refused}");
    assert!(rules.list().is_empty());
    rules.set("a", rule("hang ttl=none")).unwrap();
    rules.set("b", rule("hang ttl=1s")).unwrap();
    rules.set("a", rule("panic ttl=none")).unwrap();
    let kinds: Vec<_> = rules.list().iter().map(|listed| listed.rule.kind()).collect();
    assert_eq!(kinds, ["panic", "hang"], "a rule that is replaced keeps its place");
    assert!(rules.remove("a") && !rules.remove("a"));
    rules.clear();
    assert!(rules.list().is_empty());
}

#[tokio::test(start_paused = true)]
async fn active_faults_are_limited_and_further_requests_are_spared() {
    let rules = Rules::new(7).with("case", rule("delay=1m")).with_most_active(3);
    let layer = FaultLayer::from(rules.clone());
    let service = served(&layer);
    let mut calls: Vec<Pin<Box<dyn Future<Output = _>>>> = Vec::new();
    for _ in 0..5 {
        calls.push(Box::pin(timeout(SECOND, answer(&service, request(ADD)))));
    }
    let mut ended = Vec::new();
    // All are begun before any is awaited.
    for call in &mut calls {
        ended.push(futures_now(call.as_mut()));
    }
    assert_eq!(ended, [false, false, false, true, true]);
    assert_eq!((layer.counters().spared, rules.list()[0].injected), (2, 3));
    drop(calls);
    assert_eq!(rules.0.active.load(Ordering::Relaxed), 0);
}

/// Whether a future is ready on its first poll.
fn futures_now(future: Pin<&mut dyn Future<Output = impl Sized>>) -> bool {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    future.poll(&mut cx).is_ready()
}

#[tokio::test(start_paused = true)]
async fn a_hang_is_active_until_the_caller_leaves_and_is_not_abandoned() {
    for text in ["hang", "hang=headers", "drip=1/1s", "cut=9"] {
        let (rules, layer, service) = site(text);
        let active = || rules.0.active.load(Ordering::Relaxed);
        let response = timeout(SECOND, answer(&service, request(ADD))).await;
        assert_eq!(response.is_ok(), text != "hang", "{text}");
        assert_eq!(active(), usize::from(response.is_ok()), "{text}");
        drop(response);
        assert_eq!((active(), layer.counters().abandoned), (0, 0), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_master_switch_stops_all_rules_and_shadow_only_counts() {
    let (rules, layer, service) = site("first=3 status=ABORTED");
    rules.switch().set(Mode::Off);
    assert!(!fails(&service, request(ADD)).await);
    rules.switch().set(Mode::Shadow);
    assert!(!fails(&service, request(ADD)).await);
    assert_eq!((rules.switch().shadowed(), rules.list()[0].injected), (1, 0));
    rules.switch().set(Mode::Enforce);
    assert_eq!(pattern(&service, 3).await, "xx.");
    assert_eq!(layer.counters().injected(), 2);
}

#[tokio::test(start_paused = true)]
async fn delays_have_the_configured_distribution() {
    let percentile = |wait: Wait, share: f64| {
        let mut drawn: Vec<Duration> =
            (0..20_000).map(|request| wait.drawn(|kind: &str| draw(7, request, kind))).collect();
        drawn.sort_unstable();
        drawn[(drawn.len() as f64 * share) as usize].as_secs_f64() * 1e3
    };
    let of = |text: &str| rule(text).delay.unwrap();
    let near = |seen: f64, expected: f64| {
        assert!((seen / expected - 1.0).abs() < 0.06, "{seen} and not {expected}");
    };
    near(percentile(of("delay=100ms"), 0.9), 100.0);
    near(percentile(of("delay=100ms..200ms"), 0.25), 125.0);
    near(percentile(of("delay=normal:100ms:20ms"), 0.5), 100.0);
    near(percentile(of("delay=normal:100ms:20ms"), 0.8413), 120.0);
    near(percentile(of("delay=lognormal:20ms:400ms"), 0.5), 20.0);
    near(percentile(of("delay=lognormal:20ms:400ms"), 0.99), 400.0);
    assert_eq!(percentile(of("delay=normal:1ms:1s"), 0.2), 0.0, "never below 0");
}

#[tokio::test(start_paused = true)]
async fn a_mix_has_its_codes_by_weight() {
    let (_, _, service) = site("mix=ABORTED:3,INTERNAL:1");
    let mut aborted = 0_f64;
    for _ in 0..4000 {
        let response = answer(&service, request(ADD)).await;
        let code = cinchona_plumbing::status::code(response.headers()).unwrap();
        aborted += f64::from(u8::from(code == Code::Aborted));
    }
    assert!((aborted / 4000.0 - 0.75).abs() < 0.03, "{aborted}");
}

#[tokio::test(start_paused = true)]
async fn a_text_is_loaded_whole_or_not_at_all_and_unchanged_rules_keep_their_counters() {
    let rules = Rules::new(7).with("old", rule("panic"));
    let service = served(&rules.clone().into());
    rules.load("# nothing but\r\nkept: first=2 status=ABORTED:\"a # b\" # this\r\n").unwrap();
    assert_eq!(pattern(&service, 3).await, "xx.");
    let errors = rules.load("kept: hang\nkept: hang\n\n  x: rate=7 hang # no\n").unwrap_err();
    let shown: Vec<_> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "line 2: `kept` is the name of another rule\n  kept: hang\n  ^^^^\n  \
                allowed: each name once",
            "line 4: not a share\n    x: rate=7 hang\n            ^\n  \
                allowed: 0 to 1, or 0% to 100%",
        ]
    );
    rules.load("delay=1s\nkept: first=2 status=ABORTED:\"a # b\"").unwrap();
    assert_eq!(pattern(&service, 1).await, ".", "its two are spent");
    let ids: Vec<_> = rules.list().into_iter().map(|rule| (rule.id, rule.matched)).collect();
    assert_eq!(ids, [("line-1".to_owned(), 1), ("kept".to_owned(), 4)]);
}

#[tokio::test(start_paused = true)]
async fn a_file_is_followed_and_a_malformed_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("faults");
    let rules = Rules::default();
    let follower = tokio::spawn({
        let (rules, path) = (rules.clone(), path.clone());
        async move { rules.follow(path, SECOND).await }
    });
    for (contents, ids) in [
        (None, ""),
        (Some("a: hang"), "a"),
        (Some("a: hung"), "a"),
        (Some("a: hang\nb: drop"), "a b"),
        (Some(""), ""),
    ] {
        if let Some(contents) = contents {
            std::fs::write(&path, contents).unwrap();
        }
        sleep(2 * SECOND).await;
        let listed = rules.list();
        let listed: Vec<_> = listed.iter().map(|rule| rule.id.as_str()).collect();
        assert_eq!(listed.join(" "), ids, "{contents:?}");
    }
    follower.abort();
}
