//! A scenario, and its outcome.

use crate::{scenario::Scenario, tally::Summary};
use serde::Serialize;

/// A scenario and its outcome.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) expectation: &'static str,
    pub(crate) met: bool,
    #[serde(flatten)]
    pub(crate) seen: Summary,
    /// The same without one of the layers, in virtual time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) ablations: Vec<Ablation>,
}

/// A scenario without one of its layers.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Ablation {
    pub(crate) without: &'static str,
    #[serde(flatten)]
    pub(crate) seen: Summary,
}

// === impl Entry ===

impl Entry {
    pub(crate) fn new(scenario: &Scenario, seen: Summary) -> Self {
        let Scenario { name, expectation, .. } = *scenario;
        Self { name, expectation, met: scenario.holds(&seen), seen, ablations: Vec::new() }
    }
}
