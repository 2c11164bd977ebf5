//! Which callers share answers.

use super::*;
use proptest::prelude::*;
use std::net::SocketAddr;
use tonic::transport::server::TcpConnectInfo;

fn by(name: &'static str, value: &'static str) -> Request<Body> {
    let mut request = pay("k");
    request.headers_mut().insert(name, HeaderValue::from_static(value));
    request
}

fn from(peer: &str) -> Request<Body> {
    let mut request = pay("k");
    let remote_addr = Some(peer.parse::<SocketAddr>().unwrap());
    request.extensions_mut().insert(TcpConnectInfo { local_addr: None, remote_addr });
    request
}

// catalogue: S-F3
#[tokio::test(start_paused = true)]
async fn a_replay_is_no_way_around_authorization() {
    for name in ["authorization", "cookie", "x-api-key", "x-forwarded-client-cert"] {
        // The check is in an interceptor below the layer.
        let (bank, executed) = bank(Duration::ZERO, &[]);
        let service = service_fn(move |request: Request<Body>| {
            let (bank, own) = (bank.clone(), request.headers().get(name).cloned());
            async move {
                match own {
                    Some(value) if value == "alice" => bank.oneshot(request).await,
                    _ => Ok(Status::unauthenticated("who are you?").into_http()),
                }
            }
        });
        let service = dedup().layer(service);
        assert_eq!(status(&ask(&service, by(name, "alice")).await).code(), Code::Ok);
        for stranger in [by(name, "mallory"), by(name, ""), pay("k"), from("10.0.0.1:1")] {
            let answered = ask(&service, stranger).await;
            assert_eq!(status(&answered).code(), Code::Unauthenticated, "{name}");
            assert!(!is_replay(&answered));
        }
        assert!(is_replay(&ask(&service, by(name, "alice")).await));
        assert_eq!(executed.load(Ordering::Relaxed), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn without_credentials_the_peer_is_the_caller_whatever_its_connection() {
    let (bank, executed) = bank(Duration::ZERO, &[]);
    let service = dedup().layer(bank);
    for (peer, replayed) in [
        ("10.0.0.1:1", false),
        ("10.0.0.1:2", true),
        ("10.0.0.2:1", false),
        ("[::ffff:10.0.0.1]:3", true),
        ("[2001:db8::1]:1", false),
    ] {
        assert_eq!(is_replay(&ask(&service, from(peer)).await), replayed, "{peer}");
    }
    assert_eq!(executed.load(Ordering::Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn the_identification_of_callers_is_configurable() {
    let alice_at = |peer: &str| {
        let mut request = from(peer);
        request.headers_mut().insert("authorization", HeaderValue::from_static("alice"));
        request
    };
    let name = http::HeaderName::from_static("x-id");
    // Whether these are the same caller as alice at one address: alice at another address, another
    // user there, and one with an id.
    for (settings, expected) in [
        (settings(), [true, false, true]),
        (settings().by_peer(), [false, true, true]),
        (settings().by_key(), [true, true, true]),
        (settings().by_header(name), [true, false, false]),
        (settings().with_caller(|_, _| Some("one".into())), [true, true, true]),
        (settings().with_caller(|_, _| None), [true, false, true]),
    ] {
        let mut with_id = alice_at("10.0.0.1:1");
        with_id.headers_mut().insert("x-id", HeaderValue::from_static("7"));
        let others = [alice_at("10.0.0.2:1"), from("10.0.0.1:1"), with_id];
        for (other, expected) in others.into_iter().zip(expected) {
            let (bank, _) = bank(Duration::ZERO, &[]);
            let layer = settings.clone().with_domain("new").unwrap().layer(MemoryStore::new());
            let service = layer.layer(bank);
            let key = format!("k{expected}{:?}", other.headers());
            let renamed = |mut request: Request<Body>| {
                let digest = xxhash_rust::xxh3::xxh3_64(key.as_bytes()).to_string();
                request.headers_mut().insert(IDEMPOTENCY_KEY, digest.parse().unwrap());
                request
            };
            ask(&service, renamed(alice_at("10.0.0.1:1"))).await;
            assert_eq!(is_replay(&ask(&service, renamed(other)).await), expected, "{settings:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_unauthorized_caller_learns_nothing_of_an_earlier_call() {
    let (bank, executed) = bank(SECOND, &[]);
    let layer = settings()
        .by_key()
        .with_authorize(|request| async move {
            tokio::task::yield_now().await;
            match request.headers().get("authorization") {
                Some(token) if token == "alice" => Ok(()),
                _ => Err(Status::permission_denied(format!("not you: {}", request.uri().path()))),
            }
        })
        .layer(MemoryStore::new());
    let service = layer.layer(bank);
    let first = by("authorization", "alice");
    let in_flight = async {
        sleep(SECOND / 2).await;
        ask(&service, by("authorization", "mallory")).await
    };
    let (first, refused) = tokio::join!(ask(&service, first), in_flight);
    assert_eq!(status(&first).code(), Code::Ok);
    let mut other = by("authorization", "mallory");
    *other.body_mut() = Body::new(Full::new(message("", 9)));
    let replay = ask(&service, by("authorization", "mallory")).await;
    for refused in [refused, replay, ask(&service, pay("k")).await, ask(&service, other).await] {
        assert_eq!(status(&refused).code(), Code::PermissionDenied);
        assert_eq!(status(&refused).message(), "not you: /Bank/Pay");
    }
    assert!(is_replay(&ask(&service, by("authorization", "alice")).await));
    assert_eq!((executed.load(Ordering::Relaxed), layer.counters().denied), (1, 4));
    // The handler decides on a first call.
    assert_eq!(status(&ask(&service, pay("new")).await).code(), Code::Ok);
}

#[derive(Clone, Debug, PartialEq)]
struct Asking {
    credential: Option<(usize, u8)>,
    peer: u8,
    key: u8,
}

fn asking() -> impl Strategy<Value = Asking> {
    (prop::option::of((0_usize..4, 0_u8..3)), 0_u8..3, 0_u8..2)
        .prop_map(|(credential, peer, key)| Asking { credential, peer, key })
}

proptest! {
    #[test]
    fn no_caller_is_given_the_answer_of_another(calls in prop::collection::vec(asking(), 1..20)) {
        const NAMES: [&str; 4] = ["authorization", "cookie", "x-api-key", "x-user-id"];
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let (bank, _) = bank(Duration::ZERO, &[]);
            let service = dedup().layer(bank);
            let mut answers: Vec<(Asking, Bytes)> = Vec::new();
            for call in calls {
                let mut request = from(&format!("10.0.0.{}:1", call.peer));
                let key = HeaderValue::from(u16::from(call.key));
                request.headers_mut().insert(IDEMPOTENCY_KEY, key);
                if let Some((name, value)) = call.credential {
                    let value = HeaderValue::from(u16::from(value));
                    request.headers_mut().insert(NAMES[name], value);
                }
                let (_, answer, _) = read(ask(&service, request).await).await;
                for (earlier, same) in &answers {
                    let is_same = earlier.key == call.key
                        && earlier.credential == call.credential
                        && (call.credential.is_some() || earlier.peer == call.peer);
                    prop_assert_eq!(*same == answer, is_same, "{:?} {:?}", earlier, call);
                }
                answers.push((call, answer));
            }
            Ok(())
        })?;
    }
}
