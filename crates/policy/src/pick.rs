//! Picks the next endpoint.

use crate::Rng;
use rand::RngExt;
use std::sync::atomic::{AtomicU64, Ordering};

/// How endpoints are picked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Picker {
    /// The better of two at random, by latency and calls in flight (power of two choices over peak
    /// EWMA). A slow endpoint is detected with its first slow answer.
    #[default]
    PeakEwma,
    /// The one of two at random that has fewer calls in flight (gRFC A48, with its default of two
    /// choices).
    LeastRequest,
    /// One at random.
    Random,
    /// One after the other.
    RoundRobin,
    /// One after the other, each as often as its weight: by the load that the endpoints report
    /// (gRFC A58, see `Utilization`), or while fewer than two report, by the weights of their
    /// targets.
    WeightedRoundRobin,
    /// The first that can be connected to, in the order of the list; only that is connected, until
    /// it is lost (gRFC A61, A62).
    PickFirst,
}

/// The state of a pick besides the endpoints; never blocks.
#[derive(Debug)]
pub struct Picking {
    picker: Picker,
    turn: AtomicU64,
    rng: Rng,
}

/// The weights of endpoints, in their order: scaled so that the greatest is 65,535.
#[derive(Clone, Debug, Default)]
pub struct Strides(Vec<u16>);

/// What a pick has to know of the endpoints, for one call, now.
pub trait Endpoints {
    /// An endpoint.
    type Endpoint;

    /// Whether a call can be sent to it: it is connected, and not to be left alone.
    fn can_have(&self, endpoint: &Self::Endpoint) -> bool;
    /// Whether no earlier attempt of the call was sent to it.
    fn is_new(&self, endpoint: &Self::Endpoint) -> bool;
    /// Whether its gate would admit the call.
    fn is_open(&self, endpoint: &Self::Endpoint) -> bool;
    /// The calls that it has not answered.
    fn in_flight(&self, endpoint: &Self::Endpoint) -> usize;
    /// What one more call costs there, relative to the others.
    fn cost(&self, endpoint: &Self::Endpoint) -> f64;
}

const MOST: u64 = u16::MAX as u64;

/// How many random picks are tried before the endpoints are searched in order.
const DRAWS: usize = 4;

// === impl Strides ===

impl Strides {
    /// Of these weights; each endpoint gets a call at times, however small its weight is.
    pub fn new(weights: &[f64]) -> Self {
        let greatest = weights.iter().copied().fold(0.0, f64::max);
        let stride = |weight: &f64| ((weight * MOST as f64 / greatest) as u16).max(1);
        Self(weights.iter().map(stride).collect())
    }
}

// === impl Picking ===

impl Picking {
    /// It begins at an endpoint that `rng` says, as not all clients shall begin with the same.
    pub fn new(picker: Picker, rng: Rng) -> Self {
        let turn = AtomicU64::new(rng.draw().random_range(0..1 << 32));
        Self { picker, turn, rng }
    }

    /// An endpoint for a call: one that no earlier attempt has used, if there is one; else any that
    /// is open; else any that can have a call, though its gate is shut.
    ///
    /// `strides` are read by the weighted picker alone, and are as many as the endpoints.
    #[inline]
    pub fn pick<'a, E: Endpoints>(
        &self,
        all: &'a [E::Endpoint],
        strides: &Strides,
        know: &E,
    ) -> Option<&'a E::Endpoint> {
        // Once all have been used, it is picked as for a new call.
        let has_met_all = !all.iter().any(|one| know.is_new(one));
        let open = |one: &E::Endpoint| know.can_have(one) && know.is_open(one);
        let fresh = |one: &E::Endpoint| (has_met_all || know.is_new(one)) && open(one);
        let picked = match self.picker {
            _ if all.len() < 2 => all.first().filter(|one| know.can_have(one)),
            Picker::PickFirst => all.iter().find(|one| fresh(one)),
            Picker::RoundRobin => (0..DRAWS).map(|_| self.in_turn(all)).find(|one| fresh(one)),
            Picker::WeightedRoundRobin => {
                (0..DRAWS).map(|_| self.by_weight(all, strides)).find(|one| fresh(one))
            }
            Picker::Random => {
                let mut rng = self.rng.draw();
                let drawn = (0..DRAWS).map(|_| &all[rng.random_range(0..all.len())]);
                drawn.into_iter().find(|one| fresh(one))
            }
            Picker::LeastRequest => {
                self.better_of_two(all, fresh, |one| know.in_flight(one) as f64)
            }
            Picker::PeakEwma => self.better_of_two(all, fresh, |one| know.cost(one)),
        };
        let untried = || all.iter().find(|one| fresh(one));
        let any = || all.iter().find(|one| open(one));
        let shut = || all.iter().find(|one| know.can_have(one));
        picked.or_else(untried).or_else(any).or_else(shut)
    }

    fn in_turn<'a, T>(&self, all: &'a [T]) -> &'a T {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        &all[(turn % all.len() as u64) as usize]
    }

    /// The static stride scheduler of gRFC A58: each round visits all, and skips an endpoint in as
    /// many rounds as its weight is smaller than the greatest.
    fn by_weight<'a, T>(&self, all: &'a [T], Strides(strides): &Strides) -> &'a T {
        let count = all.len() as u64;
        loop {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            let (round, index) = (turn / count, (turn % count) as usize);
            let stride = strides.get(index).map_or(MOST, |stride| u64::from(*stride));
            // The offset keeps endpoints of the same weight from being skipped in the same round.
            let place = (stride * round + index as u64 * (MOST / 2)) % MOST;
            if place >= MOST - stride {
                return &all[index];
            }
        }
    }

    fn better_of_two<'a, T>(
        &self,
        all: &'a [T],
        fresh: impl Fn(&T) -> bool,
        cost: impl Fn(&T) -> f64,
    ) -> Option<&'a T> {
        let mut rng = self.rng.draw();
        let mut found: Option<usize> = None;
        for _ in 0..2 * DRAWS {
            let index = rng.random_range(0..all.len());
            match found {
                _ if !fresh(&all[index]) => {}
                Some(one) if one == index => {}
                Some(one) => {
                    let is_better = cost(&all[index]) < cost(&all[one]);
                    return Some(&all[if is_better { index } else { one }]);
                }
                None => found = Some(index),
            }
        }
        found.map(|one| &all[one])
    }
}

#[cfg(test)]
mod tests;
