//! No loop without a wait: a call is not retried repeatedly at one instant, and the caller's own
//! timer fires.

use super::*;
use cinchona_core::{BoxError, Rejected};
use cinchona_plumbing::ReplayBuffer;
use cinchona_testkit::Logs;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tokio::time::timeout;
use tonic::body::Body;
use tower::{ServiceExt, service_fn};

/// A way to fail immediately, every time.
type Failure = fn() -> Result<http::Response<Body>, BoxError>;

const FAILURES: [(&str, Failure); 6] = [
    ("unconnected", || {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        Err(tonic::ConnectError(refused.into()).into())
    }),
    ("nowhere to go", || Err(Rejected::new("down", None).into())),
    ("unsent", || Err(Rejected::lost("gone").into())),
    ("refused", || Err(Box::new(Wrapped(h2::Error::from(h2::Reason::REFUSED_STREAM))))),
    ("unavailable", || Ok(Status::unavailable("down").into_http())),
    ("come at once", || {
        let mut status = Status::unavailable("down");
        status.metadata_mut().insert("grpc-retry-pushback-ms", "0".parse().unwrap());
        Ok(status.into_http())
    }),
];

#[derive(Debug)]
struct Wrapped(h2::Error);

impl std::fmt::Display for Wrapped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Wrapped {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

fn policies() -> Vec<(&'static str, Policy)> {
    let zero = Backoff::new(ms(0), 1.0, ms(0)).unwrap().with_jitter(Jitter::None);
    let every = || (1..=16).map(Code::from_i32);
    let eager = RetryPolicy::default()
        .with_max_retries(u32::MAX)
        .with_backoff(zero)
        .with_forced_codes(every());
    vec![
        ("no policy", Policy::default()),
        ("retries without a wait", eager.into()),
        ("hedges", hedge(5, ms(10), every()).into()),
        ("hedges at once", hedge(u32::MAX, ms(0), every()).into()),
        ("hedges for ever", hedge(5, Duration::MAX, every()).into()),
    ]
}

// catalogue: S-A2
#[tokio::test(start_paused = true)]
async fn whatever_the_policy_and_the_failure_attempts_have_time_between_them() {
    for (what, fail) in FAILURES {
        for (name, policy) in policies() {
            for waits in [false, true] {
                let calls = Arc::new(AtomicUsize::new(0));
                let count = calls.clone();
                let failing = service_fn(move |_: http::Request<Body>| {
                    count.fetch_add(1, Ordering::Relaxed);
                    std::future::ready(fail())
                });
                let layer = layer(policy.clone().with_wait_for_ready(waits));
                let request = http::Request::post(PATH).body(Body::empty()).unwrap();
                let call = layer.layer(failing).oneshot(request);
                let began = Instant::now();
                // The caller's own timer.
                let ended = timeout(ms(1000), call).await;
                let calls = calls.load(Ordering::Relaxed);
                let case = format!("{what}, {name}, waits {waits}: {calls} attempts");
                assert!((Instant::now() - began) <= ms(1001), "{case}");
                // Two a millisecond, and a hundred hedges.
                assert!(calls <= 2200, "{case}");
                if waits && what == "unconnected" {
                    assert!(ended.is_err() && calls <= 1100, "{case}");
                }
            }
        }
    }
}

// catalogue: S-A2
#[tokio::test(start_paused = true)]
async fn a_hedged_call_that_waits_for_ready_ends_at_its_deadline_with_a_short_ledger() {
    let policy = Policy::from(hedge(2, ms(50), [Code::Unavailable])).with_wait_for_ready(true);
    let network = Network::new();
    network.refuse(true);
    let mut grpc = Grpc::new(layer(policy).layer(network.channel()));
    let mut request = Request::new(message(3));
    request.set_timeout(Duration::from_secs(4));
    let began = Instant::now();
    let outcome = unary(&mut grpc, request).await;
    assert_eq!(code(&outcome), Code::DeadlineExceeded);
    assert!(
        (3999..=4001).contains(&(Instant::now() - began).as_millis()),
        "{:?}",
        (Instant::now() - began)
    );
    assert!(ledger(&outcome).attempts().len() <= 2, "{}", ledger(&outcome));
}

// catalogue: S-A2
#[tokio::test(start_paused = true)]
async fn only_a_hedged_call_that_waits_for_a_connection_until_its_deadline_ends_with_that() {
    let network = Network::new();
    network.refuse(true);
    let channel = network.channel();
    // The connection is refused just when the deadline comes, or long before.
    let refused = |after: Duration| {
        let channel = channel.clone();
        service_fn(move |request| {
            let channel = channel.clone();
            async move {
                let until = Instant::now() + after;
                let failed = channel.oneshot(request).await;
                tokio::time::sleep_until(until).await;
                failed
            }
        })
    };
    let limit = Duration::from_secs(4);
    for (waits, after, ends) in [
        (true, limit, Code::DeadlineExceeded),
        (false, limit, Code::Unavailable),
        // Its message cannot be sent again, so it waits for nothing.
        (true, ms(1), Code::Unavailable),
    ] {
        let policy = Policy::from(hedge(2, 2 * limit, [])).with_wait_for_ready(waits);
        let most = if after < limit { 0 } else { 1 << 20 };
        let layer = settings(policy).with_buffer(ReplayBuffer::new(most, most)).layer();
        let mut grpc = Grpc::new(layer.layer(refused(after)));
        let mut request = Request::new(message(3));
        request.set_timeout(limit);
        let outcome = unary(&mut grpc, request).await;
        assert_eq!(code(&outcome), ends, "waits: {waits}, after {after:?}");
    }
}

// catalogue: S-A2
#[tokio::test(start_paused = true)]
async fn a_hedged_call_that_waits_for_ready_succeeds_once_there_is_a_connection() {
    let policy = Policy::from(hedge(2, ms(50), [Code::Unavailable])).with_wait_for_ready(true);
    let mut client = Client::new(&layer(policy), [ok()]);
    client.network.refuse(true);
    let network = client.network.clone();
    tokio::spawn(async move {
        tokio::time::sleep(ms(1100)).await;
        network.refuse(false);
    });
    let mut request = Request::new(message(3));
    request.set_timeout(Duration::from_secs(5));
    let began = Instant::now();
    assert_eq!(code(&client.send(request).await), Code::Ok);
    let received = &client.server.received()[0];
    let timeout = cinchona_core::Deadline::parse_timeout(&received.headers).unwrap().unwrap();
    let left = Duration::from_secs(5) - (received.at - began);
    assert!(
        left <= ms(3900) && timeout <= left && timeout + ms(1) >= left,
        "{timeout:?} of {left:?}"
    );
}

// catalogue: S-A9
#[tokio::test(start_paused = true)]
async fn a_failure_after_the_commit_takes_a_token_in_any_form() {
    let trailers = Answer::HeadersThenStatus(Status::internal("late"));
    let cut = Answer::Http(http::StatusCode::OK, "application/grpc", "\0\0\0\0\x01".into());
    for (answer, codes) in [
        (trailers, [Code::Internal]),
        (
            Answer::MessageThenReset(encode(&message(7)), h2::Reason::INTERNAL_ERROR),
            [Code::Internal],
        ),
        // It ends without trailers.
        (cut, [Code::Unknown]),
    ] {
        let layer = settings(retry(4, codes)).with_throttle(4.0, 0.1).unwrap().layer();
        let mut client = Client::new(&layer, [answer.clone()]);
        for left in [3.0, 2.0, 1.0] {
            assert!(client.call().await.is_err());
            settle().await;
            assert_eq!(layer.counters().throttle_tokens, left, "{answer:?}");
        }
    }
    // A connection that is lost after the head.
    let layer = settings(retry(4, [Code::Unavailable])).with_throttle(4.0, 0.1).unwrap().layer();
    let mut client = Client::new(&layer, [Answer::HeadersThenHang]);
    let network = client.network.clone();
    tokio::spawn(async move {
        tokio::time::sleep(ms(100)).await;
        network.reset();
    });
    assert!(client.call().await.is_err());
    assert_eq!(layer.counters().throttle_tokens, 3.0);
}

// catalogue: S-D3
#[tokio::test(start_paused = true)]
async fn a_listed_method_that_is_not_known_as_safe_is_logged_once_with_the_remedy() {
    let logs = Logs::of("cinchona_retry");
    let policy = retry(4, [Code::Unavailable]);
    let layer = RetryLayer::new(policy, Methods::unknown());
    let mut client = Client::new(&layer, [unavailable()]);
    for _ in 0..3 {
        assert_eq!(ledger(&client.call().await).stopped(), Stop::NotIdempotent);
    }
    let warned: Vec<_> =
        logs.events().into_iter().filter(|event| event.level == tracing::Level::WARN).collect();
    let [warned] = &warned[..] else { panic!("{warned:?}") };
    assert_eq!((&*warned.fields["rpc.method"], &*warned.fields["code"]), (PATH, "UNAVAILABLE"));
    assert!(warned.message.contains("idempotency_level"), "{warned:?}");
}

// catalogue: S-D3
#[tokio::test(start_paused = true)]
async fn only_a_method_that_is_not_known_as_safe_is_logged_where_it_would_be_hedged() {
    let policies = || Policy::from(hedge(2, ms(100), [Code::Unavailable])).into();
    for (methods, warnings) in [(Methods::unknown(), 1), (Methods::all_idempotent(), 0)] {
        let logs = Logs::of("cinchona_retry");
        let settings = RetrySettings::new(RetryPolicy::default(), methods);
        let layer = settings.with_policies(policies()).unwrap().layer();
        let mut client = Client::new(&layer, [ok()]);
        client.call().await.unwrap();
        let events = logs.events();
        let warned = events.iter().filter(|event| event.level == tracing::Level::WARN).count();
        assert_eq!(warned, warnings, "{events:?}");
    }
}
