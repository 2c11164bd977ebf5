//! Logs settings of a policy that never apply, once for each method.

use cinchona_plumbing::code;
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};
use tonic::Code;

/// The methods that a policy would repeat if they were known to be safe; shared by clones.
#[derive(Clone, Debug, Default)]
pub(crate) struct UnsafeToRepeat(Arc<Mutex<HashSet<Box<str>>>>);

/// The number of a proxy's paths is unbounded.
const MOST: usize = 1000;

// === impl UnsafeToRepeat ===

impl UnsafeToRepeat {
    /// Warns, the first time, that a call of the method at `path` was not repeated after `code`.
    pub(crate) fn warn(&self, path: &str, code: Code) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < MOST && !known.contains(path) && known.insert(path.into()) {
            tracing::warn!(
                rpc.method = path,
                code = code::name(code),
                "the policy repeats calls of this method, but nothing says that it may be executed \
                 twice, so they are not repeated: give it `option idempotency_level` in the .proto \
                 and its descriptor set to `Methods`, or say `Methods::all_idempotent()`, or let \
                 its calls carry an `idempotency-key`"
            );
        }
    }
}
