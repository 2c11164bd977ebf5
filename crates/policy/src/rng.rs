//! Reproducible randomness.

use rand::{SeedableRng, rngs::SmallRng};
use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// A source of generators, shared by its clones without a lock.
///
/// Each draw takes its own generator, seeded from this source's seed and the number of the draw:
/// the same seed gives the same draws, and no two of them are correlated.
#[derive(Clone, Debug)]
pub struct Rng(Arc<AtomicU64>);

// === impl Rng ===

impl Rng {
    /// Gives the same draws for the same `seed`.
    pub fn seeded(seed: u64) -> Self {
        // Sources with neighbouring seeds must not share states.
        Self(Arc::new(AtomicU64::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))))
    }

    /// Seeded by the operating system.
    pub fn from_os() -> Self {
        Self::seeded(RandomState::new().hash_one(0))
    }

    /// The next generator.
    #[inline]
    pub fn draw(&self) -> SmallRng {
        SmallRng::seed_from_u64(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

impl PartialEq for Rng {
    /// Clones are equal, as they share their draws, and no others.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Rng {}

impl Default for Rng {
    fn default() -> Self {
        Self::from_os()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngExt;

    #[test]
    fn the_same_seed_gives_the_same_draws_through_any_clone() {
        let (a, b) = (Rng::seeded(7), Rng::seeded(7));
        let (one, other) = (a.clone(), b.clone());
        let left: Vec<u64> = [&a, &one, &a].map(|rng| rng.draw().random()).into();
        let right: Vec<u64> = [&other, &b, &b].map(|rng| rng.draw().random()).into();
        assert_eq!(left, right);
        assert_ne!(left[0], left[1]);
    }

    #[test]
    fn draws_are_uniform() {
        let rng = Rng::seeded(1);
        let mean = (0..10_000).map(|_| rng.draw().random::<f64>()).sum::<f64>() / 10_000.0;
        assert!((mean - 0.5).abs() < 0.01, "{mean}");
    }
}
