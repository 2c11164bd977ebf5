//! What is wrong with settings, before anything is made of them.

use super::Settings;
use cinchona_core::Invalid;
use std::time::Duration;

/// # Errors
/// With the first setting that can never apply, or that would fail every call.
pub(super) fn check(settings: &Settings) -> Result<(), Invalid> {
    for (field, limit) in [("deadline", settings.deadline), ("timeout", settings.timeout)] {
        if limit.is_some_and(|limit| limit.is_zero()) {
            return Err(Invalid::new(field, format!("{:?}", Duration::ZERO), "more than 0"));
        }
    }
    let Settings { methods, deadlines, timeouts, policies, .. } = settings;
    deadlines.check("deadlines", methods)?;
    timeouts.check("timeouts", methods)?;
    policies.check("policies", methods)
}
