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

#[cfg(test)]
mod tests {
    use super::*;
    use Criticality::{Critical, CriticalPlus, Sheddable, SheddablePlus};
    use std::time::Duration;

    const MS: Duration = Duration::from_millis(1);

    /// At most 10, each for at most 100 ms, or 5 ms where it has not been empty for 100 ms.
    fn queue() -> Queue {
        Queue { capacity: 10, ..Queue::default() }
    }

    /// The next of them with a limit of 1, by number, and how many waited for too long.
    fn next(waiting: &mut Waiting<()>, now: Instant) -> (Option<u64>, u64) {
        let (next, expired) = waiting.next(&queue(), 1, now);
        (next.map(|waiter| waiter.number), expired)
    }

    /// Has given as many places as make a queue that does not empty an overloaded one: 5 for the
    /// one place, and 10.
    fn given(places: u64, now: Instant) -> Waiting<()> {
        let mut waiting = Waiting::new(now);
        (0..2).for_each(|_| _ = waiting.join(Critical, now));
        for _ in 0..places {
            assert!(next(&mut waiting, now).0.is_some());
            _ = waiting.join(Critical, now);
        }
        waiting
    }

    #[test]
    fn the_most_critical_is_next_and_of_those_the_one_that_has_waited_longest() {
        let now = Instant::now();
        let mut waiting = Waiting::new(now);
        for class in [SheddablePlus, Critical, Sheddable, CriticalPlus, Critical] {
            _ = waiting.join(class, now);
        }
        let order: Vec<_> = (0..6).map(|_| next(&mut waiting, now)).collect();
        let given = |number| (Some(number), 0);
        assert_eq!(order, [given(3), given(1), given(4), given(0), given(2), (None, 0)]);
    }

    #[test]
    fn a_call_that_has_waited_for_longer_than_the_longest_is_refused_in_each_class() {
        let now = Instant::now();
        let mut waiting = Waiting::new(now);
        _ = waiting.join(Sheddable, now);
        _ = waiting.join(Critical, now);
        _ = waiting.join(Critical, now);
        _ = waiting.join(Critical, now + MS);
        assert_eq!(next(&mut waiting, now + 101 * MS), (Some(3), 3));
        _ = waiting.join(Critical, now);
        assert_eq!(next(&mut waiting, now + 100 * MS), (Some(4), 0), "not longer");
    }

    #[test]
    fn an_overloaded_queue_admits_the_newest_and_refuses_what_has_waited_for_longer_than_5_ms() {
        let began = Instant::now();
        let mut waiting = given(15, began);
        // Two wait since it began: 15 and 16.
        let now = began + 101 * MS;
        _ = waiting.join(Critical, now - 6 * MS);
        _ = waiting.join(Critical, now - 5 * MS);
        _ = waiting.join(Critical, now);
        assert_eq!(next(&mut waiting, now), (Some(19), 3), "two too long, one beyond the target");
        assert_eq!(waiting.len(), 1);
        assert_eq!(next(&mut waiting, now + 50 * MS), (Some(18), 0), "better than none");
    }

    #[test]
    fn a_queue_is_overloaded_after_more_than_its_interval_and_each_place_has_been_given_often() {
        let began = Instant::now();
        for (places, since, is_overloaded) in [(15, 101, true), (14, 101, false), (15, 100, false)]
        {
            let now = began + since * MS;
            let mut waiting = given(places, began);
            _ = waiting.join(Critical, now - 4 * MS);
            let newest = waiting.join(Critical, now).0;
            let (number, _) = next(&mut waiting, now);
            assert_eq!(number == Some(newest), is_overloaded, "{places}, {since}");
        }
        // With a limit of 3, 25 of them.
        for (places, is_overloaded) in [(25, true), (24, false)] {
            let now = began + 101 * MS;
            let mut waiting = given(places, began);
            _ = waiting.join(Critical, now);
            let newest = waiting.join(Critical, now).0;
            let (waiter, _) = waiting.next(&queue(), 3, now);
            assert_eq!(waiter.map(|it| it.number) == Some(newest), is_overloaded, "{places}");
        }
    }

    #[test]
    fn a_queue_that_was_empty_is_not_overloaded() {
        let began = Instant::now();
        let mut waiting = given(15, began);
        let now = began + 101 * MS;
        assert_eq!(next(&mut waiting, began).0, Some(15));
        assert_eq!(next(&mut waiting, began).0, Some(16));
        assert_eq!(next(&mut waiting, began), (None, 0));
        _ = waiting.join(Critical, now);
        _ = waiting.join(Critical, now);
        assert_eq!(next(&mut waiting, now).0, Some(17), "the oldest");
    }

    #[test]
    fn a_full_queue_has_room_for_what_is_more_critical_than_the_newest_of_the_least_critical() {
        let now = Instant::now();
        let mut waiting = Waiting::<()>::new(now);
        for class in [Sheddable, Sheddable, SheddablePlus] {
            _ = waiting.join(class, now);
        }
        assert_eq!(waiting.make_room(4, Sheddable), Some(0), "there is room");
        assert_eq!(waiting.make_room(3, Sheddable), None);
        assert_eq!(waiting.make_room(3, Critical), Some(1));
        assert!(!waiting.remove(Sheddable, 1), "it was refused");
        assert!(waiting.remove(Sheddable, 0) && !waiting.remove(Sheddable, 0));
        assert!(!waiting.remove(Critical, 2) && waiting.remove(SheddablePlus, 2));
        assert_eq!(waiting.len(), 0);
    }
}
