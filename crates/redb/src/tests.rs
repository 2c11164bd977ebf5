//! The laws of every store, and the content after a crash.

mod faults;

use super::*;
use cinchona_core::Invalid;
use cinchona_idempotency::conformance;
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;

const LEASE: Duration = Duration::from_secs(30);

fn open(dir: &TempDir, options: Options) -> RedbStore {
    RedbStore::open(dir.path().join("calls.redb"), options).unwrap()
}

/// Each store in its own file.
async fn conforms(options: Options) {
    let dir = tempfile::tempdir().unwrap();
    let number = AtomicU32::new(0);
    let fresh = || {
        let name = number.fetch_add(1, Ordering::Relaxed).to_string();
        let store = RedbStore::open(dir.path().join(name), options).unwrap();
        async { store }
    };
    conformance::store(fresh).await;
    conformance::state(fresh).await;
}

#[tokio::test]
async fn the_store_in_a_file_conforms() {
    conforms(Options::default()).await;
}

#[tokio::test]
async fn the_store_in_a_file_conforms_without_durable_claims() {
    conforms(Options { durable_claims: false, ..Options::default() }).await;
}

/// A store that is dropped while a call has begun, opened again.
async fn crashed(options: Options) -> (TempDir, RedbStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir, options);
    store.claim(b"done", 1, 1, LEASE).await.unwrap();
    assert!(store.finish(b"done", 1, b"answer").await.unwrap());
    store.claim(b"begun", 1, 2, LEASE).await.unwrap();
    store.claim(b"given up", 1, 3, LEASE).await.unwrap();
    store.release(b"given up", 3).await.unwrap();
    drop(store);
    let store = open(&dir, options);
    (dir, store)
}

#[tokio::test]
async fn answers_survive_a_crash_and_calls_that_had_begun_have_lapsed() {
    for (durable_claims, expected) in [(true, true), (false, false)] {
        let (_dir, store) = crashed(Options { durable_claims, ..Options::default() }).await;
        let Claim::Done(record) = store.claim(b"done", 1, 4, LEASE).await.unwrap() else {
            panic!("the record is kept");
        };
        assert_eq!(record, "answer");
        assert!(matches!(store.claim(b"done", 2, 5, LEASE).await.unwrap(), Claim::Mismatch));
        for (key, expected) in [(&b"begun"[..], expected), (b"given up", false)] {
            let Claim::Granted { lapsed } = store.claim(key, 1, 6, LEASE).await.unwrap() else {
                panic!("no call waits for a lease of a dead process");
            };
            assert_eq!(lapsed, expected, "{durable_claims}");
        }
    }
}

#[tokio::test]
async fn the_oldest_make_room_and_are_forgotten_or_refused() {
    for refusing_evicted in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir, Options { entries: 10, refusing_evicted, ..Options::default() });
        for n in 0..30_u32 {
            store.claim(&n.to_be_bytes(), 1, n.into(), LEASE).await.unwrap();
            store.finish(&n.to_be_bytes(), n.into(), b"answer").await.unwrap();
        }
        assert_eq!(store.evicted(), 20);
        assert_eq!(store.entries().unwrap(), if refusing_evicted { 30 } else { 10 });
        drop(store);
    }
}

/// Claims and answers the calls of these numbers, if granted.
async fn answer(store: &RedbStore, calls: std::ops::Range<u32>) {
    for n in calls {
        store.claim(&n.to_be_bytes(), 1, n.into(), LEASE).await.unwrap();
        store.finish(&n.to_be_bytes(), n.into(), b"answer").await.unwrap();
    }
}

// catalogue: S-E9
#[tokio::test]
async fn other_calls_undo_no_promise_and_no_call_begins_that_cannot_be_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { entries: 10, ..Options::default() };
    let store = open(&dir, options);
    answer(&store, 0..50).await;
    let asked = async |n: u32| store.claim(&n.to_be_bytes(), 1, 99, LEASE).await.unwrap();
    assert!(matches!(asked(0).await, Claim::Done(_)), "it is still in memory");
    assert!(matches!(asked(49).await, Claim::Done(_)));
    assert!(matches!(asked(50).await, Claim::Full), "it could not be remembered");
    assert_eq!((store.evicted(), Store::evicted(&store)), (40, 40));
    drop(store);
    // Not even after a restart.
    let store = open(&dir, options);
    let asked = async |n: u32| store.claim(&n.to_be_bytes(), 1, 99, LEASE).await.unwrap();
    assert!(matches!(asked(0).await, Claim::Evicted), "and not executed again");
    assert!(matches!(asked(50).await, Claim::Full));
}

// catalogue: S-E9
// real clock: the times in the file are those of the wall.
#[tokio::test]
async fn evicted_calls_are_remembered_only_until_their_records_would_expire() {
    let dir = tempfile::tempdir().unwrap();
    let ttl = Duration::from_millis(250);
    let store = open(&dir, Options { entries: 10, ttl, ..Options::default() });
    for calls in [0..50, 50..100, 100..150] {
        answer(&store, calls).await;
        tokio::time::sleep(2 * ttl).await;
    }
    let granted = store.claim(b"another", 1, 1, LEASE).await.unwrap();
    assert!(matches!(granted, Claim::Granted { lapsed: false }), "{granted:?}");
    assert!(store.entries().unwrap() <= 50, "{:?}", store.entries());
}

#[tokio::test]
async fn bytes_have_a_cap_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { bytes: 1000, refusing_evicted: false, ..Options::default() };
    let store = open(&dir, options);
    for n in 0..30_u32 {
        store.claim(&n.to_be_bytes(), 1, n.into(), LEASE).await.unwrap();
        store.finish(&n.to_be_bytes(), n.into(), &[0; 96]).await.unwrap();
    }
    assert_eq!((store.entries().unwrap(), store.evicted()), (10, 20));
}

// real clock: expiry in the file uses the wall clock.
#[tokio::test]
async fn expired_records_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let ttl = Duration::from_millis(300);
    let store = open(&dir, Options { ttl, ..Options::default() });
    store.claim(b"old", 1, 1, LEASE).await.unwrap();
    store.finish(b"old", 1, b"answer").await.unwrap();
    tokio::time::sleep(2 * ttl).await;
    let again = store.claim(b"old", 2, 2, LEASE).await.unwrap();
    assert!(matches!(again, Claim::Granted { lapsed: false }), "{again:?}");
    assert!(store.finish(b"old", 2, b"another").await.unwrap());
    assert_eq!(store.entries().unwrap(), 1);
}

#[tokio::test]
async fn a_file_keeps_its_domain_wherever_it_is_and_no_other_has_it() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(&dir, Options::default());
    let domain = store.domain().unwrap();
    assert_eq!(store.clone().domain().unwrap(), domain);
    assert_ne!(open(&other, Options::default()).domain().unwrap(), domain, "the same name");
    let path = dir.path().to_str().unwrap().to_owned();
    assert!(path.split('/').all(|part| part.is_empty() || !domain.contains(part)), "{domain}");
    drop(store);
    std::fs::rename(dir.path().join("calls.redb"), other.path().join("moved.redb")).unwrap();
    let moved = RedbStore::open(other.path().join("moved.redb"), Options::default()).unwrap();
    assert_eq!(moved.domain().unwrap(), domain);
    assert_ne!(open(&dir, Options::default()).domain().unwrap(), domain, "it has forgotten");
}

#[tokio::test]
async fn bad_options_and_a_file_in_use_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("calls.redb");
    for (options, field) in [
        (Options { ttl: Duration::ZERO, ..Options::default() }, "ttl"),
        (Options { entries: 0, ..Options::default() }, "entries"),
        (Options { bytes: 0, ..Options::default() }, "bytes"),
    ] {
        let refused = RedbStore::open(&path, options).unwrap_err();
        assert_eq!(refused.downcast_ref::<Invalid>().unwrap().field(), field);
    }
    let _open = open(&dir, Options::default());
    assert!(RedbStore::open(&path, Options::default()).is_err());
}
