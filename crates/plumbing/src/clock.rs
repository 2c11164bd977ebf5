//! Saturating arithmetic on clocks, and one reading of the clock for all layers that pass a request
//! on.

pub use cinchona_policy::clock::{FOR_EVER, Passing, later, millis, nanos, now, period, times};
