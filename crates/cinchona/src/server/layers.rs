//! The running layers of a server.

use super::{Settings, panics::PanicLayer, part::Part};
use crate::parts::Switches;
use cinchona_core::{Invalid, Switch};
use cinchona_deadline::{ServerDeadlineLayer, ServerDeadlineSettings};
use cinchona_drain::Drain;
use cinchona_fault::FaultLayer;
use cinchona_idempotency::{DedupLayer, MemoryStore, Store};
use cinchona_observe::{Metrics, Owner, ServerLayer, ServerSettings};
use cinchona_shed::{RateLimitLayer, ShedLayer, StatusLimitLayer, StatusLimitSettings};
use std::fmt;

/// The layers of a server, which can be changed while it runs; clones share them.
///
/// It is a tower `Layer`, for `tonic::transport::Server::builder().layer(..)`, for an axum router,
/// and for a single service. A layer can be replaced before that; then call
/// [`register`](Self::register) for its metrics. These are shown until the last clone and the last
/// service that they are around are dropped, together with those of other servers ([`Owner`]).
#[derive(Clone)]
#[non_exhaustive]
pub struct Layers<S = MemoryStore> {
    /// The metrics of calls, and of the layers.
    pub metrics: Metrics,
    /// Metrics and span of a call.
    pub call: ServerLayer,
    /// The limits of a status.
    pub status: StatusLimitLayer,
    /// The shutdown: `drain.begin()`, or `drain.serve(stop, server)`.
    pub drain: Drain,
    /// The quota of each caller.
    pub quota: RateLimitLayer,
    /// The limit of calls in flight.
    pub shed: ShedLayer,
    /// The callers' deadlines.
    pub deadline: ServerDeadlineLayer,
    /// The injected faults.
    pub faults: FaultLayer,
    /// Recognises repeated calls.
    pub dedup: DedupLayer<S>,
    pub(super) panics: PanicLayer,
    switches: Switches<{ Part::ALL.len() }>,
    pub(super) own: Owner,
}

// === impl Settings ===

impl<S: Store> Settings<S> {
    /// The layers.
    ///
    /// # Errors
    /// When a number is outside its range.
    pub fn layers(&self) -> Result<Layers<S>, Invalid> {
        if self.limit.is_some_and(|limit| limit.is_zero()) {
            return Err(Invalid::new("limit", "0s", "more than 0"));
        }
        let switches = self.modes.switches();
        let switch = |part: Part| switches.get(part as usize).clone();
        let metrics = self.metrics.clone();
        let metrics = metrics.unwrap_or_else(|| Metrics::new(self.methods.clone()));
        let deadline = ServerDeadlineSettings::new().with_switch(switch(Part::Deadline));
        let shed = self.shed.clone().with_rng(self.rng.clone());
        let layers = Layers {
            call: ServerSettings::new()
                .with_rng(self.rng.clone())
                .with_switch(switch(Part::Call))
                .layer(&metrics),
            status: StatusLimitSettings::new().with_switch(switch(Part::Status)).layer(),
            drain: self.drain.clone().unwrap_or_else(|| Drain::new(self.grace)),
            panics: PanicLayer(switch(Part::Panics)),
            quota: self.quota.clone().with_switch(switch(Part::Quota)).layer(),
            shed: shed.with_switch(switch(Part::Shed)).layer(),
            deadline: match self.limit {
                Some(limit) => deadline.with_limit(limit).layer(),
                None => deadline.layer(),
            },
            faults: self.faults.clone().with_switch(switch(Part::Faults)).layer(),
            dedup: self.dedup.clone().with_switch(switch(Part::Dedup)).layer(self.store.clone()),
            switches,
            own: metrics.owner(),
            metrics,
        };
        layers.register()?;
        Ok(layers)
    }
}

// === impl Layers ===

impl<S: Store> Layers<S> {
    /// Registers their metrics in `metrics`, each in place of the one of these layers that it
    /// replaces; call it again after replacing a layer.
    ///
    /// # Errors
    /// When one of the names was registered as something else.
    pub fn register(&self) -> Result<(), Invalid> {
        let Self { own, status, drain, quota, shed, faults, dedup, .. } = self;
        own.register(status, &[])?;
        own.register(drain, &[])?;
        own.register(quota, &[])?;
        own.register(shed, &[])?;
        own.register(faults, &[])?;
        own.register(dedup, &[])
    }
}

impl<S> Layers<S> {
    /// The switch of a layer.
    pub const fn switch(&self, part: Part) -> &Switch {
        self.switches.get(part as usize)
    }
}

impl<S> fmt::Debug for Layers<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layers").field("switches", &self.switches).finish_non_exhaustive()
    }
}
