//! What is wrong with settings, before anything is made of them.

use super::Settings;
use cinchona_core::Invalid;
use std::time::Duration;

/// # Errors
/// With the first setting that can never apply, or that would fail every call.
pub(super) fn check(settings: &Settings) -> Result<(), Invalid> {
    for (field, limit) in [("deadline", settings.deadline), ("timeout", settings.timeout)] {
        check_limit(field, limit)?;
    }
    let Settings { methods, deadlines, timeouts, policies, .. } = settings;
    deadlines.check("deadlines", methods)?;
    timeouts.check("timeouts", methods)?;
    policies.check("policies", methods)
}

/// # Errors
/// When nothing can be done within the limit.
pub(super) fn check_limit(field: &'static str, limit: Option<Duration>) -> Result<(), Invalid> {
    match limit {
        Some(Duration::ZERO) => Err(Invalid::new(field, "0ns", "more than 0")),
        _ => Ok(()),
    }
}
