//! A panic of the user's code fails one call.

use super::*;
use futures_util::FutureExt;
use std::{convert::Infallible, panic::panic_any, sync::atomic::AtomicBool};

/// The outcome of a call to `service`, where `None` is a panic that propagated.
async fn attempt<S>(service: &S, request: Request<Body>) -> Option<Status>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone,
{
    let call = AssertUnwindSafe(ask(service, request)).catch_unwind();
    call.await.ok().map(|response| status(&response))
}

// catalogue: S-E3
#[tokio::test(start_paused = true)]
async fn a_panic_in_a_change_of_state_costs_one_call() {
    let store = MemoryStore::new();
    let panics = Arc::new(AtomicBool::new(true));
    let (state, flag) = (store.clone(), panics.clone());
    let service = service_fn(move |_: Request<Body>| {
        let (state, flag) = (state.clone(), flag.clone());
        async move {
            let changed = state.update(&["n"], move |values| {
                assert!(!flag.load(Ordering::Relaxed), "out of ink");
                values[0] = Some(Bytes::from_static(b"1"));
                Ok(1_u32)
            });
            Ok::<_, Infallible>(match changed.await {
                Ok(n) => answer(n),
                Err(status) => status.into_http(),
            })
        }
    });
    let layer =
        DedupSettings::new(methods()).with_guarantee(Guarantee::AtLeastOnce).layer(store.clone());
    let service = layer.layer(service);
    for n in 0..10 {
        assert!(attempt(&service, pay(&n.to_string())).await.is_none());
    }
    sleep(SECOND).await;
    assert_eq!((store.read("n").await.unwrap(), store.claims(), store.entries()), (None, 0, 0));
    panics.store(false, Ordering::Relaxed);
    for n in 0..10 {
        let status = attempt(&service, pay(&n.to_string())).await.unwrap();
        assert_eq!(status.code(), Code::Ok);
    }
    assert_eq!(store.read("n").await.unwrap().as_deref(), Some(&b"1"[..]));
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_a_setting_refuses_one_call() {
    let flag = Arc::new(AtomicBool::new(true));
    let panics = |flag: &Arc<AtomicBool>| {
        let flag = flag.clone();
        move || assert!(!flag.load(Ordering::Relaxed), "out of ink")
    };
    let (in_caller, in_ask, in_answer) = (panics(&flag), panics(&flag), panics(&flag));
    for (layer, executions) in [
        (
            settings()
                .with_caller(move |_, _| {
                    in_caller();
                    None
                })
                .layer(MemoryStore::new()),
            1,
        ),
        (
            settings()
                .with_authorize(move |_| {
                    in_ask();
                    async { Ok(()) }
                })
                .layer(MemoryStore::new()),
            2,
        ),
        (
            settings()
                .with_authorize(move |_| {
                    let in_answer = in_answer.clone();
                    async move {
                        in_answer();
                        Ok(())
                    }
                })
                .layer(MemoryStore::new()),
            2,
        ),
    ] {
        let (bank, executed) = bank(Duration::ZERO, &[]);
        let bank = bank.map_err(|error| -> Infallible { panic!("{error}") });
        let service = layer.layer(bank);
        flag.store(false, Ordering::Relaxed);
        if executions == 2 {
            attempt(&service, pay("k")).await.unwrap();
        }
        flag.store(true, Ordering::Relaxed);
        let refused = attempt(&service, pay("k")).await.unwrap();
        assert_eq!(refused.code(), Code::Internal);
        assert!(
            !refused.message().contains("ink"),
            "the panic's message is for the log: {refused}"
        );
        flag.store(false, Ordering::Relaxed);
        for key in ["k", "other"] {
            assert_eq!(attempt(&service, pay(key)).await.unwrap().code(), Code::Ok);
        }
        assert_eq!(executed.load(Ordering::Relaxed), 2);
    }
}

/// A store that panics at a given step.
#[derive(Clone)]
struct Trap(MemoryStore, Arc<AtomicU32>);

impl Trap {
    fn step(&self, step: u32) {
        if self.1.load(Ordering::Relaxed) == step {
            panic_any("trap");
        }
    }
}

impl Store for Trap {
    async fn claim(
        &self,
        key: &[u8],
        of: u128,
        by: u128,
        lease: Duration,
    ) -> Result<Claim, BoxError> {
        self.step(1);
        self.0.claim(key, of, by, lease).await
    }

    async fn finish(&self, key: &[u8], token: u128, record: &[u8]) -> Result<bool, BoxError> {
        self.step(2);
        self.0.finish(key, token, record).await
    }

    async fn release(&self, key: &[u8], token: u128) -> Result<(), BoxError> {
        self.step(3);
        self.0.release(key, token).await
    }

    fn instance(&self) -> usize {
        self.0.instance()
    }
}

#[tokio::test(start_paused = true)]
async fn wherever_handler_or_store_panic_other_calls_go_on_and_the_key_is_settled() {
    for step in 1..=6 {
        let trap = Trap(MemoryStore::new(), Arc::new(AtomicU32::new(step)));
        let (at, executed) = (trap.1.clone(), Arc::new(AtomicU32::new(0)));
        let (place, count) = (at.clone(), executed.clone());
        let service = service_fn(move |_: Request<Body>| {
            let place = place.clone();
            count.fetch_add(1, Ordering::Relaxed);
            let trap = move |step| assert_ne!(place.load(Ordering::Relaxed), step, "trap");
            trap(4);
            async move {
                trap(5);
                sleep(SECOND / 10).await;
                trap(6);
                Ok::<_, Infallible>(answer(0))
            }
        });
        let layer =
            DedupSettings::new(methods()).with_lease(5 * SECOND).unwrap().layer(trap.clone());
        let service = layer.layer(service);
        let begun = Instant::now();
        let mut calls = JoinSet::new();
        for _ in 0..3 {
            let service = service.clone();
            calls.spawn(async move { attempt(&service, pay("k")).await });
        }
        sleep(SECOND / 2).await;
        at.store(0, Ordering::Relaxed);
        let other = attempt(&service, pay("other")).await.unwrap();
        assert_eq!(other.code(), Code::Ok, "{step}");
        let _ = calls.join_all().await;
        assert!(Instant::now() - begun < 10 * SECOND, "{step}: waiting calls are answered");
        attempt(&service, pay("k")).await.unwrap();
        assert!(executed.load(Ordering::Relaxed) <= 2, "{step}: at most once");
        sleep(10 * SECOND).await;
        assert_eq!(trap.0.claims(), 0, "{step}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_execution_that_goes_on_alone_may_panic_as_well() {
    let (layer, executed) = (dedup(), Arc::new(AtomicU32::new(0)));
    let count = executed.clone();
    let service = service_fn(move |_: Request<Body>| {
        let n = count.fetch_add(1, Ordering::Relaxed);
        async move {
            sleep(SECOND).await;
            assert!(n > 0, "out of paper");
            Ok::<_, Infallible>(answer(n))
        }
    });
    let service = layer.layer(service);
    let given_up = tokio::time::timeout(SECOND / 2, ask(&service, pay("k")));
    assert!(given_up.await.is_err());
    let retry = attempt(&service, pay("k")).await.unwrap();
    assert_eq!(reason(&retry), "IDEMPOTENCY_OUTCOME_UNKNOWN");
    assert_eq!(executed.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_panicking_id_function_is_replaced_by_uuids() {
    let layer = IdempotencyKeySettings::new(methods()).with_ids(|| panic!("out of ids")).layer();
    let service = service_fn(|request: Request<()>| {
        std::future::ready(Ok::<_, Infallible>(request.headers().contains_key(IDEMPOTENCY_KEY)))
    });
    let request = Request::post("/Bank/Pay").body(()).unwrap();
    assert!(layer.layer(service).oneshot(request).await.unwrap());
}
