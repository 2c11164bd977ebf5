//! Checks settings before they are used: their fields are public, so a value may have passed no
//! constructor.

use super::settings::{Settings, check_limit};
use cinchona_core::Invalid;

/// # Errors
/// With the first setting that can never apply, or that would fail every call.
pub(super) fn check(settings: &Settings) -> Result<(), Invalid> {
    let Settings { methods, deadlines, timeouts, policies, .. } = settings;
    check_limit("deadline", settings.deadline)?;
    check_limit("timeout", settings.timeout)?;
    deadlines.values().try_for_each(|limit| check_limit("deadlines", *limit))?;
    timeouts.values().try_for_each(|limit| check_limit("timeouts", *limit))?;
    deadlines.check("deadlines", methods)?;
    timeouts.check("timeouts", methods)?;
    policies.check("policies", methods)?;
    settings.bulkhead.check(methods)
}
