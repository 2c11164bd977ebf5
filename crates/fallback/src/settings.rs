//! The settings of a layer.

use crate::{
    Cache,
    key::{Caller, Compared},
    shared::{self, Alternate},
};
use bytes::Bytes;
use cinchona_core::{BoxError, Invalid, Methods, PerMethod, Switch};
use cinchona_plumbing::Callback;
use http::{HeaderName, Request, Response, request::Parts};
use std::sync::Arc;
use tonic::body::Body;
use tower::{ServiceExt, util::BoxCloneSyncService};
use tower_service::Service;

/// The settings of a [`FallbackLayer`](crate::FallbackLayer).
#[derive(Clone, Debug, PartialEq)]
pub struct FallbackSettings {
    pub(crate) methods: Methods,
    pub(crate) forced: PerMethod<()>,
    pub(crate) compared: Compared,
    pub(crate) cache: Option<Cache>,
    /// With their gRPC frames.
    pub(crate) defaults: PerMethod<Bytes>,
    pub(crate) alternate: Option<Callback<Alternate>>,
    pub(crate) switch: Option<Switch>,
}

// === impl FallbackSettings ===

impl FallbackSettings {
    /// Gives second answers to the methods that are unary and without side effects according to
    /// `methods`.
    pub fn new(methods: Methods) -> Self {
        Self {
            methods,
            forced: PerMethod::new(),
            compared: Compared::default(),
            cache: None,
            defaults: PerMethod::new(),
            alternate: None,
            switch: None,
        }
    }

    /// Keeps the last good answers, and gives them when a call fails.
    ///
    /// # Errors
    /// When one of the bounds is out of its range.
    pub fn with_cache(mut self, cache: Cache) -> Result<Self, Invalid> {
        self.cache = Some(cache.checked()?);
        Ok(self)
    }

    /// Ignores this metadata when comparing requests, such as an id of each call: otherwise no kept
    /// answer is ever found. The [rule](crate#rule) lists what is always ignored.
    ///
    /// Name only metadata on which the answer does not depend, and which identifies no caller: the
    /// answer to one is given to the other. For a [forced](Self::with_forced) method with side
    /// effects, ignoring `idempotency-key` lets the answer to one operation stand in for that to
    /// another.
    ///
    /// # Errors
    /// When it identifies callers in general (`authorization`, `proxy-authorization`, `cookie`,
    /// `host`), or says how to read messages (`content-type`, `grpc-encoding`,
    /// `grpc-accept-encoding`).
    pub fn with_ignored(mut self, name: HeaderName) -> Result<Self, Invalid> {
        self.compared.ignore(name)?;
        Ok(self)
    }

    /// Distinguishes callers also by the result of `caller`, if their metadata do not suffice: by
    /// extensions of the request, which a layer below turns into credentials. For `None`, or a
    /// panic, the answer is not kept and no kept one is given.
    ///
    /// ```
    /// use cinchona_core::Methods;
    /// use cinchona_fallback::FallbackSettings;
    ///
    /// #[derive(Clone)]
    /// struct Tenant(String);
    ///
    /// let settings = FallbackSettings::new(Methods::unknown())
    ///     .with_caller(|request| Some(request.extensions.get::<Tenant>()?.0.clone()));
    /// ```
    #[must_use]
    pub fn with_caller<K: Into<Vec<u8>>>(
        mut self,
        caller: impl Fn(&Parts) -> Option<K> + Send + Sync + 'static,
    ) -> Self {
        self.compared.name_callers(Caller::new(caller));
        self
    }

    /// Answers `method` of `service` with `message`, encoded but without its gRPC frame, if there
    /// is no other second answer; all its methods if `method` is empty.
    ///
    /// # Errors
    /// When the method has a default already or is not known to be unary, or the message has 4 GiB.
    pub fn with_default(
        mut self,
        service: &str,
        method: &str,
        message: impl Into<Bytes>,
    ) -> Result<Self, Invalid> {
        self.is_unary(service, method)?;
        let message = shared::framed(message.into())?;
        self.defaults.insert(service, method, message)?;
        Ok(self)
    }

    /// Calls another service when a call fails: a channel to another address, or a whole client
    /// stack. Only its good answers count: after a refusal, it may just lack the data. But if it
    /// refuses the caller (`PERMISSION_DENIED`, `UNAUTHENTICATED`), this caller is given no kept
    /// answer either.
    ///
    /// The request is sent as received from above, including credentials, with the remaining time
    /// of its deadline. A request that is not complete immediately or has more than 256 KiB is not
    /// sent to it.
    #[must_use]
    pub fn with_alternate<A, B>(mut self, alternate: A) -> Self
    where
        A: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        A::Error: Into<BoxError>,
        A::Future: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let alternate = alternate
            .map_response(|response: Response<B>| response.map(Body::new))
            .map_err(Into::into);
        self.alternate = Some(Callback(Arc::new(BoxCloneSyncService::new(alternate))));
        self
    }

    /// Gives second answers to `method` of `service` too, or to all its unary methods if `method`
    /// is empty, although they have side effects: these may have happened or not, or at the
    /// alternate, and the caller gets an answer. Calls with different `idempotency-key`s are not
    /// given each other's answers.
    ///
    /// # Errors
    /// When the method was named before, or is not known to be unary.
    pub fn with_forced(mut self, service: &str, method: &str) -> Result<Self, Invalid> {
        self.is_unary(service, method)?;
        self.forced.insert(service, method, ())?;
        Ok(self)
    }

    /// Sets the switch that decides whether second answers are given, only counted, or not looked
    /// for. In shadow the alternate is not called. The [rule](crate#rule) describes the cache.
    #[must_use]
    pub fn with_switch(mut self, switch: Switch) -> Self {
        self.switch = Some(switch);
        self
    }

    /// Refuses a method that is not known to be unary; of all methods of a service, the others are
    /// skipped.
    fn is_unary(&self, service: &str, method: &str) -> Result<(), Invalid> {
        let path = format!("/{service}/{method}");
        if method.is_empty() || self.methods.is_unary(&path) {
            return Ok(());
        }
        Err(Invalid::new("method", path, "the unary methods of the descriptor set"))
    }
}
