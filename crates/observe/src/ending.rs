//! How a call or an attempt has ended.

use cinchona_core::{Stage, Verdict};
use std::error::Error;

/// How a call or an attempt has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ending<'a> {
    /// According to its response.
    Verdict(Verdict),
    Failed(Verdict, &'a (dyn Error + 'static)),
    Dropped,
}

// === impl Ending ===

impl Ending<'_> {
    /// Whether the request may have left this client.
    pub(crate) const fn has_left(&self) -> bool {
        let verdict = match self {
            Self::Verdict(verdict) | Self::Failed(verdict, _) => verdict,
            Self::Dropped => return true,
        };
        !matches!(verdict, Verdict::NotProcessed(Stage::NoConnection | Stage::NotWritten))
    }
}
