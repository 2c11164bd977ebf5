//! What can be put around a tonic channel or server can be put around ours, and ours around it:
//! each combination with each layer is compiled, and called over HTTP/2.
//!
//! They are some 300 stacks, which take longer to compile than all other tests of the facade:
//! `cargo test -p outside --features combinations --test combinations`.

#![expect(clippy::unwrap_used, reason = "a test fails where something is missing")]

mod clients;
#[path = "../../../cinchona/tests/common/health.rs"]
mod health;
mod servers;

use health::{asked, check, methods, ok, scripted};
