//! Which calls are too old for their answer to be kept.

use hashlink::LinkedHashMap;

/// For questions of which no answer is kept: the first call whose answer may be, in the order in
/// which calls begin.
///
/// Answers do not come in the order of their calls: one that was under way when the application
/// took it back, or gave a newer one, comes too late. Questions are known by a hash: where two have
/// the same, an answer is not kept that could have been.
#[derive(Debug, Default)]
pub(crate) struct Fences {
    /// From the one that was raised first to the last.
    by_question: LinkedHashMap<u64, u64>,
    /// For all other questions.
    floor: u64,
}

/// What is forgotten beyond these is added to the floor: so memory is bounded (about 200 KiB), and
/// among many such questions a slow call's answer is not kept.
const MOST: usize = 4096;

// === impl Fences ===

impl Fences {
    /// The first call whose answer to `question` may be kept.
    pub(crate) fn of(&self, question: u64) -> u64 {
        self.by_question.get(&question).copied().unwrap_or(0).max(self.floor)
    }

    /// Of the calls that ask `question`, those before `first` come too late.
    pub(crate) fn raise(&mut self, question: u64, first: u64) {
        let first = first.max(self.of(question));
        self.by_question.insert(question, first);
        if self.by_question.len() > MOST
            && let Some((_, forgotten)) = self.by_question.pop_front()
        {
            self.floor = self.floor.max(forgotten);
        }
    }

    /// Of all calls, those before `first` come too late.
    pub(crate) fn raise_all(&mut self, first: u64) {
        self.by_question.clear();
        self.floor = first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_is_never_lowered_not_even_by_being_forgotten() {
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
