//! When a circuit breaker opens, what it admits meanwhile, and what closes it.

mod limits;
mod machine;
mod pass;
mod policy;
mod state;
mod suspects;
mod usual;
mod window;

pub use machine::{Machine, Turned};
pub use pass::Pass;
pub use policy::{BreakerPolicy, Reason};
pub use state::Kind;
pub use suspects::hash;
pub use usual::Usual;
pub use window::Window;

#[cfg(test)]
mod tests;
