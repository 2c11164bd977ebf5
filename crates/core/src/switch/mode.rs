//! What a layer does.

/// What a layer does with its decisions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Acts on them.
    #[default]
    Enforce,
    /// Counts them, and acts as if it were not there.
    Shadow,
    /// Passes everything through: makes no decision, changes nothing, counts nothing, keeps
    /// nothing.
    Off,
}
