//! Which endpoints of a list are connected to where the first possible one is picked.

use super::state::State;
use std::time::Duration;
use tokio::time::Instant;

/// Connects to one endpoint of a list, the first possible one; given the states of all, and the
/// time.
///
/// They are tried in order, each 250 ms after the one before or immediately when that has failed.
/// The first that is ready is used, and the others are disconnected. When it is lost, the list is
/// tried from its start. Once all have failed, all are tried again, each with its own backoff.
#[derive(Clone, Debug, Default)]
pub struct First {
    /// The length of the list.
    count: usize,
    chosen: Option<usize>,
    /// How many are connected beside the chosen one, whose gate is shut.
    beside: usize,
    /// How many are being tried.
    tried: usize,
    /// When the next is tried in parallel.
    turn: Option<Instant>,
}

/// How long one is tried before the next is tried in parallel (RFC 8305's Connection Attempt
/// Delay).
const NEXT: Duration = Duration::from_millis(250);

// === impl First ===

impl First {
    /// The first list, with this length and the place of the chosen endpoint.
    pub fn starts_over(&mut self, count: usize, chosen: Option<usize>) {
        let chosen = chosen.filter(|chosen| *chosen < count);
        *self = Self { count, chosen, ..Self::default() };
    }

    /// A new list of this length, in which some endpoints of the last one remain.
    pub fn goes_on(&mut self, count: usize, chosen: Option<usize>) {
        if chosen.is_some() || self.chosen.is_some() {
            return self.starts_over(count, chosen);
        }
        // Running attempts continue, and the next one keeps its time: otherwise a list that changes
        // more often than that would delay the second forever.
        (self.count, self.tried) = (count, self.tried.min(count));
    }

    /// The gate of the connected endpoint is shut: another one may admit calls.
    pub fn wants_more(&mut self) {
        if self.chosen.is_some() {
            self.beside = (self.beside + 1).min(self.count.saturating_sub(1));
        }
    }

    /// Examines the states of all endpoints of the list; returns when to examine them again.
    pub fn looks(&mut self, states: &[State], now: Instant) -> Option<Instant> {
        let is = |n: usize, state| states.get(n) == Some(&state);
        if self.chosen.is_some_and(|chosen| is(chosen, State::Ready)) {
            return None;
        }
        if self.chosen.is_some() || self.count != states.len() {
            self.starts_over(states.len(), None);
        }
        if let Some(ready) = (0..states.len()).find(|n| self.wants(*n) && is(*n, State::Ready)) {
            self.starts_over(states.len(), Some(ready));
            return None;
        }
        while self.tried < states.len() {
            let has_failed = self.tried == 0 || is(self.tried - 1, State::TransientFailure);
            if !has_failed && self.turn.is_some_and(|turn| now < turn) {
                return self.turn;
            }
            self.tried += 1;
            self.turn = Some(now + NEXT);
            if !is(self.tried - 1, State::TransientFailure) {
                return self.turn.filter(|_| self.tried < states.len());
            }
        }
        None
    }

    /// Whether the endpoint at `place` is to be connected.
    pub fn wants(&self, place: usize) -> bool {
        match self.chosen {
            // The parallel ones begin at the start of the list.
            Some(chosen) => (place + self.count - chosen) % self.count <= self.beside,
            None => place < self.tried,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::State::{Connecting, Idle, Ready, TransientFailure};
    use super::*;
    use proptest::prelude::*;

    fn wanted(first: &First, count: usize) -> Vec<usize> {
        (0..count).filter(|n| first.wants(*n)).collect()
    }

    // catalogue: S-B12
    #[tokio::test(start_paused = true)]
    async fn endpoints_are_tried_in_their_order_and_the_first_that_is_ready_is_kept() {
        let (mut first, now) = (First::default(), Instant::now());
        assert_eq!(first.looks(&[Idle; 3], now), Some(now + NEXT));
        assert_eq!(wanted(&first, 3), [0]);
        assert_eq!(first.looks(&[Connecting, Idle, Idle], now + NEXT), Some(now + 2 * NEXT));
        assert_eq!(wanted(&first, 3), [0, 1], "the first says nothing");
        first.looks(&[Connecting, TransientFailure, Idle], now + NEXT);
        assert_eq!(wanted(&first, 3), [0, 1, 2], "a failure is no wait");
        assert_eq!(first.looks(&[Connecting, TransientFailure, Ready], now + NEXT), None);
        assert_eq!(wanted(&first, 3), [2], "the others are let go");
        assert_eq!(first.looks(&[Idle, Idle, Connecting], now + NEXT), Some(now + 2 * NEXT));
        assert_eq!(wanted(&first, 3), [0], "from the start of the list");
    }

    // catalogue: S-E4
    #[tokio::test(start_paused = true)]
    async fn a_list_that_changes_often_does_not_delay_the_next_endpoint() {
        for each in [1, 100, 249].map(Duration::from_millis) {
            let (mut first, mut now) = (First::default(), Instant::now());
            let began = now;
            first.looks(&[Connecting; 3], now);
            while wanted(&first, 3).len() < 3 {
                now += each;
                first.goes_on(3, None);
                first.looks(&[Connecting; 3], now);
                assert!(now - began <= 2 * (NEXT + each), "{each:?}");
            }
            first.goes_on(2, None);
            first.looks(&[Connecting, Ready], now);
            assert_eq!(wanted(&first, 2), [1]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn once_all_have_failed_all_are_tried() {
        let (mut first, now) = (First::default(), Instant::now());
        assert_eq!(first.looks(&[TransientFailure; 3], now), None);
        assert_eq!(wanted(&first, 3), [0, 1, 2]);
        first.looks(&[TransientFailure, Ready, TransientFailure], now);
        assert_eq!(wanted(&first, 3), [1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_shut_gate_makes_others_connect_beside_it() {
        let (mut first, now) = (First::default(), Instant::now());
        first.looks(&[Idle; 3], now);
        first.looks(&[Idle, Ready, Idle], now + NEXT);
        first.looks(&[Idle, Ready, Idle], now + NEXT);
        assert_eq!(wanted(&first, 3), [1]);
        first.wants_more();
        assert_eq!(wanted(&first, 3), [1, 2]);
        first.wants_more();
        assert_eq!(wanted(&first, 3), [0, 1, 2]);
        first.looks(&[Ready, Ready, Ready], now + NEXT);
        assert!(first.wants(1), "it is sticky");
    }

    proptest! {
        #[test]
        fn one_that_is_ready_is_found_whatever_the_others_are(
            others in prop::collection::vec(0..3_u8, 0..9), place: prop::sample::Index,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let mut states: Vec<State> = others
                    .iter()
                    .map(|n| [Idle, Connecting, TransientFailure][usize::from(*n)])
                    .collect();
                let place = place.index(states.len() + 1);
                states.insert(place, Idle);
                let (mut first, begun) = (First::default(), Instant::now());
                let mut now = begun;
                loop {
                    let next = first.looks(&states, now);
                    if first.wants(place) {
                        states[place] = Ready;
                        first.looks(&states, now);
                    }
                    if first.chosen.is_some() {
                        break;
                    }
                    now = next.unwrap_or(now);
                }
                assert_eq!(first.chosen, Some(place));
                assert!(now <= begun + NEXT * place as u32);
            });
        }
    }
}
