//! Whether this node may accept writes, as read on the path of each call.

use cinchona_plumbing::Reloadable;
use cinchona_policy::cluster::Permission;
use std::borrow::Cow;
use tokio::time::Instant;

/// The permission of this node, shared by its clones without a lock.
#[derive(Clone, Debug)]
pub(crate) struct Quorum(Reloadable<Permission>);

// === impl Quorum ===

impl Quorum {
    pub(crate) fn set(&self, permission: Permission) {
        self.0.set(permission);
    }

    /// Why writes are refused; `None` if they are accepted.
    pub(crate) fn refusal(&self, now: Instant) -> Option<Cow<'static, str>> {
        self.0.get().refusal(now)
    }
}

impl Default for Quorum {
    fn default() -> Self {
        Self(Reloadable::new(Permission::default()))
    }
}
