//! The settings of a layer, and the calls that are eligible by them.

use crate::{
    Cache, Counters,
    answer::Answer,
    cache::Store,
    degraded::Degraded,
    key::{Compared, Key},
};
use bytes::{BufMut, Bytes, BytesMut};
use cinchona_core::{BoxError, Invalid, Methods, PerMethod, Safety, Switch};
use http::{Request, Response, request::Parts};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use tonic::body::Body;
use tower::util::BoxCloneSyncService;

pub(crate) type Alternate = BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>;

/// The state shared by the clones of a layer and the services it was applied to.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) methods: Methods,
    pub(crate) forced: PerMethod<()>,
    pub(crate) compared: Compared,
    pub(crate) store: Option<Arc<Store>>,
    pub(crate) max_answer: usize,
    pub(crate) defaults: PerMethod<Answer>,
    pub(crate) alternate: Option<Alternate>,
    pub(crate) switch: Switch,
    pub(crate) counters: Counters,
    pub(crate) degraded: Arc<Degraded>,
    /// How many services it was applied to.
    services: Arc<AtomicU64>,
}

// === impl Shared ===

impl Shared {
    pub(crate) fn new(methods: Methods) -> Self {
        Self {
            methods,
            forced: PerMethod::new(),
            compared: Compared::default(),
            store: None,
            max_answer: Cache::default().max_answer,
            defaults: PerMethod::new(),
            alternate: None,
            switch: Switch::default(),
            counters: Counters::default(),
            degraded: Arc::default(),
            services: Arc::default(),
        }
    }

    pub(crate) fn keep(&mut self, cache: Cache) {
        self.max_answer = cache.max_answer;
        self.store = Some(Arc::new(Store::new(cache, self.counters.clone())));
    }

    /// Another switch means an empty cache: the kept answers were valid under the old one.
    pub(crate) fn switch_by(&mut self, switch: Switch) {
        self.switch = switch;
        self.renew();
    }

    /// The same, with its own counters and answers.
    pub(crate) fn separate(&self) -> Self {
        let (counters, degraded, services) = Default::default();
        let mut separate = Self { counters, degraded, services, ..self.clone() };
        separate.renew();
        separate
    }

    fn renew(&mut self) {
        let renewed = |store: Arc<Store>| Arc::new(store.renewed(self.counters.clone()));
        self.store = self.store.take().map(renewed);
    }

    /// The kept answers since the layer was last off.
    pub(crate) fn store(&self) -> Option<&Store> {
        let store = self.store.as_deref()?;
        store.knows(self.switch.times_off());
        Some(store)
    }

    /// Refuses a method that is not known to be unary; of all methods of a service, the others are
    /// skipped.
    pub(crate) fn is_unary(&self, service: &str, method: &str) -> Result<(), Invalid> {
        let path = format!("/{service}/{method}");
        if method.is_empty() || self.methods.is_unary(&path) {
            return Ok(());
        }
        Err(Invalid::new("method", path, "the unary methods of the descriptor set"))
    }

    /// Whether there might be a second answer for the method at `path`.
    pub(crate) fn covers(&self, path: &str) -> bool {
        // The cheapest check first: usually there is nothing to answer with.
        let has_answer =
            self.store.is_some() || self.alternate.is_some() || self.defaults.get(path).is_some();
        has_answer
            && self.methods.is_unary(path)
            && (self.methods.safety(path) == Safety::NoSideEffects
                || self.forced.get(path).is_some())
    }

    /// A number for another service that the layer is applied to. It may be another server, or the
    /// same with other credentials, which the requests do not show: each has its own answers.
    pub(crate) fn next_service(&self) -> u64 {
        self.services.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn key(&self, service: u64, parts: &Parts, message: &Bytes) -> Option<Key> {
        let safety = self.methods.safety(parts.uri.path());
        self.compared.key(service, safety, parts, message)
    }
}

/// With gRPC's prefix: not compressed, and the length.
pub(crate) fn framed(message: Bytes) -> Result<Bytes, Invalid> {
    let Ok(length) = u32::try_from(message.len()) else {
        return Err(Invalid::new("message", message.len(), "fewer than 2^32 bytes"));
    };
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    framed.put_u32(length);
    framed.put(message);
    Ok(framed.freeze())
}
