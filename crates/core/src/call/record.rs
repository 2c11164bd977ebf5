//! The memory of a call's record.

use crate::Attempt;
use http::HeaderValue;
use smallvec::SmallVec;
use std::{
    num::NonZeroU64,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};
use tokio::{task, time::Instant};

#[derive(Debug)]
pub(super) struct Record {
    pub(super) began: Instant,
    lines: Mutex<Lines>,
    /// How many lines there are.
    pub(super) count: AtomicU32,
    /// How often an attempt's timer was polled.
    pub(super) asked: AtomicU32,
}

/// The attempts with their own timers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Timed {
    pub(super) many: u32,
    /// When the first of them ends.
    pub(super) until: Option<Instant>,
    pub(super) task: Option<task::Id>,
}

#[derive(Debug, Default)]
pub(super) struct Lines {
    pub(super) timed: Timed,
    pub(super) attempts: SmallVec<[Attempt; 1]>,
    /// The dedup domain of the first attempt, if known.
    pub(super) domain: Option<Option<HeaderValue>>,
}

// === impl Record ===

impl Record {
    pub(super) fn new(began: Instant) -> Self {
        let (lines, [count, asked]) = (Mutex::default(), [const { AtomicU32::new(0) }; 2]);
        Self { began, lines, count, asked }
    }

    /// Becomes that of another call.
    pub(super) fn renew(&mut self, began: Instant) {
        let lines = self.lines.get_mut().unwrap_or_else(PoisonError::into_inner);
        lines.attempts.clear();
        (lines.timed, lines.domain, self.began) = (Timed::default(), None, began);
        (*self.count.get_mut(), *self.asked.get_mut()) = (0, 0);
    }

    /// Adds an attempt; returns its line.
    #[inline(always)]
    pub(super) fn add(&self, lines: &mut Lines, attempt: Attempt) -> u32 {
        let line = lines.attempts.len() as u32;
        lines.attempts.push(attempt);
        self.count.store(line + 1, Ordering::Relaxed);
        line
    }

    /// Code that holds the lock cannot panic.
    pub(super) fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Lines ===

impl Lines {
    pub(super) fn hosts(&self) -> impl Iterator<Item = NonZeroU64> {
        self.attempts.iter().filter_map(|attempt| attempt.host)
    }
}
