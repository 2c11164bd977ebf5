//! Histories of concurrent calls, and whether one order explains them (linearizability).
//!
//! A history is linearizable (Herlihy and Wing, 1990) if every call can be assigned one instant
//! between its begin and its end, so that the answers are those of the calls made one after another
//! at these instants. The search is that of Wing and Gong (1993), with the memory of Lowe (2017):
//! no set of calls is tried twice from the same state.

use std::{collections::HashSet, fmt, hash::Hash};

/// The object of calls: one key of a store, or a counter.
pub trait Model: Clone + Eq + Hash {
    /// A call of it.
    type Call: fmt::Debug;
    /// What it answers.
    type Answer: fmt::Debug + PartialEq;

    /// Executes the call; returns the expected answer.
    fn apply(&mut self, call: &Self::Call) -> Self::Answer;
}

/// One call of a history. Its instants are of any clock that all of its callers share.
#[derive(Clone, Debug)]
pub struct Operation<C, A> {
    /// What was called.
    pub call: C,
    /// When its caller began it.
    pub began: u64,
    /// When its caller received the answer, and which; `None` without an answer: the call may have
    /// been executed at any later time, or never.
    pub ended: Option<(u64, A)>,
}

/// A history that no order explains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotLinearizable {
    /// The calls, by their index in the history, of one of the longest orders that explain as many
    /// answers as possible.
    pub explained: Vec<usize>,
}

/// The calls of a model.
pub type History<M> = [Operation<<M as Model>::Call, <M as Model>::Answer>];

/// The search through a history. Each step makes one call more.
struct Search<'a, M: Model> {
    history: &'a History<M>,
    /// The answered calls by their begin, and those without an answer.
    answered: Vec<usize>,
    open: Vec<usize>,
    /// The calls made so far, in order.
    made: Vec<usize>,
    is_made: Vec<bool>,
    seen: HashSet<(Vec<usize>, M)>,
    best: Vec<usize>,
}

/// A state, the calls that could be executed in it, and how many of them were tried.
struct Step<M> {
    state: M,
    next: Vec<usize>,
    tried: usize,
    /// All answered calls before this one, by their begin, are executed.
    first: usize,
}

/// An order of all answered calls, by their index in `history`, that explains their answers from
/// `initial` on; it includes calls without an answer where they are needed.
///
/// ```
/// use cinchona_testkit::history::{Model, Operation, linearize};
///
/// #[derive(Clone, PartialEq, Eq, Hash)]
/// struct Counter(u64);
///
/// impl Model for Counter {
///     type Call = u64;
///     type Answer = u64;
///     fn apply(&mut self, by: &u64) -> u64 {
///         self.0 += by;
///         self.0
///     }
/// }
///
/// let add = |began, ended, answer| Operation { call: 1, began, ended: Some((ended, answer)) };
/// // Both ran at once: either may have been the first.
/// assert_eq!(linearize(Counter(0), &[add(0, 5, 2), add(1, 4, 1)]).unwrap(), [1, 0]);
/// // The second began after the first had ended: its answer cannot be the smaller one.
/// assert!(linearize(Counter(0), &[add(0, 1, 2), add(2, 4, 1)]).is_err());
/// ```
///
/// # Errors
/// When there is none.
pub fn linearize<M: Model>(
    initial: M,
    history: &History<M>,
) -> Result<Vec<usize>, NotLinearizable> {
    let by_begin = |is_answered: bool| {
        let places = 0..history.len();
        let mut found: Vec<_> =
            places.filter(|at| history[*at].ended.is_some() == is_answered).collect();
        found.sort_by_key(|at| history[*at].began);
        found
    };
    let mut search = Search {
        history,
        answered: by_begin(true),
        open: by_begin(false),
        made: Vec::new(),
        is_made: vec![false; history.len()],
        seen: HashSet::new(),
        best: Vec::new(),
    };
    if search.explains(initial) {
        Ok(search.made)
    } else {
        Err(NotLinearizable { explained: search.best })
    }
}

// === impl Search ===

impl<M: Model> Search<'_, M> {
    fn explains(&mut self, initial: M) -> bool {
        // No recursion: a history may have many thousands of calls.
        let mut steps: Vec<Step<M>> = self.step(initial, 0).into_iter().collect();
        while let Some(step) = steps.last_mut() {
            if step.first == self.answered.len() {
                return true;
            }
            let Some(at) = step.next.get(step.tried).copied() else {
                steps.pop();
                self.made.pop().into_iter().for_each(|at| self.is_made[at] = false);
                continue;
            };
            step.tried += 1;
            let mut state = step.state.clone();
            let answer = state.apply(&self.history[at].call);
            if self.history[at].ended.as_ref().is_some_and(|(_, had)| *had != answer) {
                continue;
            }
            let first = step.first;
            self.is_made[at] = true;
            self.made.push(at);
            if self.made.len() > self.best.len() {
                self.best.clone_from(&self.made);
            }
            match self.step(state, first) {
                Some(next) => steps.push(next),
                None => self.made.pop().into_iter().for_each(|at| self.is_made[at] = false),
            }
        }
        false
    }

    /// The calls that can be next; `None` if the same calls have led to the same state before.
    fn step(&mut self, state: M, first: usize) -> Option<Step<M>> {
        let left = self.answered[first..].iter().take_while(|at| self.is_made[**at]).count();
        let first = first + left;
        let later = self.answered[first..].iter().copied();
        let mut end = u64::MAX;
        // A call that begins after `end` must follow one that is not executed yet.
        let mut next: Vec<usize> = Vec::new();
        let mut ahead = Vec::from([first]);
        for at in later {
            let Operation { began, ended, .. } = &self.history[at];
            if *began > end {
                break;
            }
            if self.is_made[at] {
                ahead.push(at);
                continue;
            }
            end = ended.as_ref().map_or(end, |(ended, _)| end.min(*ended));
            next.push(at);
        }
        let is_in_time = |at: &usize| self.history[*at].began <= end;
        next.retain(is_in_time);
        let open = self.open.iter().copied().take_while(is_in_time);
        let (made, unmade): (Vec<_>, Vec<_>) = open.partition(|at| self.is_made[*at]);
        next.extend(unmade);
        ahead.extend(made);
        let is_new = self.seen.insert((ahead, state.clone()));
        is_new.then_some(Step { state, next, tried: 0, first })
    }
}

impl fmt::Display for NotLinearizable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let many = self.explained.len();
        write!(f, "no order explains the history; the longest that begins well has {many} calls")
    }
}

impl std::error::Error for NotLinearizable {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A register that can be read, written and counted up.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    struct Register(u8);

    #[derive(Clone, Copy, Debug)]
    enum Call {
        Read,
        Write(u8),
        Add,
    }

    impl Model for Register {
        type Call = Call;
        type Answer = u8;

        fn apply(&mut self, call: &Call) -> u8 {
            match call {
                Call::Read => {}
                Call::Write(value) => self.0 = *value,
                Call::Add => self.0 = self.0.wrapping_add(1),
            }
            self.0
        }
    }

    type Made = Operation<Call, u8>;

    fn op(call: Call, began: u64, ended: u64, answer: u8) -> Made {
        Operation { call, began, ended: Some((ended, answer)) }
    }

    fn unanswered(call: Call, began: u64) -> Made {
        Operation { call, began, ended: None }
    }

    fn holds(history: &[Made]) -> bool {
        linearize(Register::default(), history).is_ok()
    }

    #[test]
    fn wrong_histories_are_refused() {
        for (what, history) in [
            ("a lost write", vec![op(Call::Write(3), 0, 1, 3), op(Call::Read, 2, 3, 0)]),
            ("a read from the future", vec![op(Call::Read, 0, 1, 3), op(Call::Write(3), 2, 3, 3)]),
            ("a count made twice", vec![op(Call::Add, 0, 1, 1), op(Call::Add, 2, 3, 3)]),
            ("a count given twice", vec![op(Call::Add, 0, 9, 1), op(Call::Add, 1, 8, 1)]),
            (
                "reads that go back",
                vec![
                    op(Call::Write(1), 0, 10, 1),
                    op(Call::Read, 1, 2, 1),
                    op(Call::Read, 3, 4, 0),
                ],
            ),
            ("an unanswered call made twice", {
                let reads = [op(Call::Read, 3, 4, 1), op(Call::Read, 5, 6, 2)];
                [vec![unanswered(Call::Add, 0)], reads.to_vec()].concat()
            }),
            ("an unanswered call before it began", {
                vec![op(Call::Read, 0, 1, 1), unanswered(Call::Add, 2)]
            }),
        ] {
            assert!(!holds(&history), "{what}");
        }
    }

    #[test]
    fn an_unanswered_call_may_have_been_made_or_not_and_late() {
        let lost = unanswered(Call::Write(7), 0);
        assert!(holds(&[lost.clone(), op(Call::Read, 1, 2, 0)]));
        assert!(holds(&[lost.clone(), op(Call::Read, 1, 2, 7)]));
        assert!(holds(&[lost, op(Call::Read, 1, 2, 0), op(Call::Read, 3, 4, 7)]));
    }

    #[test]
    fn the_error_reports_the_longest_order() {
        let history = [op(Call::Add, 0, 1, 1), op(Call::Add, 2, 3, 2), op(Call::Add, 4, 5, 9)];
        let refused = linearize(Register::default(), &history).unwrap_err();
        assert_eq!(refused.explained, [0, 1]);
        assert!(refused.to_string().contains("2 calls"), "{refused}");
    }

    fn calls() -> impl Strategy<Value = Vec<(Call, u64, u64, bool)>> {
        let call = prop_oneof![Just(Call::Read), (0_u8..3).prop_map(Call::Write), Just(Call::Add)];
        let one = (call, 0_u64..12, 0_u64..6, proptest::bool::weighted(0.8));
        prop::collection::vec(one, 0..6)
    }

    /// Whether any order does, by trying all of them.
    fn by_hand(history: &[Made], made: &mut Vec<usize>, state: Register) -> bool {
        let left: Vec<_> = (0..history.len()).filter(|at| !made.contains(at)).collect();
        if left.iter().all(|at| history[*at].ended.is_none()) {
            return true;
        }
        left.iter().any(|at| {
            let one = &history[*at];
            let comes_too_early = left.iter().any(|other| {
                history[*other].ended.as_ref().is_some_and(|(ended, _)| *ended < one.began)
            });
            let mut next = state;
            let answer = next.apply(&one.call);
            if comes_too_early || one.ended.as_ref().is_some_and(|(_, had)| *had != answer) {
                return false;
            }
            made.push(*at);
            let found = by_hand(history, made, next);
            made.pop();
            found
        })
    }

    proptest! {
        #[test]
        fn calls_that_were_made_at_one_instant_each_are_explained(calls in calls()) {
            let mut history = Vec::new();
            let mut made: Vec<_> = calls.iter().enumerate().collect();
            made.sort_by_key(|(n, (_, at, ..))| (*at, *n));
            let mut state = Register::default();
            for (_, (call, at, width, is_answered)) in made {
                let answer = state.apply(call);
                // Instants of the calls are apart, so that no two of them are in doubt.
                let (began, ended) = ((10 * at).saturating_sub(*width), 10 * at + width);
                let ended = is_answered.then_some((ended, answer));
                history.push(Operation { call: *call, began, ended });
            }
            prop_assert!(holds(&history));
        }

        #[test]
        fn what_is_said_of_any_history_is_what_all_orders_say(
            calls in calls(), answers in prop::collection::vec(0_u8..4, 6),
        ) {
            let history: Vec<_> = calls.iter().zip(answers).map(|((call, at, width, is), answer)| {
                Operation { call: *call, began: *at, ended: is.then_some((at + width, answer)) }
            }).collect();
            let all = by_hand(&history, &mut Vec::new(), Register::default());
            prop_assert_eq!(holds(&history), all);
        }
    }
}
