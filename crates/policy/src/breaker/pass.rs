//! The pass of an admitted call.

/// The pass of an admitted call: its opening, its method, and its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass(u64);

/// The number of openings that can be distinguished.
pub(crate) const EPOCHS: u64 = (1 << 16) - 1;

// === impl Pass ===

impl Pass {
    /// The pass of no call.
    pub const NONE: Self = Self(u64::MAX);
    /// It holds one of the places for probes.
    pub(crate) const PROBE: u64 = 1 << 16;
    /// It was admitted beside the probes, as its method has not failed.
    pub(crate) const BESIDE: u64 = 1 << 17;
    const METHOD: u32 = 32;

    /// Its opening.
    #[inline]
    pub(crate) const fn since(epoch: u64) -> Self {
        Self(epoch)
    }

    #[inline]
    pub(crate) const fn epoch(self) -> u64 {
        self.0 & EPOCHS
    }

    /// Its method.
    #[inline]
    pub(crate) const fn of_method(self, method: u32) -> Self {
        Self(self.0 & ((1 << Self::METHOD) - 1) | (method as u64) << Self::METHOD)
    }

    #[inline]
    pub(crate) const fn method(self) -> u32 {
        (self.0 >> Self::METHOD) as u32
    }

    /// Whether the head of its response settles a probe.
    #[inline]
    pub(crate) const fn awaits_head(self) -> bool {
        self.is(Self::PROBE) || self.is(Self::BESIDE)
    }

    #[inline]
    pub(crate) const fn with(self, flag: u64) -> Self {
        Self(self.0 | flag)
    }

    #[inline]
    pub(crate) const fn is(self, flag: u64) -> bool {
        self.0 & flag != 0
    }

    /// An ordinary call.
    #[inline]
    pub(crate) const fn plain(self) -> Self {
        Self(self.0 & !(Self::PROBE | Self::BESIDE))
    }

    /// As a number.
    #[inline]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// That of this number.
    #[inline]
    pub const fn of(number: u64) -> Self {
        Self(number)
    }
}
