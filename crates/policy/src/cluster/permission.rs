//! Whether a node may accept writes.

use std::borrow::Cow;
use tokio::time::Instant;

/// Whether writes are accepted, and for how long that holds unless it is set again.
#[derive(Clone, Debug)]
pub struct Permission {
    refusal: Option<Cow<'static, str>>,
    until: Option<Instant>,
}

// === impl Permission ===

impl Permission {
    /// Writes are accepted until then.
    pub const fn granted(until: Instant) -> Self {
        Self { refusal: None, until: Some(until) }
    }

    /// They are refused, for this reason.
    pub const fn refused(reason: Cow<'static, str>) -> Self {
        Self { refusal: Some(reason), until: None }
    }

    /// Why writes are refused; `None` if they are accepted.
    pub fn refusal(&self, now: Instant) -> Option<Cow<'static, str>> {
        match (&self.refusal, self.until) {
            (Some(reason), _) => Some(reason.clone()),
            (None, Some(until)) if now <= until => None,
            (None, _) => Some("this node has not heard its peers lately".into()),
        }
    }
}

impl Default for Permission {
    /// That of a node that has seen nothing yet.
    fn default() -> Self {
        Self::refused("this node has not joined the cluster".into())
    }
}
