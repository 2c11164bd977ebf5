//! The methods that have failed since the last success.
//!
//! Only they are rejected: a failing method must not make the calls of working ones fail, however
//! rare those are.

use crate::sync::{AtomicU32, Ordering};

/// The methods that have failed since the last success, by their [`hash`].
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Suspects([AtomicU32; MOST]);

/// If more methods than this fail, and none succeeds, all methods are suspects.
pub(crate) const MOST: usize = 16;
const FREE: u32 = 0;
/// No method has an even number.
const ALL: u32 = 2;

// === impl Suspects ===

impl Suspects {
    #[inline]
    pub(crate) fn add(&self, method: u32) {
        for slot in &self.0 {
            match slot.compare_exchange(FREE, method, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(there) if there == method => return,
                Err(_) => {}
            }
        }
    }

    #[inline]
    pub(crate) fn contains(&self, method: u32) -> bool {
        let mut all = self.0.iter().map(|slot| slot.load(Ordering::Relaxed));
        let mut is_full = true;
        all.any(|slot| {
            is_full &= slot != FREE;
            slot == method
        }) || is_full
    }

    /// All methods are suspects from now on.
    pub(crate) fn add_all(&self) {
        self.set(ALL);
    }

    #[inline]
    pub(crate) fn clear(&self) {
        self.set(FREE);
    }

    fn set(&self, all: u32) {
        for slot in &self.0 {
            slot.store(all, Ordering::Relaxed);
        }
    }
}

/// An odd number for the method at `path`. Computed for each call, so the hash is a fast one; two
/// methods with the same number share their failures.
#[inline]
pub fn hash(path: &str) -> u32 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |hash: u64, word: u64| (hash.rotate_left(29) ^ word).wrapping_mul(FACTOR);
    let words = path.as_bytes().chunks(8);
    let word = |bytes: &[u8]| match bytes.try_into() {
        Ok(whole) => u64::from_le_bytes(whole),
        Err(_) => bytes.iter().fold(1, |word, byte| word << 8 | u64::from(*byte)),
    };
    (words.fold(path.len() as u64, |hash, bytes| mix(hash, word(bytes))) >> 32) as u32 | 1
}
