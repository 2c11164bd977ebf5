//! The server's layer.

use crate::{
    Dedup, DedupCounters, DedupSettings, NO_METHODS, Store,
    counters::Cells,
    settings::{lasting, random},
    shared::Shared,
    tokens::Tokens,
};
use cinchona_core::{Methods, Mode};
use std::sync::Arc;
use tower_layer::Layer;

/// Applies [`Dedup`] to a server, or to a single service.
#[derive(Debug)]
pub struct DedupLayer<T> {
    pub(crate) shared: Arc<Shared<T>>,
}

// === impl DedupSettings ===

impl DedupSettings {
    /// A layer with these settings and its own counters, which recognises repeated calls by
    /// `store`.
    #[must_use]
    pub fn layer<T: Store>(&self, store: T) -> DedupLayer<T> {
        let of_store = || store.domain().as_deref().and_then(lasting);
        let domain = self.domain.or_else(of_store).or_else(random);
        let (settings, switch) = (self.clone(), self.switch.clone().unwrap_or_default());
        let (cells, tokens) = (Cells::default(), Tokens::new());
        DedupLayer { shared: Arc::new(Shared { store, settings, domain, switch, cells, tokens }) }
    }
}

// === impl DedupLayer ===

impl<T: Store> DedupLayer<T> {
    /// Recognises repeated calls by `store`. Only unary methods that `methods` lists can be
    /// recognised.
    ///
    /// The layer of [`DedupSettings::new`].
    pub fn new(store: T, methods: Methods) -> Self {
        DedupSettings::new(methods).layer(store)
    }

    /// The store by which it recognises them.
    pub fn store(&self) -> &T {
        &self.shared.store
    }

    /// What it has counted.
    pub fn counters(&self) -> DedupCounters {
        self.shared.cells.counters(self.shared.store.evicted())
    }
}

impl<T> Clone for DedupLayer<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<S, T> Layer<S> for DedupLayer<T> {
    type Service = Dedup<S, T>;

    fn layer(&self, inner: S) -> Self::Service {
        let Shared { settings, switch, .. } = &*self.shared;
        if switch.mode() != Mode::Off && settings.methods.kinds().next().is_none() {
            tracing::warn!("no repeated call is recognised: {NO_METHODS}");
        }
        Dedup { inner, shared: self.shared.clone() }
    }
}
