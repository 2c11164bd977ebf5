//! The synchronisation primitives, which `tests/loom` replaces by a model checker's.

pub(crate) use std::sync::atomic::{AtomicUsize, Ordering};
