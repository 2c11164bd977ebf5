//! The behaviour of a full store.

use super::*;
use cinchona_testkit::Logs;
use proptest::prelude::*;

fn by(user: &str, key: &str) -> Request<Body> {
    let mut request = pay(key);
    request.headers_mut().insert("authorization", user.parse().unwrap());
    request
}

// catalogue: S-E9
#[tokio::test(start_paused = true)]
async fn other_keys_do_not_make_an_effect_happen_twice_and_evictions_are_logged() {
    let logs = Logs::of("cinchona_idempotency");
    let (bank, executed) = bank(Duration::ZERO, &[]);
    let store = MemoryStore::new().with_caps(1000, 1 << 30).unwrap();
    let layer = DedupLayer::new(store.clone(), methods());
    let service = layer.layer(bank);
    ask(&service, pay("first")).await;
    for n in 0..1001 {
        ask(&service, pay(&n.to_string())).await;
    }
    let refused = status(&ask(&service, pay("first")).await);
    assert_eq!(
        (refused.code(), &*reason(&refused)),
        (Code::FailedPrecondition, "IDEMPOTENCY_RECORD_EVICTED")
    );
    assert_eq!(executed.load(Ordering::Relaxed), 1002);
    let DedupCounters { evicted, refused_evicted, .. } = layer.counters();
    assert_eq!((evicted, refused_evicted, store.evicted()), (2, 1, 2));
    let logged: Vec<_> =
        logs.events().into_iter().filter(|event| event.message.contains("is full")).collect();
    assert_eq!(logged.len(), 2, "at 1 and at 2: {logged:?}");
    sleep(301 * SECOND).await;
    assert_eq!(status(&ask(&service, pay("first")).await).code(), Code::Ok, "in its time");
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_one_caller_evicts_its_own_records() {
    let (bank, executed) = bank(Duration::ZERO, &[]);
    let store = MemoryStore::new().with_caps(100, 1 << 30).unwrap();
    let service = DedupLayer::new(store.clone(), methods()).layer(bank);
    for n in 0..20 {
        ask(&service, by("alice", &n.to_string())).await;
        ask(&service, by(&format!("one-{n}"), "k")).await;
    }
    for n in 0..400 {
        ask(&service, by("mallory", &n.to_string())).await;
    }
    for n in 0..20 {
        assert!(is_replay(&ask(&service, by("alice", &n.to_string())).await), "{n}");
        assert!(is_replay(&ask(&service, by(&format!("one-{n}"), "k")).await), "{n}");
    }
    let executed = executed.load(Ordering::Relaxed);
    assert_eq!((store.entries(), store.evicted(), executed), (100, 340, 440));
}

#[tokio::test(start_paused = true)]
async fn a_new_caller_takes_from_the_caller_with_the_most() {
    let (bank, _) = bank(Duration::ZERO, &[]);
    let store = MemoryStore::new().with_caps(100, 1 << 30).unwrap();
    let service = DedupLayer::new(store, methods()).layer(bank);
    for n in 0..10 {
        ask(&service, by("alice", &n.to_string())).await;
    }
    for n in 0..90 {
        ask(&service, by("bob", &n.to_string())).await;
    }
    for n in 0..10 {
        ask(&service, by("carol", &n.to_string())).await;
    }
    for n in 0..10 {
        assert!(is_replay(&ask(&service, by("alice", &n.to_string())).await), "{n}");
        assert!(is_replay(&ask(&service, by("carol", &n.to_string())).await), "{n}");
        let oldest = status(&ask(&service, by("bob", &n.to_string())).await);
        assert_eq!(reason(&oldest), "IDEMPOTENCY_RECORD_EVICTED");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_cannot_be_remembered_is_not_begun() {
    let logs = Logs::of("cinchona_idempotency");
    let (bank, executed) = bank(Duration::ZERO, &[]);
    let store = MemoryStore::new().with_caps(10, 1 << 30).unwrap();
    let layer = DedupLayer::new(store, methods());
    let service = layer.layer(bank);
    let mut refused = 0;
    for n in 0..100 {
        let answered = status(&ask(&service, pay(&n.to_string())).await);
        if answered.code() != Code::Ok {
            assert_eq!(answered.code(), Code::ResourceExhausted);
            assert_eq!(reason(&answered), "IDEMPOTENCY_STORE_FULL");
            refused += 1;
        }
    }
    let executions = executed.load(Ordering::Relaxed);
    assert_eq!((executions, refused, layer.counters().refused_full), (50, 50, 50));
    let logged = logs.events().into_iter().filter(|event| event.message.contains("no room"));
    let logged: Vec<_> = logged.map(|event| event.fields["refused"].clone()).collect();
    assert_eq!(logged, ["1", "2", "4", "8", "16", "32"]);
    for n in 0..100 {
        ask(&service, pay(&n.to_string())).await;
    }
    assert_eq!(executed.load(Ordering::Relaxed), executions, "none twice");
    sleep(301 * SECOND).await;
    assert_eq!(status(&ask(&service, pay("0")).await).code(), Code::Ok);
}

#[tokio::test(start_paused = true)]
async fn a_cache_evicts_silently() {
    let logs = Logs::of("cinchona_idempotency");
    let store = MemoryStore::new().as_cache().with_caps(10, 1 << 30).unwrap();
    for n in 0_u128..100 {
        let key = n.to_be_bytes();
        store.claim(&key, 1, n, SECOND).await.unwrap();
        assert!(store.finish(&key, n, b"answer").await.unwrap());
    }
    let again = store.claim(&0_u128.to_be_bytes(), 1, 200, SECOND).await.unwrap();
    assert!(matches!(again, Claim::Granted { lapsed: false }), "{again:?}");
    assert!(logs.events().is_empty());
}

#[derive(Clone, Debug)]
enum Step {
    Call { caller: u8, key: u8, size: u8 },
    Release { caller: u8, key: u8 },
    Wait(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0_u8..4, any::<u8>(), 0_u8..50)
            .prop_map(|(caller, key, size)| Step::Call { caller, key, size }),
        1 => (0_u8..4, any::<u8>()).prop_map(|(caller, key)| Step::Release { caller, key }),
        1 => (0_u8..200).prop_map(Step::Wait),
    ]
}

/// A record to be stored.
#[derive(Clone, Debug, PartialEq)]
struct Kept {
    key: Vec<u8>,
    caller: u8,
    expires: Instant,
    size: usize,
}

/// A store, and its expected content.
struct Model {
    store: MemoryStore,
    caps: (usize, usize),
    kept: Vec<Kept>,
    evicted: usize,
}

impl Model {
    fn new(entries: usize, bytes: usize) -> Self {
        let store = MemoryStore::new().with_caps(entries, bytes).unwrap().refusing_evicted(false);
        Self { store, caps: (entries, bytes), kept: Vec::new(), evicted: 0 }
    }

    async fn take(&mut self, token: u128, step: Step) -> Result<(), TestCaseError> {
        let stored = |caller, key: u8| key::stored("/Bank/Pay", &key.to_string(), [b'n', caller]);
        match step {
            Step::Wait(seconds) => sleep(u32::from(seconds) * SECOND).await,
            Step::Release { caller, key } => {
                self.store.release(&stored(caller, key), token).await.unwrap();
            }
            Step::Call { caller, key, size } => {
                let key = stored(caller, key);
                let claim = self.store.claim(&key, 1, token, SECOND).await.unwrap();
                if matches!(claim, Claim::Granted { .. }) {
                    self.answer(key, caller, token, size.into()).await?;
                }
            }
        }
        self.kept.retain(|record| record.expires > Instant::now());
        Ok(())
    }

    async fn answer(
        &mut self,
        key: Vec<u8>,
        caller: u8,
        token: u128,
        size: usize,
    ) -> Result<(), TestCaseError> {
        self.kept.retain(|record| record.expires > Instant::now());
        prop_assert!(self.store.finish(&key, token, &vec![0; size]).await.unwrap());
        let before = self.kept.clone();
        let (size, expires) = (key.len() + size, Instant::now() + 300 * SECOND);
        self.kept.push(Kept { key, caller, expires, size });
        let lost = self.lost().await;
        self.kept.retain(|record| !lost.contains(record));
        self.evicted += lost.len();
        let has = |of: u8| before.iter().filter(|record| record.caller == of).count();
        let all: usize = before.iter().map(|record| record.size).sum();
        for Kept { caller: loser, .. } in &lost {
            let has_enough = *loser == caller || 2 * has(*loser) > has(caller);
            prop_assert!(has_enough || all + size > self.caps.1, "{} lost to {}", loser, caller);
        }
        Ok(())
    }

    /// Evicted records that have not expired.
    async fn lost(&self) -> Vec<Kept> {
        let mut lost = Vec::new();
        for record in &self.kept {
            match self.store.claim(&record.key, 1, 0, SECOND).await.unwrap() {
                Claim::Done(_) => {}
                Claim::Granted { .. } => {
                    self.store.release(&record.key, 0).await.unwrap();
                    lost.push(record.clone());
                }
                other => panic!("{other:?}"),
            }
        }
        lost
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let (entries, bytes) = (self.store.entries(), self.store.bytes());
        prop_assert!(entries <= self.caps.0 && bytes <= self.caps.1);
        prop_assert_eq!(entries, self.kept.len());
        prop_assert_eq!(bytes, self.kept.iter().map(|record| record.size).sum::<usize>());
        prop_assert_eq!((self.store.evicted(), self.store.claims()), (self.evicted, 0));
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_promise_is_undone_by_no_neighbour_that_has_more_and_the_gauges_are_true(
        steps in prop::collection::vec(step(), 1..150),
        (entries, bytes) in (1_usize..20, 60_usize..600),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut model = Model::new(entries, bytes);
            for (token, step) in steps.into_iter().enumerate() {
                model.take(token as u128 + 1, step).await?;
                model.check()?;
            }
            let store = model.store;
            sleep(301 * SECOND).await;
            prop_assert_eq!((store.entries(), store.bytes(), store.claims()), (0, 0, 0));
            Ok(())
        })?;
    }
}

// catalogue: S-E15
#[tokio::test(start_paused = true)]
async fn gauges_return_to_zero_wherever_calls_are_dropped() {
    let store = MemoryStore::new();
    let layer = DedupSettings::new(methods()).with_lease(5 * SECOND).unwrap().layer(store.clone());
    for polls in 0..6 {
        let (bank, _) = winding();
        let service = layer.layer(bank);
        let mut calls = Vec::new();
        for n in 0..10 {
            let key = format!("{polls}-{}", n % 3);
            calls.push(Box::pin(service.clone().oneshot(pay(&key))));
        }
        for _ in 0..polls {
            for call in &mut calls {
                let _ = futures_util::FutureExt::now_or_never(call.as_mut());
            }
            tokio::task::yield_now().await;
        }
        drop(calls);
    }
    sleep(10 * SECOND).await;
    assert_eq!(store.claims(), 0);
    sleep(300 * SECOND).await;
    assert_eq!((store.entries(), store.bytes(), store.claims()), (0, 0, 0));
}

#[tokio::test]
async fn a_slow_change_blocks_no_other() {
    // Its own threads: the test is whether one blocks the other.
    let store = MemoryStore::new();
    let (slow, begin) = (store.clone(), Arc::new(std::sync::Barrier::new(2)));
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let (begun, wait) = (begin.clone(), std::sync::Mutex::new(wait));
    let thread = std::thread::spawn(move || {
        let first = std::sync::atomic::AtomicBool::new(true);
        let changed = slow.update(&["n"], move |values| {
            if first.swap(false, Ordering::Relaxed) {
                begun.wait();
                wait.lock().unwrap().recv().unwrap();
            }
            values[0] = Some([values[0].as_deref().unwrap_or_default(), b"s"].concat().into());
            Ok(1_u32)
        });
        futures_util::FutureExt::now_or_never(changed)
    });
    begin.wait();
    // While it is being made.
    let quick = store.update(&["n"], |values| {
        values[0] = Some([values[0].as_deref().unwrap_or_default(), b"q"].concat().into());
        Ok(1_u32)
    });
    assert!(quick.await.is_ok());
    assert_eq!(store.read("n").await.unwrap().as_deref(), Some(&b"q"[..]));
    go_on.send(()).unwrap();
    // It has lost a conflict, and yields before it is repeated.
    assert!(thread.join().unwrap().is_none());
    assert_eq!(store.read("n").await.unwrap().as_deref(), Some(&b"q"[..]));
}

// catalogue: S-E10
#[tokio::test(start_paused = true)]
async fn a_change_that_always_conflicts_gives_up() {
    let store = MemoryStore::new();
    let (other, n) = (store.clone(), AtomicU32::new(0));
    let outrun = store.update(&["n"], move |_| {
        let n = n.fetch_add(1, Ordering::Relaxed);
        let quick = other.update(&["n"], move |values| {
            values[0] = Some(n.to_string().into());
            Ok(1_u32)
        });
        futures_util::FutureExt::now_or_never(quick).unwrap()
    });
    assert_eq!(outrun.await.unwrap_err().code(), Code::Aborted);
}
