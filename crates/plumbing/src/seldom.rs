//! Log lines that any client can cause.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    runtime::Handle,
    time::{Instant, sleep_until},
};

/// A rate-limited log line, which others' requests can cause: it is written at most once a second,
/// and after each second one more line has the count of those suppressed.
///
/// *Why:* a log line for each refused request would let any client fill the disk.
///
/// The second line is written by a task of the tokio runtime, or by the next request without a
/// runtime. Clones share the limit.
///
/// ```
/// use cinchona_plumbing::Seldom;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let refused = Seldom::new(|more| println!("refused {more} more"));
/// let written = (0..1000).filter(|_| refused.is_due(tokio::time::Instant::now())).count();
/// assert!(written < 10);
/// # }
/// ```
#[derive(Clone)]
pub struct Seldom(Arc<Line>);

struct Line {
    more: fn(u64),
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    /// How many lines were suppressed since.
    withheld: u64,
}

const EACH: Duration = Duration::from_secs(1);

// === impl Seldom ===

impl Seldom {
    /// A line; `more` writes the count of suppressed ones.
    pub fn new(more: fn(u64)) -> Self {
        Self(Arc::new(Line { more, state: Mutex::default() }))
    }

    /// Whether the line is to be written `now`; otherwise it is counted.
    pub fn is_due(&self, now: Instant) -> bool {
        let mut state = self.0.state();
        // An earlier time is that of another runtime.
        let since = state.last.and_then(|last| now.checked_duration_since(last));
        let Some(since) = since.filter(|since| *since < EACH) else {
            drop(state);
            self.0.tell(now);
            return true;
        };
        state.withheld += 1;
        if state.withheld == 1
            && let Ok(runtime) = Handle::try_current()
        {
            let (line, end) = (self.0.clone(), now + (EACH - since));
            runtime.spawn(async move {
                sleep_until(end).await;
                line.tell(end);
            });
        }
        false
    }
}

impl fmt::Debug for Seldom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.state().fmt(f)
    }
}

// === impl Line ===

impl Line {
    /// Writes the count of suppressed lines, if any.
    fn tell(&self, now: Instant) {
        let mut state = self.state();
        state.last = Some(now);
        let withheld = std::mem::take(&mut state.withheld);
        drop(state);
        if withheld > 0 {
            (self.more)(withheld);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    use tokio::time::{advance, sleep};

    // catalogue: S-E18
    #[tokio::test(start_paused = true)]
    async fn a_line_is_written_once_a_second_and_all_others_are_counted() {
        static REPORTED: AtomicU64 = AtomicU64::new(0);
        static LINES: AtomicU64 = AtomicU64::new(0);
        let line = Seldom::new(|more| {
            REPORTED.fetch_add(more, Relaxed);
            LINES.fetch_add(1, Relaxed);
        });
        let mut written = 0;
        for _ in 0..10_000 {
            written += u64::from(line.is_due(Instant::now()));
            sleep(Duration::from_millis(1)).await;
        }
        sleep(EACH).await;
        assert_eq!(written + REPORTED.load(Relaxed), 10_000, "none is lost");
        assert!(written + LINES.load(Relaxed) <= 21, "{written} {LINES:?}");
        sleep(EACH).await;
        assert!(line.is_due(Instant::now()), "the first is written immediately");
    }

    // catalogue: S-E18
    #[test]
    fn without_a_runtime_the_next_line_reports_those_before() {
        static REPORTED: AtomicU64 = AtomicU64::new(0);
        let line = Seldom::new(|more| _ = REPORTED.fetch_add(more, Relaxed));
        let now = Instant::now();
        assert!(line.is_due(now) && !line.is_due(now) && !line.is_due(now));
        assert!(line.is_due(now + EACH));
        assert_eq!(REPORTED.load(Relaxed), 2);
        assert!(line.is_due(now), "another clock is behind this one");
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_that_ends_is_reported_within_a_second() {
        static REPORTED: AtomicU64 = AtomicU64::new(0);
        let line = Seldom::new(|more| _ = REPORTED.fetch_add(more, Relaxed));
        let written = (0..1000).filter(|_| line.is_due(Instant::now())).count();
        tokio::task::yield_now().await;
        advance(EACH).await;
        sleep(Duration::from_millis(1)).await;
        assert_eq!((written, REPORTED.load(Relaxed)), (1, 999));
    }
}
