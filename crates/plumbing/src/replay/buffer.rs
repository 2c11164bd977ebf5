//! Limits of the memory for recorded requests.

use crate::sync::{AtomicUsize, Ordering};
use std::sync::Arc;

/// The memory for recorded requests, per call and for all calls together; shared by its clones. Of
/// all calls together, unary requests of at most 512 bytes are not counted.
#[derive(Clone, Debug)]
pub struct ReplayBuffer {
    pub(super) per_call: usize,
    per_channel: usize,
    used: Arc<AtomicUsize>,
}

/// Bytes that count until they are dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    bytes: usize,
    buffer: ReplayBuffer,
}

// === impl ReplayBuffer ===

impl ReplayBuffer {
    /// Keeps at most `per_call` bytes of one request, and `per_channel` bytes of all of them.
    pub fn new(per_call: usize, per_channel: usize) -> Self {
        Self { per_call, per_channel, used: Arc::default() }
    }

    /// How many bytes are kept now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

impl PartialEq for ReplayBuffer {
    /// Clones are equal, as they are one buffer, and no others.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.used, &other.used)
    }
}

impl Default for ReplayBuffer {
    /// 256 KiB a call, as gRPC's C++ and Go clients do; 16 MiB in all, as its Java client does.
    fn default() -> Self {
        Self::new(256 * 1024, 16 * 1024 * 1024)
    }
}

// === impl Reservation ===

impl Reservation {
    pub(super) fn new(buffer: &ReplayBuffer) -> Self {
        Self { bytes: 0, buffer: buffer.clone() }
    }

    /// Reserves `bytes` more, unless they do not fit.
    pub(super) fn add(&mut self, bytes: usize) -> bool {
        let ReplayBuffer { per_call, per_channel, ref used } = self.buffer;
        if self.bytes + bytes > per_call {
            return false;
        }
        // Bytes that do not fit are never counted, or they would displace others that fit.
        let more = |used: usize| used.checked_add(bytes).filter(|used| *used <= per_channel);
        if used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
            return false;
        }
        self.bytes += bytes;
        true
    }

    pub(super) fn free(&mut self) {
        self.buffer.used.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bytes = 0;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.free();
    }
}
