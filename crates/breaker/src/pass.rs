//! What a call is given that a circuit lets through.

/// A call that was let through: since which opening, by which method, and as what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pass(u64);

/// So many openings are distinguished.
pub(crate) const EPOCHS: u64 = (1 << 16) - 1;

// === impl Pass ===

impl Pass {
    /// That of no call.
    pub(crate) const NONE: Self = Self(u64::MAX);
    /// It holds a place of those for probes.
    pub(crate) const PROBE: u64 = 1 << 16;
    /// It was let through beside the probes, as its method has not failed.
    pub(crate) const BESIDE: u64 = 1 << 17;
    const METHOD: u32 = 32;

    /// Since this opening.
    pub(crate) const fn since(epoch: u64) -> Self {
        Self(epoch)
    }

    pub(crate) const fn epoch(self) -> u64 {
        self.0 & EPOCHS
    }

    /// Of this method.
    pub(crate) const fn of_method(self, method: u32) -> Self {
        Self(self.0 & ((1 << Self::METHOD) - 1) | (method as u64) << Self::METHOD)
    }

    pub(crate) const fn method(self) -> u32 {
        (self.0 >> Self::METHOD) as u32
    }

    /// Whether the head of its response settles something.
    pub(crate) const fn awaits_head(self) -> bool {
        self.is(Self::PROBE) || self.is(Self::BESIDE)
    }

    pub(crate) const fn with(self, flag: u64) -> Self {
        Self(self.0 | flag)
    }

    pub(crate) const fn is(self, flag: u64) -> bool {
        self.0 & flag != 0
    }

    /// Of a call like any other.
    pub(crate) const fn plain(self) -> Self {
        Self(self.0 & !(Self::PROBE | Self::BESIDE))
    }

    /// As a number, and back.
    pub(crate) const fn number(self) -> u64 {
        self.0
    }

    pub(crate) const fn of(number: u64) -> Self {
        Self(number)
    }
}
