//! Whether this node may accept writes, as read on the path of each call.

use cinchona_plumbing::Reloadable;
use std::borrow::Cow;
use tokio::time::Instant;

/// The permission of this node, shared by its clones without a lock.
#[derive(Clone, Debug)]
pub(crate) struct Quorum(Reloadable<Permission>);

/// Whether writes are accepted, and for how long that holds unless it is set again.
#[derive(Clone, Debug)]
pub(crate) struct Permission {
    refusal: Option<Cow<'static, str>>,
    until: Option<Instant>,
}

// === impl Quorum ===

impl Quorum {
    pub(crate) fn set(&self, permission: Permission) {
        self.0.set(permission);
    }

    /// Why writes are refused; `None` if they are accepted.
    pub(crate) fn refusal(&self, now: Instant) -> Option<Cow<'static, str>> {
        let permission = self.0.get();
        match (&permission.refusal, permission.until) {
            (Some(reason), _) => Some(reason.clone()),
            (None, Some(until)) if now <= until => None,
            (None, _) => Some("this node has not heard its peers lately".into()),
        }
    }
}

impl Default for Quorum {
    fn default() -> Self {
        let refusal = Some("this node has not joined the cluster".into());
        Self(Reloadable::new(Permission { refusal, until: None }))
    }
}

// === impl Permission ===

impl Permission {
    pub(crate) const fn granted(until: Instant) -> Self {
        Self { refusal: None, until: Some(until) }
    }

    pub(crate) const fn refused(reason: Cow<'static, str>) -> Self {
        Self { refusal: Some(reason), until: None }
    }
}
