//! How much a call matters.

/// How much a call matters, in the four classes of Site Reliability Engineering (chapter 21).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Criticality {
    /// It may fail often, and now and then entirely; batch work that can be repeated.
    Sheddable,
    /// It may fail in part.
    SheddablePlus,
    /// Users notice. The default.
    #[default]
    Critical,
    /// The last to be refused.
    CriticalPlus,
}

// === impl Criticality ===

impl Criticality {
    pub(super) const COUNT: usize = 4;
}
