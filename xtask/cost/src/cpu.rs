//! The CPU time of processes.

use cinchona::core::BoxError;
use nix::{
    sys::time::TimeSpec,
    time::{ClockId, clock_getcpuclockid},
    unistd::Pid,
};

/// What this process has used, in nanoseconds.
pub fn own() -> u64 {
    ClockId::CLOCK_PROCESS_CPUTIME_ID.now().map_or(0, nanos)
}

/// What another has used.
///
/// # Errors
/// When there is none of that id.
pub fn of(process: u32) -> Result<u64, BoxError> {
    let clock = clock_getcpuclockid(Pid::from_raw(process.try_into()?))?;
    Ok(nanos(clock.now()?))
}

fn nanos(time: TimeSpec) -> u64 {
    let positive = |n: i64| u64::try_from(n).unwrap_or(0);
    positive(time.tv_sec()) * 1_000_000_000 + positive(time.tv_nsec())
}
