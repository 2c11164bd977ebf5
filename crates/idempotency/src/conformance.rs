//! The laws of every [`Store`] and every [`State`]: run them on your own.
//!
//! A violated law panics. They take about two seconds on a real clock, and work on a paused one
//! too.

use crate::{Claim, Execution, State, Store, fenced, record};
use bytes::Bytes;
use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tonic::{Code, Status};

const LEASE: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(400);

/// Checks all laws of a store. Each law gets a new store, or the same one, empty.
///
/// # Panics
/// When a law is violated.
pub async fn store<T: Store, F: Future<Output = T>>(fresh: impl Fn() -> F) {
    a_key_is_granted_once_and_then_answered(fresh().await).await;
    of_many_claims_at_once_one_is_granted(fresh().await).await;
    a_key_belongs_to_its_request(fresh().await).await;
    a_released_key_is_granted_again(fresh().await).await;
    a_lapsed_claim_passes_on_and_its_token_is_void(fresh().await).await;
    a_waiting_call_is_woken(fresh().await).await;
    any_bytes_are_kept(fresh().await).await;
}

/// Checks all laws of a state; it is also the store of the claims.
///
/// # Panics
/// When a law is violated.
pub async fn state<T: Store + State, F: Future<Output = T>>(fresh: impl Fn() -> F) {
    a_change_is_read_by_the_next(fresh().await).await;
    a_change_that_fails_changes_nothing(fresh().await).await;
    no_change_is_lost_among_many(fresh().await).await;
    an_effect_is_there_with_its_record(fresh().await).await;
    a_call_without_its_claim_changes_nothing(fresh().await).await;
}

#[track_caller]
fn done(claim: Claim) -> Bytes {
    match claim {
        Claim::Done(record) => record,
        other => panic!("not done: {other:?}"),
    }
}

async fn claim<T: Store>(store: &T, key: &[u8], fingerprint: u128, token: u128) -> Claim {
    claim_for(store, key, fingerprint, token, LEASE).await
}

async fn claim_for<T: Store>(
    store: &T,
    key: &[u8],
    fingerprint: u128,
    token: u128,
    lease: Duration,
) -> Claim {
    match store.claim(key, fingerprint, token, lease).await {
        Ok(claim) => claim,
        Err(error) => panic!("claim: {error}"),
    }
}

/// Claims a key without a claim.
async fn grant<T: Store>(store: &T, key: &[u8], token: u128, lease: Duration) {
    match claim_for(store, key, 1, token, lease).await {
        Claim::Granted { lapsed: false } => {}
        other => panic!("not granted: {other:?}"),
    }
}

/// Claims a key whose claim has lapsed.
async fn take_over<T: Store>(store: &T, key: &[u8], token: u128) {
    match claim(store, key, 1, token).await {
        Claim::Granted { lapsed: true } => {}
        other => panic!("a claim whose lease has ended passes on, marked as lapsed: {other:?}"),
    }
}

async fn finish<T: Store>(store: &T, key: &[u8], token: u128, record: &[u8]) -> bool {
    match store.finish(key, token, record).await {
        Ok(kept) => kept,
        Err(error) => panic!("finish: {error}"),
    }
}

async fn a_key_is_granted_once_and_then_answered<T: Store>(store: T) {
    grant(&store, b"once", 1, LEASE).await;
    assert!(matches!(claim(&store, b"once", 1, 2).await, Claim::Busy(_)), "busy");
    assert!(!finish(&store, b"once", 2, b"wrong").await, "only the claim's own token ends it");
    assert!(finish(&store, b"once", 1, b"answer").await, "the record is kept");
    for token in [2, 3] {
        assert_eq!(done(claim(&store, b"once", 1, token).await), "answer");
    }
    assert!(!finish(&store, b"once", 1, b"again").await, "a claim is finished once");
    assert_eq!(done(claim(&store, b"once", 1, 4).await), "answer");
    grant(&store, b"other", 5, LEASE).await;
}

async fn of_many_claims_at_once_one_is_granted<T: Store>(store: T) {
    let mut claims = JoinSet::new();
    for token in 0..100 {
        let store = store.clone();
        claims.spawn(async move { claim(&store, b"race", 1, token).await });
    }
    let claims = claims.join_all().await;
    let granted = claims.iter().filter(|claim| matches!(claim, Claim::Granted { .. })).count();
    let busy = claims.iter().filter(|claim| matches!(claim, Claim::Busy(_))).count();
    assert_eq!((granted, busy), (1, 99));
}

async fn a_key_belongs_to_its_request<T: Store>(store: T) {
    grant(&store, b"mine", 1, LEASE).await;
    assert!(matches!(claim(&store, b"mine", 2, 2).await, Claim::Mismatch), "in flight");
    assert!(finish(&store, b"mine", 1, b"answer").await);
    assert!(matches!(claim(&store, b"mine", 2, 3).await, Claim::Mismatch), "answered");
}

async fn a_released_key_is_granted_again<T: Store>(store: T) {
    grant(&store, b"back", 1, LEASE).await;
    assert!(store.release(b"back", 2).await.is_ok(), "a stranger's release is no error");
    assert!(matches!(claim(&store, b"back", 1, 2).await, Claim::Busy(_)), "and releases nothing");
    assert!(store.release(b"back", 1).await.is_ok());
    grant(&store, b"back", 3, LEASE).await;
    assert!(!finish(&store, b"back", 1, b"late").await, "a released claim has no answer");
    assert!(finish(&store, b"back", 3, b"answer").await);
}

async fn a_lapsed_claim_passes_on_and_its_token_is_void<T: Store>(store: T) {
    grant(&store, b"slow", 1, SHORT).await;
    sleep(2 * SHORT).await;
    take_over(&store, b"slow", 2).await;
    assert!(!finish(&store, b"slow", 1, b"late").await, "a late execution is fenced off");
    assert!(store.release(b"slow", 1).await.is_ok());
    assert!(matches!(claim(&store, b"slow", 1, 3).await, Claim::Busy(_)));
    assert!(finish(&store, b"slow", 2, b"answer").await);
    assert_eq!(done(claim(&store, b"slow", 1, 4).await), "answer");
}

async fn a_waiting_call_is_woken<T: Store>(store: T) {
    grant(&store, b"wait", 1, LEASE).await;
    let waiting = {
        let store = store.clone();
        tokio::spawn(async move {
            loop {
                match claim(&store, b"wait", 1, 2).await {
                    Claim::Busy(wait) => wait.over().await,
                    ended => return done(ended),
                }
            }
        })
    };
    sleep(SHORT / 4).await;
    assert!(finish(&store, b"wait", 1, b"answer").await);
    match timeout(LEASE / 2, waiting).await {
        Ok(Ok(answer)) => assert_eq!(answer, "answer"),
        other => panic!("not woken: {other:?}"),
    }
}

async fn any_bytes_are_kept<T: Store>(store: T) {
    let all: Bytes = (0..=255).cycle().take(100_000).collect();
    for (key, record) in [(&b"\0\xff\r\n"[..], Bytes::new()), (b"k", all)] {
        grant(&store, key, u128::MAX, LEASE).await;
        assert!(store.finish(key, u128::MAX, &record).await.is_ok_and(|kept| kept));
        assert!(done(claim(&store, key, 1, 0).await) == record, "{key:?}");
    }
}

/// Adds 1 to the number called `key`.
fn add_one(values: &mut [Option<Bytes>]) -> Result<u32, Status> {
    let before =
        values[0].as_deref().map_or(Ok(0), |bytes| bytes.try_into().map(u32::from_be_bytes));
    let after = before.map_err(|_| Status::internal("not four bytes"))? + 1;
    values[0] = Some(Bytes::copy_from_slice(&after.to_be_bytes()));
    Ok(after)
}

async fn number<T: State>(state: &T, key: &str) -> Option<u32> {
    let value = state.read(key).await.map(|value| value.map(|bytes| (&bytes[..]).try_into()));
    match value {
        Ok(Some(Ok(bytes))) => Some(u32::from_be_bytes(bytes)),
        Ok(None) => None,
        other => panic!("not a number: {other:?}"),
    }
}

async fn a_change_is_read_by_the_next<T: State>(state: T) {
    assert_eq!(number(&state, "n").await, None);
    assert_eq!(state.update(&["n"], add_one).await.ok(), Some(1));
    assert_eq!(state.update(&["n"], add_one).await.ok(), Some(2));
    assert_eq!(number(&state, "n").await, Some(2));
    let moved = state.update(&["n", "m"], |values| {
        values.swap(0, 1);
        Ok(0_u32)
    });
    assert!(moved.await.is_ok());
    assert_eq!((number(&state, "n").await, number(&state, "m").await), (None, Some(2)));
}

async fn a_change_that_fails_changes_nothing<T: State>(state: T) {
    assert_eq!(state.update(&["n"], add_one).await.ok(), Some(1));
    let refused = state.update(&["n"], |values| {
        values[0] = None;
        Err::<u32, _>(Status::failed_precondition("no"))
    });
    assert_eq!(refused.await.map_err(|status| status.code()), Err(Code::FailedPrecondition));
    assert_eq!(number(&state, "n").await, Some(1));
}

async fn no_change_is_lost_among_many<T: State>(state: T) {
    let mut changes = JoinSet::new();
    let seen = Arc::new(AtomicU32::new(0));
    for _ in 0..50 {
        let (state, seen) = (state.clone(), seen.clone());
        changes.spawn(async move {
            match state.update(&["n"], add_one).await {
                Ok(after) => seen.fetch_max(after, Ordering::Relaxed),
                Err(status) => panic!("{status}"),
            }
        });
    }
    changes.join_all().await;
    assert_eq!((number(&state, "n").await, seen.load(Ordering::Relaxed)), (Some(50), 50));
}

async fn under<F: Future, T: Store>(store: &T, key: &[u8], token: u128, call: F) -> F::Output {
    Arc::new(Execution::new(store.instance(), key.into(), token)).scope(call).await
}

async fn an_effect_is_there_with_its_record<T: Store + State>(store: T) {
    grant(&store, b"call", 1, LEASE).await;
    let (answer, answered) = under(&store, b"call", 1, async {
        let answer = store.update(&["n"], add_one).await;
        (answer.ok(), Execution::current(store.instance()).is_none())
    })
    .await;
    assert_eq!((answer, answered), (Some(1), true));
    assert_eq!(done(claim(&store, b"call", 1, 2).await), record::of_message(&1_u32));
    // A call under a claim of another store is not this store's.
    let elsewhere = Arc::new(Execution::new(0, b"call"[..].into(), 7));
    assert_eq!(elsewhere.scope(store.update(&["n"], add_one)).await.ok(), Some(2));
}

async fn a_call_without_its_claim_changes_nothing<T: Store + State>(store: T) {
    grant(&store, b"call", 1, SHORT).await;
    sleep(2 * SHORT).await;
    take_over(&store, b"call", 2).await;
    let refused = under(&store, b"call", 1, store.update(&["n"], add_one)).await;
    assert_eq!(refused.map_err(|status| status.code()), Err(fenced().code()));
    assert_eq!(number(&store, "n").await, None);
    let answer = under(&store, b"call", 2, store.update(&["n"], add_one)).await;
    assert_eq!(answer.ok(), Some(1));
}
