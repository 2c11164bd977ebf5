//! Every interleaving of two or three threads, by a model checker, over the sources themselves.
#![allow(missing_docs, dead_code, unreachable_pub, unused_imports)]

mod sync {
    pub(crate) use loom::sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    };
}

pub(crate) use cinchona_policy::{Invalid, clock};

mod breaker;
mod concurrency;
mod load;
mod throttle;
