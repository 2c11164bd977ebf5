//! The synchronisation primitives, which `tests/loom` replaces by a model checker's.

pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU8, Ordering},
};
