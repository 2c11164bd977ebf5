//! The store in memory: what it says of itself, and what it keeps for how long.

use super::*;
use tokio::time::advance;

const FINGERPRINT: u128 = 9;

async fn claim(store: &MemoryStore, key: &[u8], token: u128) -> Claim {
    store.claim(key, FINGERPRINT, token, SECOND).await.unwrap()
}

/// Answers the calls of these keys, each with six bytes.
async fn answer(store: &MemoryStore, keys: &[&str]) {
    for key in keys {
        let granted = claim(store, key.as_bytes(), 7).await;
        assert!(matches!(granted, Claim::Granted { lapsed: false }), "{granted:?}");
        assert!(store.finish(key.as_bytes(), 7, b"answer").await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_says_what_it_holds() {
    let store = MemoryStore::new();
    let held = || [store.claims(), store.entries(), store.bytes()];
    assert_eq!(held(), [0, 0, 0]);
    for (key, token) in [(b"a", 7), (b"b", 8)] {
        claim(&store, key, token).await;
    }
    assert_eq!(held(), [2, 0, 0]);
    let under = [(b"a", 7), (b"a", 8), (b"c", 7)].map(|(key, token)| store.fingerprint(key, token));
    assert_eq!(under, [Some(FINGERPRINT), None, None]);
    assert!(store.finish(b"a", 7, b"answer").await.unwrap());
    assert_eq!(held(), [1, 1, 7]);
    assert_eq!(store.fingerprint(b"a", 7), None);
    advance(SECOND - Duration::from_millis(1)).await;
    assert_eq!(store.claims(), 1);
    advance(Duration::from_millis(1)).await;
    assert_eq!(store.claims(), 0, "its lease has ended");
    let other = MemoryStore::new();
    assert_eq!(store.clone().instance(), store.instance());
    assert!(![other.instance(), 0, 1].contains(&store.instance()));
}

#[tokio::test(start_paused = true)]
async fn a_record_is_kept_for_as_long_as_was_said_whatever_is_set_after() {
    let store = MemoryStore::new().with_ttl(2 * SECOND).unwrap().with_caps(10, 100).unwrap();
    answer(&store, &["a"]).await;
    advance(2 * SECOND - Duration::from_millis(1)).await;
    assert!(matches!(claim(&store, b"a", 8).await, Claim::Done(said) if said == "answer"));
    advance(Duration::from_millis(1)).await;
    assert_eq!((store.entries(), store.bytes()), (0, 0));
    assert!(matches!(claim(&store, b"a", 8).await, Claim::Granted { lapsed: false }));
}

#[tokio::test(start_paused = true)]
async fn as_many_records_are_kept_as_there_may_be_and_as_many_bytes() {
    // Each of seven bytes.
    for (entries, bytes, kept) in [(2, 1000, 2), (1000, 14, 2), (1000, 13, 1), (3, 14, 2)] {
        let store = MemoryStore::new().with_caps(entries, bytes).unwrap();
        answer(&store, &["a", "b"]).await;
        assert_eq!(store.entries(), kept, "{entries} entries, {bytes} bytes");
        answer(&store, &["c"]).await;
        let all = store.entries();
        assert!(all <= entries && store.bytes() <= bytes, "{all} of {entries} and {bytes} bytes");
        assert_eq!((store.evicted(), Store::evicted(&store)), (3 - all, 3 - all as u64));
    }
    // Also where they are shared among several.
    let entries = 4 * 1024;
    let store = MemoryStore::new().with_caps(entries, 1 << 30).unwrap();
    for n in 0..2 * entries {
        answer(&store, &[&n.to_string()]).await;
    }
    assert!((entries * 3 / 4..=entries).contains(&store.entries()), "{}", store.entries());
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_record_was_evicted_is_refused_or_executed_again_as_was_said() {
    for refuses in [true, false] {
        let store = MemoryStore::new().with_caps(1, 1000).unwrap().refusing_evicted(refuses);
        answer(&store, &["a", "b"]).await;
        assert_eq!((store.entries(), store.evicted()), (1, 1));
        match claim(&store, b"a", 8).await {
            Claim::Evicted => assert!(refuses),
            Claim::Granted { lapsed: false } => assert!(!refuses),
            other => panic!("{other:?}"),
        }
    }
}

/// The caller of a key comes last.
fn key(caller: &str, n: u32) -> String {
    format!("/Bank/Pay\0{n}\0{caller}")
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_record_was_evicted_is_refused_until_that_would_have_expired_in_any_order() {
    let store = MemoryStore::new().with_ttl(10 * SECOND).unwrap().with_caps(3, 1000).unwrap();
    answer(&store, &[&key("a", 0)]).await;
    advance(SECOND).await;
    // The third of them is more than twice as many as the other's one: their first goes.
    answer(&store, &[0, 1, 2].map(|n| key("b", n)).each_ref().map(String::as_str)).await;
    // And now the older one.
    answer(&store, &[&key("c", 0)]).await;
    let evicted = [key("b", 0), key("a", 0)];
    for key in &evicted {
        assert!(matches!(claim(&store, key.as_bytes(), 8).await, Claim::Evicted), "{key}");
    }
    advance(9 * SECOND).await;
    let [b, a] = evicted.map(String::into_bytes);
    assert!(matches!(claim(&store, &b, 8).await, Claim::Evicted), "in a second");
    assert!(matches!(claim(&store, &a, 8).await, Claim::Granted { lapsed: false }));
}

#[tokio::test(start_paused = true)]
async fn one_answer_may_have_most_of_the_bytes_however_many_records_there_may_be() {
    let store = MemoryStore::new().with_caps(1 << 20, 4 << 20).unwrap();
    assert!(matches!(claim(&store, b"k", 7).await, Claim::Granted { lapsed: false }));
    assert!(store.finish(b"k", 7, &vec![0; 3 << 20]).await.unwrap());
    assert_eq!((store.entries(), store.evicted()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn all_records_together_have_no_more_bytes_than_there_may_be() {
    let store = MemoryStore::new().with_caps(1 << 20, 8 << 20).unwrap();
    for n in 0..32_u128 {
        let key = n.to_be_bytes();
        assert!(matches!(claim(&store, &key, n).await, Claim::Granted { lapsed: false }));
        assert!(store.finish(&key, n, &vec![0; 1 << 20]).await.unwrap());
    }
    assert!((4 << 20..=8 << 20).contains(&store.bytes()), "{}", store.bytes());
}

#[tokio::test(start_paused = true)]
async fn evictions_are_logged_each_time_that_their_number_has_doubled() {
    let logs = cinchona_testkit::Logs::of("cinchona_idempotency");
    let store = MemoryStore::new().with_caps(1, 1000).unwrap().refusing_evicted(false);
    let keys: Vec<_> = (0..=20).map(|n| n.to_string()).collect();
    answer(&store, &keys.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let logged: Vec<_> = logs.events().iter().map(|it| it.fields["evicted"].clone()).collect();
    assert_eq!(logged, ["1", "2", "4", "8", "16"]);
}
