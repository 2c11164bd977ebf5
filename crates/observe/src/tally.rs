//! The attempts of one call, counted where they are made.
//!
//! The call's layer lends its tally to the thread for as long as it polls what is below; the layer
//! around the attempts finds it there. So nothing is allocated, and the request stays as it is.
//! What begins at once begins at one time, and ends likewise, so the clock is looked at once.

use std::{cell::Cell, time::Duration};
use tokio::time::Instant;

/// What is known of a call's attempts.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    attempts: u32,
    active: u32,
    /// The most previous attempts that one has named.
    previous: u32,
    transparent: u32,
    overlapped: bool,
    idle_since: Option<Instant>,
    delay: Duration,
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

thread_local! {
    /// Where the tally of the call that is being polled lies.
    static DESK: Cell<Option<Box<Tally>>> = const { Cell::new(None) };

    /// What the clock has shown in the poll under way, in which only layers have worked since.
    static SEEN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// A tally that lies on the desk; it is taken back whatever happens, as a poll may panic.
#[derive(Debug)]
pub(crate) struct Lent<'a> {
    from: &'a mut Option<Box<Tally>>,
    before: Option<Box<Tally>>,
}

/// A poll begins: time has gone by since the last.
#[inline]
pub(crate) fn wake() {
    SEEN.set(None);
}

/// The time, by one look in a poll.
#[inline]
pub(crate) fn look() -> Instant {
    SEEN.get().unwrap_or_else(look_again)
}

#[inline]
fn look_again() -> Instant {
    let now = Instant::now();
    SEEN.set(Some(now));
    now
}

/// What the clock has shown in this poll, if somebody has looked.
#[inline]
pub(crate) fn seen() -> Option<Instant> {
    SEEN.get()
}

/// An attempt begins in this task, after `previous` others by its own account; when, and its place,
/// which is `None` where no layer watches the call.
#[inline]
pub(crate) fn begins(previous: impl FnOnce() -> u32) -> (Instant, Option<Place>) {
    let begun = change(|tally| {
        let now = look();
        // The first has none: nobody has to read it.
        let previous = if tally.attempts == 0 { 0 } else { previous() };
        (now, tally.begins(previous, now))
    });
    begun.map_or_else(|| (Instant::now(), None), |(now, place)| (now, Some(place)))
}

/// An attempt in this task has ended; when.
#[inline]
pub(crate) fn ends() -> Instant {
    let now = look_again();
    change(|tally| tally.ends(now));
    now
}

#[inline]
fn change<T>(change: impl FnOnce(&mut Tally) -> T) -> Option<T> {
    // A thread that is ending polls nothing any more.
    let mut tally = DESK.try_with(Cell::take).ok()??;
    let result = change(&mut tally);
    DESK.set(Some(tally));
    Some(result)
}

// === impl Lent ===

impl<'a> Lent<'a> {
    /// Counts in what is lent the attempts that begin and end in this thread, until it is taken
    /// back.
    #[inline]
    pub(crate) fn new(from: &'a mut Option<Box<Tally>>) -> Self {
        let before = DESK.replace(from.take());
        Self { from, before }
    }
}

impl Drop for Lent<'_> {
    #[inline]
    fn drop(&mut self) {
        *self.from = DESK.replace(self.before.take());
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
        let (mut outer, mut inner) = (Some(Box::default()), Some(Box::default()));
        let lent = Lent::new(&mut outer);
        begins(|| 0);
        let lent_within = Lent::new(&mut inner);
        _ = (begins(|| 0), begins(|| 1));
        drop(lent_within);
        drop(lent);
        let attempts = |tally: Option<Box<Tally>>| tally.unwrap().attempts;
        assert_eq!((attempts(outer), attempts(inner)), (1, 2));
        assert_eq!(begins(|| 0).1, None, "nobody watches");
    }

    #[test]
    fn a_poll_that_panics_leaves_no_tally_behind() {
        let polled = std::panic::catch_unwind(|| {
            let mut tally = Some(Box::default());
            let _lent = Lent::new(&mut tally);
            panic!("by the handler");
        });
        assert!(polled.is_err());
        assert_eq!(begins(|| 0).1, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_and_its_attempt_that_begin_or_end_at_once_share_a_look_at_the_clock() {
        wake();
        let (began, mut tally) = (look(), Some(Box::default()));
        tokio::time::advance(Duration::from_secs(1)).await;
        let lent = Lent::new(&mut tally);
        assert_eq!(begins(|| 0).0, began);
        wake();
        let ended = ends();
        drop(lent);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(ended, began + Duration::from_secs(1));
        assert_eq!(look(), ended);
    }
}
