//! The settings of a layer, and the calls that are eligible by them.

use crate::{
    answer::Answer,
    cache::Store,
    counters::Counters,
    degraded::Degraded,
    key::{Compared, Key},
};
use bytes::{BufMut, Bytes, BytesMut};
use cinchona_core::{BoxError, Invalid, Methods, PerMethod, Safety, Switch};
use http::{Request, Response, request::Parts};
use std::sync::atomic::{AtomicU64, Ordering};
use tonic::body::Body;
use tower::util::BoxCloneSyncService;

pub(crate) type Alternate = BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>;

/// The state shared by the clones of a layer and the services it was applied to.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) methods: Methods,
    pub(crate) forced: PerMethod<()>,
    pub(crate) compared: Compared,
    pub(crate) store: Option<Store>,
    pub(crate) max_answer: usize,
    pub(crate) defaults: PerMethod<Answer>,
    pub(crate) alternate: Option<Alternate>,
    pub(crate) switch: Switch,
    pub(crate) counters: Counters,
    pub(crate) degraded: Degraded,
    /// How many services it was applied to.
    pub(crate) services: AtomicU64,
}

// === impl Shared ===

impl Shared {
    /// The kept answers since the layer was last off.
    pub(crate) fn store(&self) -> Option<&Store> {
        let store = self.store.as_ref()?;
        store.knows(self.switch.times_off());
        Some(store)
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
