//! Calls that wait for a place.

use super::{criticality::Criticality, limit::Queue};
use std::collections::VecDeque;
use tokio::{sync::oneshot, time::Instant};

/// The queue before a limit, whose places are `P`.
pub(crate) struct Waiting<P> {
    /// By criticality, the most critical last; within each, the oldest first.
    classes: [VecDeque<Waiter<P>>; Criticality::COUNT],
    /// The last time that a call arrived at an empty queue.
    empty: Instant,
    /// How many places have been given since.
    given: u64,
    /// The number of the next call.
    next: u64,
}

pub(crate) struct Waiter<P> {
    number: u64,
    since: Instant,
    give: oneshot::Sender<P>,
}

/// A queue that has not been empty while each place was given this many times, and
const TURNS: u64 = 5;
/// this many times in all, has more calls than the service can handle.
const GIVEN: u64 = 10;

// === impl Waiting ===

impl<P> Waiting<P> {
    pub(crate) fn new(now: Instant) -> Self {
        Self { classes: Default::default(), empty: now, given: 0, next: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.classes.iter().map(VecDeque::len).sum()
    }

    /// Queues one more call: its number, and the receiver of its place.
    pub(crate) fn join(
        &mut self,
        criticality: Criticality,
        now: Instant,
    ) -> (u64, oneshot::Receiver<P>) {
        if self.len() == 0 {
            (self.empty, self.given) = (now, 0);
        }
        let (give, given) = oneshot::channel();
        let number = self.next;
        self.next += 1;
        self.classes[criticality as usize].push_back(Waiter { number, since: now, give });
        (number, given)
    }

    /// Makes room for a call of this criticality: how many less critical ones were refused for it;
    /// `None` if there is no room.
    pub(crate) fn make_room(&mut self, capacity: u32, criticality: Criticality) -> Option<u64> {
        if self.len() < capacity as usize {
            return Some(0);
        }
        let below = &mut self.classes[..criticality as usize];
        // The newest of the least critical: it has waited for the shortest time.
        below.iter_mut().find_map(VecDeque::pop_back).map(|_| 1)
    }

    /// Whether this one was still waiting.
    pub(crate) fn remove(&mut self, criticality: Criticality, number: u64) -> bool {
        let class = &mut self.classes[criticality as usize];
        let found = class.binary_search_by_key(&number, |waiter| waiter.number);
        found.is_ok_and(|found| class.remove(found).is_some())
    }

    /// The next to be admitted, and how many have waited for too long (dropping them refuses them).
    pub(crate) fn next(
        &mut self,
        queue: &Queue,
        limit: u32,
        now: Instant,
    ) -> (Option<Waiter<P>>, u64) {
        // An overloaded queue does not empty: its oldest calls have likely been abandoned, and the
        // newest are the most useful.
        let turns = TURNS.saturating_mul(limit.into()).saturating_add(GIVEN);
        let is_overloaded =
            self.given >= turns && now.saturating_duration_since(self.empty) > queue.interval;
        self.given += 1;
        let waited = |waiter: &Waiter<P>| now.saturating_duration_since(waiter.since);
        let (mut next, mut expired) = (None, 0);
        for class in self.classes.iter_mut().rev() {
            let mut expire = |class: &mut VecDeque<Waiter<P>>, patience| {
                while class.front().is_some_and(|waiter| waited(waiter) > patience) {
                    class.pop_front();
                    expired += 1;
                }
            };
            expire(class, queue.longest);
            if next.is_none() {
                next = if is_overloaded { class.pop_back() } else { class.pop_front() };
            }
            // Only now: better one that has waited than an unused place.
            if is_overloaded {
                expire(class, queue.target);
            }
        }
        (next, expired)
    }
}

// === impl Waiter ===

impl<P> Waiter<P> {
    /// # Errors
    /// With the permit, if the call waits no longer.
    pub(crate) fn send(self, permit: P) -> Result<(), P> {
        self.give.send(permit)
    }
}
