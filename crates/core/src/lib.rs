//! The words that every cinchona policy shares.
//!
//! | word | meaning |
//! |---|---|
//! | [`Verdict`] | what the outcome of an attempt means; every policy reads this and nothing else |
//! | [`Deadline`], [`Elapsed`] | when the call must have ended, and what it says when it had not |
//! | [`Replay`] | a request that can be sent again |
//! | [`Methods`] | which methods may be executed twice, from the .proto |
//! | [`Rng`] | chance that can be replayed |
//! | [`Invalid`] | a setting outside its range |
//!
//! *Why a crate of its own:* a policy never names another policy; what two of them need is here.

pub mod code;
pub mod deadline;
pub mod error;
mod methods;
mod replay;
mod rng;
pub mod status;
mod verdict;

pub use deadline::{Deadline, Elapsed};
pub use error::{BoxError, Invalid};
pub use methods::{Methods, Safety};
pub use replay::{Once, Replay};
pub use rng::Rng;
pub use verdict::{Stage, Verdict};
