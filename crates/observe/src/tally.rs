//! The attempts of one call, counted where they are made.
//!
//! The call's layer lends its tally to the thread for as long as it polls what is below; the layer
//! around the attempts finds it there. So nothing is allocated, and the request stays as it is.
//! What begins at once begins at one time, and ends likewise, so the clock is looked at once.

use std::{cell::Cell, thread::LocalKey, time::Duration};
use tokio::time::Instant;

/// What is known of a call's attempts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    attempts: u32,
    active: u32,
    /// The most previous attempts that one has named.
    previous: u32,
    transparent: u32,
    overlapped: bool,
    idle_since: Option<Instant>,
    delay: Duration,
    /// What the clock showed last in the poll under way, if somebody has looked.
    now: Option<Instant>,
}

/// An attempt among those of its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// From 1.
    pub(crate) number: u32,
    pub(crate) kind: Kind,
    /// How long none was under way before it.
    pub(crate) waited: Duration,
}

/// What an attempt is to its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Original,
    Retry,
    Hedge,
    Transparent,
}

/// Who counts: metrics and spans may watch the same call, each in layers of their own.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Book {
    Metrics,
    Spans,
}

/// Where a tally is lent, in turn.
type Desk = LocalKey<Cell<Option<Tally>>>;

thread_local! {
    static METRICS: Cell<Option<Tally>> = const { Cell::new(None) };
    static SPANS: Cell<Option<Tally>> = const { Cell::new(None) };
}

/// Takes back what was lent, whatever happens: a poll may panic.
struct Lent {
    desk: &'static Desk,
    before: Option<Tally>,
}

// === impl Book ===

impl Book {
    /// An attempt begins in this task, after `previous` others by its own account; when, and its
    /// place, which is `None` where no layer watches the call.
    pub(crate) fn begins(self, previous: u32) -> (Instant, Option<Place>) {
        let begun = self.change(|tally| {
            let now = tally.look();
            (now, Some(tally.begins(previous, now)))
        });
        begun.unwrap_or_else(|| (Instant::now(), None))
    }

    /// An attempt in this task has ended; when.
    pub(crate) fn ends(self) -> Instant {
        let now = Instant::now();
        self.change(|tally| {
            tally.now = Some(now);
            tally.ends(now);
        });
        now
    }

    const fn desk(self) -> &'static Desk {
        match self {
            Self::Metrics => &METRICS,
            Self::Spans => &SPANS,
        }
    }

    fn change<T>(self, change: impl FnOnce(&mut Tally) -> T) -> Option<T> {
        let mut tally = self.desk().get()?;
        let result = change(&mut tally);
        self.desk().set(Some(tally));
        Some(result)
    }
}

// === impl Lent ===

impl Drop for Lent {
    fn drop(&mut self) {
        self.desk.set(self.before);
    }
}

// === impl Kind ===

impl Kind {
    /// As gRPC names it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Original => "original",
            Self::Retry => "retry",
            Self::Hedge => "hedge",
            Self::Transparent => "transparent_retry",
        }
    }
}

// === impl Tally ===

impl Tally {
    /// One of a call that begins `now`.
    pub(crate) fn new(now: Instant) -> Self {
        Self { now: Some(now), ..Self::default() }
    }

    /// Runs `poll`, and counts here the attempts that begin and end in it.
    pub(crate) fn within<T>(&mut self, book: Book, poll: impl FnOnce() -> T) -> T {
        let desk = book.desk();
        let lent = Lent { desk, before: desk.replace(Some(*self)) };
        let result = poll();
        *self = desk.get().unwrap_or(*self);
        drop(lent);
        result
    }

    /// Time has gone by since the last poll.
    pub(crate) const fn wake(&mut self) {
        self.now = None;
    }

    /// The time: what was last seen in the poll under way, in which only layers have worked since.
    pub(crate) fn look(&mut self) -> Instant {
        *self.now.get_or_insert_with(Instant::now)
    }

    fn begins(&mut self, previous: u32, now: Instant) -> Place {
        let kind = if self.attempts == 0 {
            Kind::Original
        } else if previous <= self.previous {
            self.transparent += 1;
            Kind::Transparent
        } else if self.active > 0 || self.overlapped {
            self.overlapped = true;
            Kind::Hedge
        } else {
            Kind::Retry
        };
        self.attempts += 1;
        self.active += 1;
        self.previous = self.previous.max(previous);
        let idle = self.idle_since.take().map(|since| now.saturating_duration_since(since));
        let waited = idle.unwrap_or_default();
        self.delay += waited;
        Place { number: self.attempts, kind, waited }
    }

    fn ends(&mut self, now: Instant) {
        self.active = self.active.saturating_sub(1);
        if self.active == 0 {
            self.idle_since = Some(now);
        }
    }

    pub(crate) const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Those beyond the first that the policy asked for.
    const fn further(&self) -> u32 {
        self.attempts.saturating_sub(1).saturating_sub(self.transparent)
    }

    /// A call has a retry policy or a hedging policy, never both (gRFC A6).
    pub(crate) const fn retries(&self) -> u32 {
        if self.overlapped { 0 } else { self.further() }
    }

    pub(crate) const fn hedges(&self) -> u32 {
        if self.overlapped { self.further() } else { 0 }
    }

    pub(crate) const fn transparent(&self) -> u32 {
        self.transparent
    }

    /// How long none was under way, between two.
    pub(crate) const fn delay(&self) -> Duration {
        self.delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(millis: u64, began: Instant) -> Instant {
        began + Duration::from_millis(millis)
    }

    #[test]
    fn a_retry_counts_itself_and_a_transparent_one_does_not() {
        let now = Instant::now();
        let mut tally = Tally::default();
        let mut kinds = Vec::new();
        for (at, previous) in [(0, 0), (20, 1), (40, 1), (60, 2)] {
            kinds.push(tally.begins(previous, after(at, now)).kind);
            tally.ends(after(at + 5, now));
        }
        assert_eq!(kinds, [Kind::Original, Kind::Retry, Kind::Transparent, Kind::Retry]);
        assert_eq!((tally.retries(), tally.transparent(), tally.hedges()), (2, 1, 0));
        assert_eq!(tally.delay(), Duration::from_millis(45));
    }

    #[test]
    fn attempts_that_overlap_are_hedges() {
        let now = Instant::now();
        let mut tally = Tally::default();
        tally.begins(0, now);
        assert_eq!(tally.begins(1, after(10, now)).kind, Kind::Hedge);
        tally.ends(after(20, now));
        assert_eq!(tally.begins(2, after(30, now)).kind, Kind::Hedge);
        assert_eq!((tally.retries(), tally.hedges()), (0, 2));
        assert_eq!(tally.delay(), Duration::ZERO);
    }

    #[test]
    fn a_call_within_a_call_has_a_tally_of_its_own() {
        let (mut outer, mut inner) = (Tally::default(), Tally::default());
        let (mine, others) = (Book::Metrics, Book::Spans);
        outer.within(mine, || {
            mine.begins(0);
            inner.within(mine, || (mine.begins(0), mine.begins(1)));
            assert_eq!(others.begins(0).1, None, "they do not watch");
        });
        assert_eq!((outer.attempts, inner.attempts), (1, 2));
        assert_eq!(mine.begins(0).1, None, "nobody watches");
    }

    #[test]
    fn a_poll_that_panics_leaves_no_tally_behind() {
        let polled = std::panic::catch_unwind(|| {
            Tally::default().within(Book::Metrics, || panic!("by the handler"));
        });
        assert!(polled.is_err());
        assert_eq!(Book::Metrics.begins(0).1, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_and_its_attempt_that_begin_or_end_at_once_share_a_look_at_the_clock() {
        let began = Instant::now();
        let mut tally = Tally::new(began);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(tally.within(Book::Metrics, || Book::Metrics.begins(0).0), began);
        tally.wake();
        let ended = tally.within(Book::Metrics, || Book::Metrics.ends());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(ended, began + Duration::from_secs(1));
        assert_eq!(tally.look(), ended);
    }
}
