//! Those who wait for a place.

use super::{Limiter, Permit};
use crate::{Criticality, Queue};
use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::{
    sync::oneshot::{self, error::RecvError},
    time::Instant,
};

/// The queue before a limit.
pub(super) struct Waiting {
    /// By criticality, the most critical last; in each, the oldest first.
    classes: [VecDeque<Waiter>; Criticality::COUNT],
    /// When nobody waited, the last time that somebody came.
    empty: Instant,
    /// How many places have been given since.
    given: u64,
    /// The number of the next who comes.
    next: u64,
}

pub(super) struct Waiter {
    number: u64,
    since: Instant,
    give: oneshot::Sender<Permit>,
}

/// Waits for a place; whoever drops it waits no longer, and is not counted among those who do.
pub(crate) struct Waits {
    limiter: Arc<Limiter>,
    criticality: Criticality,
    number: u64,
    given: oneshot::Receiver<Permit>,
}

/// A queue that has not been empty while each place was given so many times, and
const TURNS: u64 = 5;
/// so many times in all, is one of more calls than the service can do.
const GIVEN: u64 = 10;

// === impl Waiting ===

impl Waiting {
    pub(super) fn new(now: Instant) -> Self {
        Self { classes: Default::default(), empty: now, given: 0, next: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.classes.iter().map(VecDeque::len).sum()
    }

    /// Lets one more wait.
    pub(super) fn join(
        &mut self,
        limiter: &Arc<Limiter>,
        criticality: Criticality,
        now: Instant,
    ) -> Waits {
        if self.len() == 0 {
            (self.empty, self.given) = (now, 0);
        }
        let (give, given) = oneshot::channel();
        let number = self.next;
        self.next += 1;
        self.classes[criticality as usize].push_back(Waiter { number, since: now, give });
        Waits { limiter: limiter.clone(), criticality, number, given }
    }

    /// Sees to it that one of this criticality can wait: how many were turned away for that, all
    /// of whom matter less; `None` where nobody does.
    pub(super) fn make_room(&mut self, capacity: u32, criticality: Criticality) -> Option<u64> {
        if self.len() < capacity as usize {
            return Some(0);
        }
        let below = &mut self.classes[..criticality as usize];
        // The newest of the least critical: it has waited for the least time.
        below.iter_mut().find_map(VecDeque::pop_back).map(|_| 1)
    }

    /// Whether this one was still waiting.
    pub(super) fn remove(&mut self, criticality: Criticality, number: u64) -> bool {
        let class = &mut self.classes[criticality as usize];
        let found = class.binary_search_by_key(&number, |waiter| waiter.number);
        found.is_ok_and(|found| class.remove(found).is_some())
    }

    /// The next to be let in, and how many have waited for too long (they are turned away by
    /// forgetting them).
    pub(super) fn next(
        &mut self,
        queue: &Queue,
        limit: u32,
        now: Instant,
    ) -> (Option<Waiter>, u64) {
        // Where the queue has not been empty for a while, it will not be: then whoever has waited
        // is likely to have been given up, and the newest has the best chances.
        let turns = TURNS.saturating_mul(limit.into()).saturating_add(GIVEN);
        let is_overloaded =
            self.given >= turns && now.saturating_duration_since(self.empty) > queue.interval;
        self.given += 1;
        let waited = |waiter: &Waiter| now.saturating_duration_since(waiter.since);
        let (mut next, mut expired) = (None, 0);
        for class in self.classes.iter_mut().rev() {
            let mut expire = |class: &mut VecDeque<Waiter>, patience| {
                while class.front().is_some_and(|waiter| waited(waiter) > patience) {
                    class.pop_front();
                    expired += 1;
                }
            };
            expire(class, queue.longest);
            if next.is_none() {
                next = if is_overloaded { class.pop_back() } else { class.pop_front() };
            }
            // Only now: better one who has waited than a place of which nobody has the use.
            if is_overloaded {
                expire(class, queue.target);
            }
        }
        (next, expired)
    }
}

// === impl Waiter ===

impl Waiter {
    /// # Errors
    /// With the permit, where it waits no longer.
    pub(super) fn send(self, permit: Permit) -> Result<(), Permit> {
        self.give.send(permit)
    }
}

// === impl Waits ===

impl Future for Waits {
    type Output = Result<Permit, RecvError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.given).poll(cx)
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        // A place that was given and not taken goes with the channel, to the next.
        self.limiter.forget(self.criticality, self.number);
    }
}
