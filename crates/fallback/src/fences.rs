//! The calls that began too early for their answers to be kept.

use hashlink::LinkedHashMap;

/// For requests without a kept answer: the first call whose answer may be kept, in the order in
/// which calls begin.
///
/// Answers do not arrive in the order of their calls: one that was in flight when the application
/// refused, or gave a newer one, is too late. Requests are identified by a hash: on a collision, an
/// answer is not kept that could have been.
#[derive(Debug, Default)]
pub(crate) struct Fences {
    /// In the order in which they were raised.
    by_question: LinkedHashMap<u64, u64>,
    /// For all other requests.
    floor: u64,
}

/// Dropping a fence beyond these raises the floor instead: so memory is bounded (about 200 KiB),
/// and among many such requests a slow call's answer is not kept.
const MOST: usize = 4096;

// === impl Fences ===

impl Fences {
    /// The first call whose answer to `question` may be kept.
    pub(crate) fn of(&self, question: u64) -> u64 {
        self.by_question.get(&question).copied().unwrap_or(0).max(self.floor)
    }

    /// Rejects the answers to `question` of calls before `first`.
    pub(crate) fn raise(&mut self, question: u64, first: u64) {
        let first = first.max(self.of(question));
        self.by_question.insert(question, first);
        if self.by_question.len() > MOST
            && let Some((_, forgotten)) = self.by_question.pop_front()
        {
            self.floor = self.floor.max(forgotten);
        }
    }

    /// Rejects the answers of all calls before `first`.
    pub(crate) fn raise_all(&mut self, first: u64) {
        self.by_question.clear();
        self.floor = first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_is_never_lowered_even_when_it_is_dropped() {
        let mut fences = Fences::default();
        fences.raise(7, 5);
        fences.raise(7, 3);
        assert_eq!((fences.of(7), fences.of(8)), (5, 0));
        (100..100 + MOST as u64).for_each(|question| fences.raise(question, 9));
        assert_eq!((fences.of(7), fences.of(8), fences.of(100)), (5, 5, 9));
        assert_eq!(fences.by_question.len(), MOST);
        fences.raise_all(20);
        assert_eq!((fences.of(100), fences.of(8)), (20, 20));
    }
}
