//! The state of a switch, in one word.

use super::mode::Mode;
use crate::sync::{AtomicU64, Ordering};

/// The mode in the lowest two bits, and how often it was turned off in the others.
#[derive(Debug, Default)]
pub(super) struct Word(AtomicU64);

const MODE: u64 = 0b11;
const ONCE_OFF: u64 = MODE + 1;

// === impl Word ===

impl Word {
    pub(super) fn mode(&self) -> Mode {
        match self.0.load(Ordering::Relaxed) & MODE {
            0 => Mode::Enforce,
            1 => Mode::Shadow,
            _ => Mode::Off,
        }
    }

    pub(super) fn set(&self, mode: Mode) {
        let turned = |word: u64| {
            let is_turned_off = mode == Mode::Off && word & MODE != Mode::Off as u64;
            let word = if is_turned_off { word.wrapping_add(ONCE_OFF) } else { word };
            Some(word & !MODE | mode as u64)
        };
        // It cannot fail: there is always a next word.
        _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, turned);
    }

    pub(super) fn times_off(&self) -> u64 {
        self.0.load(Ordering::Relaxed) >> MODE.count_ones()
    }
}
