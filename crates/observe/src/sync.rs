//! What threads meet by, which `tests/loom` replaces by that of a model checker.

pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
