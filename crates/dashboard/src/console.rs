//! The interface through which the page changes the application's faults.

use cinchona_core::Switch;
use serde::{Serialize, Serializer};
use std::time::Duration;

/// The faults of the application, for the page to show and change.
///
/// An error is shown verbatim in a fixed-width font, so that a caret stays below the place that is
/// wrong.
///
/// ```
/// use cinchona_dashboard::{Console, FaultRule};
///
/// struct None;
///
/// impl Console for None {
///     fn list(&self) -> Vec<FaultRule> {
///         Vec::new()
///     }
///     fn set(&self, _id: &str, rule: &str) -> Result<(), String> {
///         Err(format!("no such thing\n  {rule}\n  ^"))
///     }
///     fn remove(&self, id: &str) -> Result<(), String> {
///         Err(format!("there is no rule {id}"))
///     }
///     fn clear(&self) -> Result<(), String> {
///         Ok(())
///     }
/// }
/// assert!(None.switch().is_none(), "and the page shows none");
/// ```
pub trait Console: Send + Sync {
    /// The rules in force, in the order in which they are applied to a request.
    fn list(&self) -> Vec<FaultRule>;

    /// Sets a rule; replaces the one with this id.
    ///
    /// # Errors
    /// What is wrong with the rule.
    fn set(&self, id: &str, rule: &str) -> Result<(), String>;

    /// Removes the rule with this id.
    ///
    /// # Errors
    /// Why not, such as that there is no such rule.
    fn remove(&self, id: &str) -> Result<(), String>;

    /// Removes all rules.
    ///
    /// # Errors
    /// Why not.
    fn clear(&self) -> Result<(), String>;

    /// A hint for operators beside the grammar of rules, such as the meaning of names. Default:
    /// none.
    fn hint(&self) -> &str {
        ""
    }

    /// The master switch of all rules, if any. Default: none.
    fn switch(&self) -> Option<&Switch> {
        None
    }
}

/// A rule in force, and its counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FaultRule {
    /// Its id.
    pub id: String,
    /// The rule, in its own syntax.
    pub rule: String,
    /// Requests that matched it.
    pub matched: u64,
    /// Requests to which it was applied.
    pub injected: u64,
    /// How long it has been in force; in seconds in JSON.
    #[serde(serialize_with = "seconds")]
    pub age: Duration,
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}
