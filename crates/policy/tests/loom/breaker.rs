//! The circuit of a breaker.

#[path = "../../src/breaker/limits.rs"]
mod limits;
#[path = "../../src/breaker/pass.rs"]
mod pass;
#[path = "../../src/breaker/state.rs"]
mod state;
#[path = "../../src/breaker/suspects.rs"]
mod suspects;
#[path = "../../src/breaker/usual.rs"]
mod usual;

mod circuit;
mod learned;
mod window;
