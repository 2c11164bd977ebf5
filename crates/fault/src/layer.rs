//! The settings of the layer, and the layer that runs.

use crate::{Fault, FaultCounters, Faults, Rules, counters::Counted, running::Running};
use cinchona_core::{Invalid, Switch};
use std::sync::Arc;
use tower_layer::Layer;

/// Applies [`Fault`] to a server, or to a single service.
#[derive(Clone, Debug)]
pub struct FaultLayer(pub(crate) Arc<Running>);

/// The settings of a [`FaultLayer`]. By default it injects nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FaultSettings {
    faults: Faults,
    rules: Option<Rules>,
    switch: Option<Switch>,
    is_marking: bool,
}

// === impl FaultSettings ===

impl FaultSettings {
    /// Injects `faults`.
    ///
    /// # Errors
    /// When a rate is not in 0 to 1, or the code is `OK`.
    pub fn new(faults: Faults) -> Result<Self, Invalid> {
        Ok(Self { faults: faults.checked()?, ..Self::default() })
    }

    /// Also injects the faults of `rules`, now and after each change of them: they are shared by
    /// all layers that have them.
    #[must_use]
    pub fn with_rules(self, rules: Rules) -> Self {
        Self { rules: Some(rules), ..self }
    }

    /// Sets the switch that decides whether faults are injected, only counted, or not drawn; also
    /// for those of rules, whatever their own switch allows. When off, requests are not even
    /// counted.
    #[must_use]
    pub fn with_switch(self, switch: Switch) -> Self {
        Self { switch: Some(switch), ..self }
    }

    /// Names the rules that hit a request in its reply, if there is a reply: a header
    /// `fault-injected: <rule id>` for each. By default replies do not name them.
    #[must_use]
    pub fn with_marks(self) -> Self {
        Self { is_marking: true, ..self }
    }

    /// A layer with these settings, and its own counters.
    #[must_use]
    pub fn layer(&self) -> FaultLayer {
        FaultLayer(Arc::new(Running {
            faults: self.faults.clone(),
            rules: self.rules.clone(),
            counted: Counted::default(),
            switch: self.switch.clone().unwrap_or_default(),
            is_marking: self.is_marking,
            is_client: false,
        }))
    }
}

// === impl FaultLayer ===

impl FaultLayer {
    /// The layer of [`FaultSettings::new`].
    ///
    /// # Errors
    /// As there.
    pub fn new(faults: Faults) -> Result<Self, Invalid> {
        Ok(FaultSettings::new(faults)?.layer())
    }

    /// What it has injected so far, into all the services it was applied to.
    pub fn counters(&self) -> FaultCounters {
        self.0.counted.read()
    }
}

impl From<Rules> for FaultLayer {
    /// Injects the faults of `rules`, and nothing else.
    fn from(rules: Rules) -> Self {
        FaultSettings::default().with_rules(rules).layer()
    }
}

impl<S> Layer<S> for FaultLayer {
    type Service = Fault<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Fault { inner, running: self.0.clone() }
    }
}
