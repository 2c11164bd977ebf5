//! Every interleaving of two or three threads, by a model checker, over the sources themselves.
#![allow(missing_docs, dead_code, unreachable_pub)]

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
}

#[path = "../../src/limits.rs"]
mod limits;
#[path = "../../src/pass.rs"]
mod pass;
#[path = "../../src/state.rs"]
mod state;
#[path = "../../src/suspects.rs"]
mod suspects;
#[path = "../../src/usual.rs"]
mod usual;

mod circuit;
mod learned;
mod window;
