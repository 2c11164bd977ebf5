//! At-most-once, code by code.

use super::*;
use cinchona_plumbing::status::not_begun;

/// The table in the crate's documentation: for each code, whether its answer is kept, at most once
/// and at least once.
fn table() -> Vec<(Code, [bool; 2])> {
    let documented = include_str!("../lib.rs").lines();
    let rows = documented.filter_map(|line| line.strip_prefix("//! | `"));
    let rows = rows.map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
    rows.filter(|cells| cells[1].starts_with("kept") || cells[1].starts_with("executed"))
        .flat_map(|cells| {
            let kept = [1, 2].map(|at: usize| cells[at].starts_with("kept"));
            let codes = cells[0].split(", ").map(|name| name.trim_matches('`').to_owned());
            codes
                .map(move |name| (cinchona_plumbing::code::from_name(&name).unwrap(), kept))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Whether an answer with `code` is kept, after an effect.
async fn is_kept(layer: DedupLayer<MemoryStore>, answer: impl Fn() -> Status) -> bool {
    let executed = AtomicU32::new(0);
    let executed = Arc::new(executed);
    let (count, first) = (executed.clone(), answer());
    let service = service_fn(move |_: Request<Body>| {
        let n = count.fetch_add(1, Ordering::Relaxed);
        let first = first.clone();
        async move {
            Ok::<_, std::convert::Infallible>(match (n, first.code()) {
                (0, Code::Ok) => super::answer(n),
                (0, _) => first.into_http(),
                _ => super::answer(n),
            })
        }
    });
    let service = layer.layer(service);
    let first = ask(&service, pay("k")).await;
    assert!(!first.headers().contains_key("idempotency-not-begun"), "a mark is not sent");
    assert_eq!(status(&first).code(), answer().code());
    let second = ask(&service, pay("k")).await;
    let executed = executed.load(Ordering::Relaxed);
    assert_eq!(is_replay(&second), executed == 1);
    executed == 1
}

// catalogue: S-F11
#[tokio::test(start_paused = true)]
async fn each_code_is_kept_or_executed_again_as_the_table_says() {
    let table = table();
    assert_eq!(table.len(), 17, "every code is in the table, once");
    for (code, kept) in table {
        for (guarantee, kept) in
            [Guarantee::AtMostOnce, Guarantee::AtLeastOnce].into_iter().zip(kept)
        {
            let layer = settings().with_guarantee(guarantee).layer(MemoryStore::new());
            let answer = || Status::new(code, "said");
            assert_eq!(is_kept(layer.clone(), answer).await, kept, "{code:?} {guarantee:?}");
            let unknown = [
                Code::Internal,
                Code::Unknown,
                Code::DataLoss,
                Code::DeadlineExceeded,
                Code::Cancelled,
            ];
            assert_eq!(layer.counters().ambiguous, u64::from(unknown.contains(&code)), "{code:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn at_most_once_repeats_no_effect_whatever_the_code() {
    for code in cinchona_plumbing::code::all() {
        assert!(is_kept(dedup(), || Status::new(code, "said")).await, "{code:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_marked_as_not_begun_is_executed_again() {
    for code in cinchona_plumbing::code::all().filter(|code| *code != Code::Ok) {
        for guarantee in [Guarantee::AtMostOnce, Guarantee::AtLeastOnce] {
            let settings = || settings().with_guarantee(guarantee);
            let marked = || not_begun(Status::new(code, "said"));
            assert!(!is_kept(settings().layer(MemoryStore::new()), marked).await, "{code:?}");
            let released = settings().with_released([code]).unwrap().layer(MemoryStore::new());
            assert!(!is_kept(released, || Status::new(code, "said")).await, "{code:?}");
        }
        // The mark of another server, which was forwarded.
        let passed_on = || {
            let mut status = Status::new(code, "said");
            status.metadata_mut().insert("idempotency-not-begun", "true".parse().unwrap());
            status
        };
        assert!(is_kept(dedup(), passed_on).await, "{code:?}");
    }
    assert!(
        is_kept(
            settings().with_released([Code::Aborted]).unwrap().layer(MemoryStore::new()),
            || { Status::unavailable("another code") }
        )
        .await
    );
    assert_eq!(settings().with_released([Code::Ok]).unwrap_err().field(), "released");
}
