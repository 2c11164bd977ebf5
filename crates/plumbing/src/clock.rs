//! Saturating arithmetic on clocks, and readings of the clock that layers share.

pub use cinchona_policy::clock::{
    FOR_EVER, Passing, forget, last_read, later, millis, nanos, now, period, read, times,
};
