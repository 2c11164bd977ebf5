//! Connections that fail are replaced, and operations left in doubt are ended.

use super::{
    between::{Between, Manner},
    *,
};
use cinchona_core::Methods;
use cinchona_idempotency::DedupSettings;
use std::{
    convert::Infallible,
    sync::{Arc, atomic::AtomicU64},
};
use tonic::body::Body;
use tower::{Layer, ServiceExt, service_fn};

/// Errors that Redis returns about itself instead of an answer.
const FAMILY: [&str; 20] = [
    "READONLY You can't write against a read only replica.",
    "LOADING Redis is loading the dataset in memory",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "MOVED 866 127.0.0.1:1",
    "ASK 866 127.0.0.1:1",
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "CLUSTERDOWN The cluster is down",
    "CLUSTERDOWN Hash slot not served",
    "NOAUTH Authentication required.",
    "WRONGPASS invalid username-password pair or user is disabled.",
    "NOPERM this user has no permissions to run the 'set' command",
    "NOREPLICAS Not enough good replicas to write.",
    "MISCONF Errors writing to the AOF file: No space left on device",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL.",
    "UNBLOCKED force unblock from blocking operation, instance state changed",
    "DENIED Redis is running in protected mode",
    "NOMASTERLINK Can't SYNC while not connected with my master",
    "ERR max number of clients reached",
    "WHATEVER a later version says",
];

fn store_at(url: &str) -> RedisStore {
    RedisStore::new(url).unwrap()
}

/// How long the machine has paused, as observed by a task that should run each 5 ms.
pub(crate) struct Stalls {
    taken: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Stalls {
    pub(crate) fn watch() -> Self {
        let taken = Arc::new(AtomicU64::new(0));
        let seen = taken.clone();
        let task = tokio::spawn(async move {
            loop {
                let (began, each) = (Instant::now(), Duration::from_millis(5));
                tokio::time::sleep(each).await;
                let late = (Instant::now() - began).saturating_sub(2 * each);
                seen.fetch_add(late.as_micros() as u64, Ordering::Relaxed);
            }
        });
        Self { taken, task }
    }

    pub(crate) fn seen(&self) -> Duration {
        Duration::from_micros(self.taken.load(Ordering::Relaxed))
    }

    /// Since the last call.
    pub(crate) fn take(&self) -> Duration {
        Duration::from_micros(self.taken.swap(0, Ordering::Relaxed))
    }
}

impl Drop for Stalls {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn claims(store: &RedisStore, token: u128) -> Result<Claim, BoxError> {
    store.claim(format!("key {token}").as_bytes(), 1, token, LEASE).await
}

/// Claims one key after the other until one is granted; returns how long that took, and how long
/// the slowest failure but one (the machine may pause) did.
pub(crate) async fn back(store: &RedisStore, tokens: &mut u128) -> (Duration, Duration) {
    let began = Instant::now();
    let mut failures = vec![Duration::ZERO; 2];
    loop {
        *tokens += 1;
        let asked = Instant::now();
        let Err(error) = claims(store, *tokens).await else {
            failures.sort();
            return (Instant::now() - began, failures[failures.len() - 2]);
        };
        failures.push(Instant::now() - asked);
        assert!(Instant::now() - began < Duration::from_secs(20), "it is not back: {error}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub(crate) const SECOND: Duration = Duration::from_secs(1);
/// The limit of 80 ms, plus the machine's delays.
const SHORT: Duration = Duration::from_millis(100);

// real clock: Redis has its own clock.
// catalogue: S-C2
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server"]
async fn a_connection_with_any_server_error_is_replaced_within_a_second() {
    let redis = Redis::start().await;
    let stalls = Stalls::watch();
    let between = Between::new(redis.addr()).await;
    let store = store_at(&between.url());
    let mut tokens = 0;
    back(&store, &mut tokens).await;
    let said = FAMILY.map(|said| Manner::Answers(said.to_owned()));
    for manner in [Manner::Silent].into_iter().chain(said) {
        stalls.take();
        between.spoil(&manner);
        let (after, slowest) = back(&store, &mut tokens).await;
        let (stalled, said) = (stalls.take(), format!("{manner:?}: {after:?} {slowest:?}"));
        assert!(after <= SECOND + stalled && slowest <= SHORT + stalled, "{said}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

// real clock: Redis has its own clock.
// catalogue: S-C2
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server"]
async fn an_unusable_redis_is_polled_at_a_limited_rate_and_used_once_it_recovers() {
    let redis = Redis::start().await;
    let stalls = Stalls::watch();
    let between = Between::new(redis.addr()).await;
    let store = store_at(&between.url());
    let mut tokens = 0;
    back(&store, &mut tokens).await;
    let said = FAMILY.map(|said| Manner::Answers(said.to_owned()));
    for manner in [Manner::Silent].into_iter().chain(said) {
        between.set(&manner);
        let (until, before) = (Instant::now() + Duration::from_millis(600), between.made());
        let mut times = Vec::new();
        while Instant::now() < until {
            let asked = Instant::now();
            tokens += 1;
            // A call whose answer was in transit.
            if claims(&store, tokens).await.is_err() {
                times.push(Instant::now() - asked);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        times.sort();
        let limit = SHORT + stalls.take();
        // All but one, as the machine may pause.
        assert!(times.iter().rev().skip(1).all(|time| *time <= limit), "{manner:?}: {times:?}");
        assert!(between.made() - before <= 12, "{manner:?}: {}", between.made() - before);
        between.set(&Manner::HandsOn);
        let (after, _) = back(&store, &mut tokens).await;
        assert!(after <= SECOND + stalls.take(), "{manner:?}: {after:?}");
    }
}

// real clock: Redis has its own clock.
// catalogue: S-C2
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server"]
async fn a_dead_connection_is_replaced_even_if_callers_give_up_before_the_store() {
    let redis = Redis::start().await;
    let stalls = Stalls::watch();
    let between = Between::new(redis.addr()).await;
    let store = store_at(&between.url()).with_timeout(Duration::MAX).unwrap();
    let mut tokens = 0;
    back(&store, &mut tokens).await;
    between.spoil(&Manner::Silent);
    let began = Instant::now();
    for token in 1000.. {
        let given_up = tokio::time::timeout(Duration::from_millis(50), claims(&store, token)).await;
        assert!(Instant::now() - began <= 5 * SECOND + stalls.seen(), "it is not back");
        if let Ok(Ok(_)) = given_up {
            break;
        }
    }
}

/// The commands that make a real Redis unusable, and usable again.
const STATES: [(&str, &[&str], &[&str]); 6] = [
    ("READONLY", &["REPLICAOF 127.0.0.1 1"], &["REPLICAOF NO ONE"]),
    (
        // The error for a script that may write, which precedes MASTERDOWN.
        "READONLY",
        &["CONFIG SET replica-serve-stale-data no", "REPLICAOF 127.0.0.1 1"],
        &["REPLICAOF NO ONE"],
    ),
    (
        "NOREPLICAS",
        &["CONFIG SET min-replicas-to-write 1"],
        &["CONFIG SET min-replicas-to-write 0"],
    ),
    ("OOM", &["CONFIG SET maxmemory 1"], &["CONFIG SET maxmemory 0"]),
    ("NOPERM", &["ACL SETUSER default -@all +acl +config"], &["ACL SETUSER default +@all"]),
    ("scripts are forgotten", &["SCRIPT FLUSH"], &[]),
];

// real clock: Redis has its own clock.
// catalogue: S-C2
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server"]
async fn a_real_redis_is_left_in_each_of_its_states_and_found_again() {
    let redis = Redis::start().await;
    let stalls = Stalls::watch();
    let store = store_at(&redis.url());
    let client = redis::Client::open(redis.url()).unwrap();
    let mut operator = client.get_multiplexed_async_connection().await.unwrap();
    let mut tell = async |commands: &[&str]| {
        for command in commands {
            let mut words = command.split(' ');
            let mut command = redis::cmd(words.next().unwrap());
            command.arg(words.collect::<Vec<_>>());
            let () = command.query_async(&mut operator).await.unwrap();
        }
    };
    let mut tokens = 0;
    for (state, broken, mended) in STATES {
        back(&store, &mut tokens).await;
        tell(broken).await;
        if !mended.is_empty() {
            let (mut times, mut said) = (Vec::new(), Vec::new());
            for _ in 0..20 {
                tokens += 1;
                let asked = Instant::now();
                let failed = claims(&store, tokens).await.expect_err(state);
                times.push(Instant::now() - asked);
                said.push(failed.to_string());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            times.sort();
            assert!(times[18] <= SHORT + stalls.take(), "{state}: {times:?}");
            assert!(said.iter().any(|said| said.contains(state)), "{state}: {said:?}");
        }
        tell(mended).await;
        let (after, _) = back(&store, &mut tokens).await;
        assert!(after <= SECOND + stalls.take(), "{state}: {after:?}");
        let grown = store.update(&["n"], move |_| Ok(tokens as u32));
        assert_eq!(grown.await.unwrap(), tokens as u32, "{state}");
    }
}

// real clock: Redis has its own clock.
// catalogue: S-C2
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server"]
async fn a_dedup_layer_fails_closed_or_open_in_time_while_its_redis_is_unusable() {
    let redis = Redis::start().await;
    let stalls = Stalls::watch();
    let service = || {
        service_fn(|_: http::Request<Body>| async {
            Ok::<_, Infallible>(Status::ok("").into_http::<Body>())
        })
    };
    let said = [0, 6].map(|n| Manner::Answers(FAMILY[n].to_owned()));
    for manner in [Manner::Silent].into_iter().chain(said) {
        for open in [false, true] {
            let between = Between::new(redis.addr()).await;
            let dedup =
                DedupSettings::new(methods()).with_fail_open(open).layer(store_at(&between.url()));
            let call = async |key: u32| {
                let request = http::Request::post("/Bank/Pay").header("idempotency-key", key);
                let asked = Instant::now();
                let answer = dedup.layer(service()).oneshot(request.body(Body::empty()).unwrap());
                let answer = answer.await.unwrap();
                (answer.headers()["grpc-status"].clone(), Instant::now() - asked)
            };
            while call(0).await.0 != "0" {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            between.set(&manner);
            let mut times = Vec::new();
            for key in 1..20 {
                let (status, took) = call(key).await;
                assert_eq!(status, if open { "0" } else { "14" }, "{manner:?}");
                times.push(took);
            }
            times.sort();
            assert!(times[17] <= SHORT + stalls.take(), "{manner:?} {open}: {times:?}");
        }
    }
}

/// `Bank/Pay`, which is unary.
pub(crate) fn methods() -> Methods {
    use prost::Message as _;
    use prost_types::{
        FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto, ServiceDescriptorProto,
    };
    let pay = MethodDescriptorProto { name: Some("Pay".into()), ..Default::default() };
    let service = ServiceDescriptorProto {
        name: Some("Bank".into()),
        method: vec![pay],
        ..Default::default()
    };
    let file = FileDescriptorProto { service: vec![service], ..Default::default() };
    let set = FileDescriptorSet { file: vec![file] };
    Methods::from_file_descriptor_set(&set.encode_to_vec()).unwrap()
}

// real clock: Redis has its own clock.
// catalogue: S-E5
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server"]
async fn an_abandoned_claim_blocks_no_call_when_it_is_made_late() {
    let redis = Redis::start().await;
    let stalls = Stalls::watch();
    let (one, other) = (store_at(&redis.url()), store_at(&redis.url()));
    let mut tokens = 0;
    back(&one, &mut tokens).await;
    redis.signal("STOP");
    for token in [1001, 1002] {
        let key: &[u8] = if token == 1001 { b"met again here" } else { b"met elsewhere" };
        one.claim(key, 1, token, LEASE).await.unwrap_err();
        // As a refused caller does.
        _ = one.release(key, token).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    redis.signal("CONT");
    let began = Instant::now();
    for (store, key, token) in
        [(&one, &b"met again here"[..], 2001), (&other, b"met elsewhere", 2002)]
    {
        while !matches!(
            store.claim(key, 1, token, LEASE).await,
            Ok(Claim::Granted { lapsed: false })
        ) {
            assert!(
                Instant::now() - began < SECOND + stalls.seen(),
                "it waits for a lease that no call holds"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

// real clock: Redis has its own clock.
// catalogue: S-E5
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server"]
async fn a_release_that_failed_is_made_later() {
    let redis = Redis::start().await;
    let stalls = Stalls::watch();
    let between = Between::new(redis.addr()).await;
    let (one, other) = (store_at(&between.url()), store_at(&redis.url()));
    let mut tokens = 0;
    back(&one, &mut tokens).await;
    assert!(matches!(one.claim(b"k", 1, 7000, LEASE).await, Ok(Claim::Granted { .. })));
    between.set(&Manner::Answers("READONLY".into()));
    one.release(b"k", 7000).await.unwrap_err();
    assert!(matches!(other.claim(b"k", 1, 7001, LEASE).await, Ok(Claim::Busy(_))));
    between.set(&Manner::HandsOn);
    let began = Instant::now();
    while !matches!(other.claim(b"k", 1, 7002, LEASE).await, Ok(Claim::Granted { lapsed: false })) {
        assert!(Instant::now() - began < 3 * SECOND + stalls.seen(), "the claim is still there");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

// real clock: Redis has its own clock.
// catalogue: S-E10
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server"]
async fn the_limit_covers_the_wait_for_other_changes_too() {
    let redis = Redis::start().await;
    let stalls = Stalls::watch();
    let store = store_at(&redis.url());
    back(&store, &mut 0).await;
    redis.signal("STOP");
    let mut changes = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let store = store.clone();
        changes.spawn(async move {
            let asked = Instant::now();
            store.update(&["one"], |_| Ok(0_u32)).await.unwrap_err();
            Instant::now() - asked
        });
    }
    let mut times = changes.join_all().await;
    redis.signal("CONT");
    times.sort();
    assert!(times[95] <= SHORT + stalls.take(), "{times:?}");
}

// real clock: Redis has its own clock.
// catalogue: S-E3
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server"]
async fn a_change_that_panics_fails_its_own_call_alone() {
    let redis = Redis::start().await;
    let store = store(&redis);
    for _ in 0..3 {
        let panicking = |_: &mut [Option<Bytes>]| -> Result<u32, Status> { panic!("a user's") };
        let failed = store.update(&["n"], panicking).await.unwrap_err();
        assert_eq!(failed.code(), tonic::Code::Internal);
    }
    assert_eq!(store.update(&["n"], |_| Ok(7_u32)).await.unwrap(), 7);
}

// real clock: Redis has its own clock.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server"]
async fn a_store_that_is_dropped_leaves_no_task() {
    let redis = Redis::start().await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    for url in [redis.url(), "redis://127.0.0.1:1".into()] {
        let store = store_at(&url);
        _ = claims(&store, 1).await;
        assert!(tasks() > before);
        drop(store);
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            if tasks() == before {
                break;
            }
        }
        assert_eq!(tasks(), before, "{url}");
    }
}

#[test]
#[ignore = "needs redis-server"]
fn a_runtime_that_ends_while_claims_are_in_doubt_ends() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let redis = runtime().block_on(Redis::start());
    let first = runtime();
    let store = store_at(&redis.url());
    first.block_on(async { back(&store, &mut 0).await });
    redis.signal("STOP");
    for token in 1000..1200 {
        let store = store.clone();
        first.spawn(async move { claims(&store, token).await.map(drop) });
    }
    first.block_on(tokio::task::yield_now());
    // Their claims are dropped with it.
    drop(first);
    redis.signal("CONT");
    // Another runtime continues to use the store.
    runtime().block_on(async {
        back(&store, &mut 2000).await;
    });
}
