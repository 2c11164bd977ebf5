//! Checks settings before they are used.

use super::settings::{Settings, check_limit};
use cinchona_core::Invalid;

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
