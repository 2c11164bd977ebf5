//! Every interleaving of two or three threads, by a model checker, over the sources themselves.
#![allow(missing_docs, dead_code, unreachable_pub)]

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
}

mod breaker;
mod load;
mod throttle;
