//! Whether a call gets another attempt, and when: retries, hedges, and the limits on both.

mod attempt;
mod budget;
mod codes;
mod hedge;
mod next;
mod policy;
mod race;
mod serial;
mod stop;
mod throttle;

pub use attempt::{AttemptKind, Pushback};
pub use budget::{Budget, SharedBudget};
pub use codes::Codes;
pub use hedge::{AdaptiveDelay, HedgePolicy};
pub use next::NextAttempt;
pub use policy::{Decision, Ended, Kind, Limits, Policy, Progress, RetryPolicy};
pub use race::Race;
pub use serial::{PACE, Serial};
pub use stop::Stop;
pub use throttle::{CallThrottling, RetryThrottling};
