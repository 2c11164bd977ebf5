//! What a config has been used for.

use crate::warning::Warning;
use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// What a config has been used for. It is not part of the config's content: all values are equal.
#[derive(Clone, Debug, Default)]
pub(crate) struct Warned(Arc<Done>);

#[derive(Debug, Default)]
struct Done {
    logged: Mutex<HashSet<Warning>>,
    balanced: AtomicBool,
}

// === impl Warned ===

impl Warned {
    /// Whether a balancer was made from the config.
    pub(crate) fn has_balanced(&self) -> bool {
        self.0.balanced.load(Ordering::Relaxed)
    }

    /// A balancer was made from it.
    pub(crate) fn balanced(&self) {
        self.0.balanced.store(true, Ordering::Relaxed);
    }

    /// Logs each of them once.
    pub(crate) fn log(&self, warnings: &[Warning]) {
        let mut logged = self.0.logged.lock().unwrap_or_else(PoisonError::into_inner);
        for warning in warnings {
            if !logged.contains(warning) {
                logged.insert(warning.clone());
                tracing::warn!("service config: {warning}");
            }
        }
    }
}

impl PartialEq for Warned {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
