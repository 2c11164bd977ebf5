//! How many calls a server takes: a limit on those in flight, fixed or found, and the queue before
//! it.

mod adaptive;
mod criticality;
mod gradient;
mod limit;
mod limiter;
mod measured;
mod waiting;

pub use adaptive::Adaptive;
pub use criticality::Criticality;
pub use limit::{Limit, Queue};
pub use limiter::{Changed, Entry, Limiter, Permit, Waits};
