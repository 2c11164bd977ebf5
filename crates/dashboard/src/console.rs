//! What changes the faults of the application.

use cinchona_core::Switch;
use serde::{Serialize, Serializer};
use std::time::Duration;

/// The faults of the application, for the page to show and change.
///
/// An error is shown as it is, in a fixed-width font: a caret below the place that is wrong stays
/// there.
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
    /// The rules in force, in the order a request meets them.
    fn list(&self) -> Vec<FaultRule>;

    /// Sets a rule, in place of the one of that id if there is one.
    ///
    /// # Errors
    /// What is wrong with it.
    fn set(&self, id: &str, rule: &str) -> Result<(), String>;

    /// Removes the rule of that id.
    ///
    /// # Errors
    /// Why not, such as that there is none.
    fn remove(&self, id: &str) -> Result<(), String>;

    /// Removes all rules.
    ///
    /// # Errors
    /// Why not.
    fn clear(&self) -> Result<(), String>;

    /// What an operator should know beside the grammar of rules, such as what names mean. Default
    /// nothing.
    fn hint(&self) -> &str {
        ""
    }

    /// The master switch of all rules, if there is one. Default none.
    fn switch(&self) -> Option<&Switch> {
        None
    }
}

/// A rule in force, and what it has done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FaultRule {
    /// The name it was set by.
    pub id: String,
    /// The rule, as it would be written.
    pub rule: String,
    /// Requests it could have hit.
    pub matched: u64,
    /// Requests it hit.
    pub injected: u64,
    /// How long it has been in force; in seconds, in JSON.
    #[serde(serialize_with = "seconds")]
    pub age: Duration,
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}
