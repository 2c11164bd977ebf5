//! The laws of every store, on the tests' own Redis.

mod between;
mod groups;
mod heal;

use super::*;
use cinchona_idempotency::{State, conformance};
use cinchona_testkit::Redis;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
    time::Instant,
};
use tonic::Status;

const LEASE: Duration = Duration::from_secs(30);

/// A timeout for a busy machine.
fn store(redis: &Redis) -> RedisStore {
    RedisStore::new(&redis.url()).unwrap().with_timeout(Duration::from_secs(10)).unwrap()
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn the_store_in_redis_conforms() {
    let redis = Redis::start().await;
    let number = AtomicU32::new(0);
    let fresh = || {
        let prefix = format!("law {}", number.fetch_add(1, Ordering::Relaxed));
        let store = store(&redis).with_prefix(&prefix).unwrap();
        async { store }
    };
    conformance::store(fresh).await;
    conformance::state(fresh).await;
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn replicas_share_claims_records_and_state() {
    let redis = Redis::start().await;
    let (one, other) = (store(&redis), store(&redis));
    assert!(matches!(one.claim(b"k", 1, 1, LEASE).await.unwrap(), Claim::Granted { .. }));
    assert!(matches!(other.claim(b"k", 1, 2, LEASE).await.unwrap(), Claim::Busy(_)));
    assert!(one.finish(b"k", 1, b"answer").await.unwrap());
    let Claim::Done(record) = other.claim(b"k", 1, 3, LEASE).await.unwrap() else {
        panic!("the record is shared");
    };
    assert_eq!(record, "answer");
    let mut changes = tokio::task::JoinSet::new();
    for n in 0..40 {
        let store = if n % 2 == 0 { one.clone() } else { other.clone() };
        changes.spawn(async move {
            let grow = |values: &mut [Option<Bytes>]| {
                let before = values[0].as_deref().unwrap_or_default();
                values[0] = Some([before, b"x"].concat().into());
                Ok(())
            };
            store.update(&["grown"], grow).await.unwrap();
        });
    }
    changes.join_all().await;
    assert_eq!(one.read("grown").await.unwrap().unwrap().len(), 40);
}

// real clock: Redis has its own clock.
#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_redis_that_is_stopped_or_gone_costs_little_and_is_found_again() {
    let mut redis = Redis::start().await;
    let store = RedisStore::new(&redis.url()).unwrap();
    let claim = async |key: &[u8]| {
        let began = Instant::now();
        let claim = store.claim(key, 1, 1, LEASE).await;
        (claim, Instant::now() - began)
    };
    let connected = async |key: &'static [u8]| {
        for _ in 0..200 {
            if claim(key).await.0.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("not found again");
    };
    let costs_little = async |key: &'static [u8]| {
        let mut times = [Duration::ZERO; 5];
        for time in &mut times {
            let (claim, took) = claim(key).await;
            assert!(claim.is_err(), "{claim:?}");
            *time = took;
        }
        // Most of them: the machine may pause.
        times.sort();
        assert!(times[2] < Duration::from_millis(280), "{times:?}");
    };
    connected(b"before").await;
    redis.signal("STOP");
    costs_little(b"stopped").await;
    redis.signal("CONT");
    connected(b"continued").await;
    redis.kill();
    costs_little(b"gone").await;
    redis.restart().await;
    connected(b"returned").await;
}

// real clock: Redis has its own clock.
#[tokio::test]
#[ignore = "needs redis-server"]
async fn records_are_kept_for_their_time() {
    let redis = Redis::start().await;
    let ttl = Duration::from_millis(300);
    let store = store(&redis).with_ttl(ttl).unwrap();
    store.claim(b"k", 1, 1, LEASE).await.unwrap();
    store.finish(b"k", 1, b"answer").await.unwrap();
    tokio::time::sleep(2 * ttl).await;
    let again = store.claim(b"k", 2, 2, LEASE).await.unwrap();
    assert!(matches!(again, Claim::Granted { lapsed: false }), "{again:?}");
}

#[tokio::test]
async fn bad_settings_are_refused() {
    assert!(RedisStore::new("no url").is_err());
    let store = || RedisStore::new("redis://127.0.0.1:1").unwrap();
    assert_eq!(store().with_ttl(Duration::ZERO).unwrap_err().field(), "ttl");
    assert_eq!(store().with_timeout(Duration::ZERO).unwrap_err().field(), "timeout");
}

/// A server's address that answers each line with an error that repeats it, as Redis does with
/// unknown commands; or, if `silent`, with nothing.
async fn repeating(silent: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (read, mut write) = stream.split();
                let mut lines = BufReader::new(read).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    let all = "mark-user mark-password";
                    let answer = format!("-ERR unknown command '{line}', with args {all}\r\n");
                    if !silent && !line.starts_with(['*', '$']) {
                        _ = write.write_all(answer.as_bytes()).await;
                    }
                }
            });
        }
    });
    addr.to_string()
}

// real clock: the answers come over sockets.
#[tokio::test]
async fn debug_output_and_errors_contain_no_part_of_the_url() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (loud, silent) = (repeating(false).await, repeating(true).await);
    for (at, protocol, said) in [
        (&loud, "resp2", "Redis"),
        (&loud, "resp3", "Redis"),
        (&silent, "resp2", "cannot be reached"),
        (&free.to_string(), "resp2", "no connection to Redis"),
        (&"mark.invalid".to_owned(), "resp2", "Redis"),
    ] {
        let url = format!("redis://mark-user:mark-password@{at}/7?protocol={protocol}");
        let store = RedisStore::new(&url).unwrap();
        let mut all = vec![format!("{store:?} {}", store.domain().unwrap())];
        let failed = store.claim(b"k", 1, 1, LEASE).await.unwrap_err();
        assert!(failed.to_string().contains(said), "{at} {protocol}: {failed}");
        all.push(format!("{failed} {failed:?} {:?}", failed.source().map(ToString::to_string)));
        let failed = store.read("k").await.unwrap_err();
        all.push(format!("{failed} {failed:?}"));
        for said in all {
            assert!(!said.contains("mark") && !said.contains(at), "{said}");
        }
    }
}

// real clock: Redis has its own clock.
#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_change_that_is_allowed_only_in_part_is_not_made() {
    let redis = Redis::start().await;
    let store = store(&redis).with_timeout(Duration::from_millis(500)).unwrap();
    let both = |values: &mut [Option<Bytes>]| {
        values[0] = Some("100".into());
        values[1] = Some("x".into());
        Ok(())
    };
    store.update(&["a", "b"], both).await.unwrap();
    let client = redis::Client::open(redis.url()).unwrap();
    let mut operator = client.get_multiplexed_async_connection().await.unwrap();
    let mut acl = redis::cmd("ACL");
    let () =
        acl.arg("SETUSER").arg("default").arg("-del").query_async(&mut operator).await.unwrap();
    let moved = |values: &mut [Option<Bytes>]| {
        values[0] = Some("90".into());
        values[1] = None;
        Ok(())
    };
    assert!(store.update(&["a", "b"], moved).await.is_err());
    assert_eq!(store.read("a").await.unwrap().unwrap(), "100");
    let mut acl = redis::cmd("ACL");
    let () =
        acl.arg("SETUSER").arg("default").arg("+del").query_async(&mut operator).await.unwrap();
    store.update(&["a", "b"], moved).await.unwrap();
    assert_eq!(store.read("a").await.unwrap().unwrap(), "90");
    assert_eq!(store.read("b").await.unwrap(), None);
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_change_of_nothing_costs_no_connection() {
    let redis = Redis::start().await;
    let store = store(&redis);
    store.read("n").await.unwrap();
    let before = store.shared.link.number();
    assert_eq!(store.update(&[], |_| Ok(7_u32)).await.unwrap(), 7);
    assert_eq!(store.shared.link.number(), before);
}
