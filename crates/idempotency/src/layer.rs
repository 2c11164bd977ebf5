//! The server's layer and its settings.

use crate::{
    Dedup, Guarantee, InFlight, NO_METHODS, Snapshot, Store,
    authorize::Authorize,
    caller::Callers,
    counters::Cells,
    settings::{Settings, lasting},
    shared::Shared,
    tokens::Tokens,
};
use cinchona_core::{Invalid, Methods, Mode, PerMethod, Switch};
use http::{Extensions, HeaderMap, HeaderName, Request};
use std::{future::Future, sync::Arc, time::Duration};
use tonic::{Code, Status};
use tower_layer::Layer;

/// Applies [`Dedup`] to a server, or to a single service.
#[derive(Debug)]
pub struct DedupLayer<T> {
    pub(crate) shared: Arc<Shared<T>>,
}

// === impl DedupLayer ===

impl<T: Store> DedupLayer<T> {
    /// Recognises repeated calls by `store`. Only unary methods that `methods` lists can be
    /// recognised.
    pub fn new(store: T, methods: Methods) -> Self {
        let settings = Settings::new(methods, store.domain().as_deref());
        Self::over(store, settings)
    }

    fn over(store: T, settings: Settings) -> Self {
        let (cells, tokens) = (Cells::default(), Tokens::new());
        Self { shared: Arc::new(Shared { store, settings, cells, tokens }) }
    }

    /// Another layer, with its own counters.
    fn with(self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = self.shared.settings.clone();
        change(&mut settings);
        Self::over(self.shared.store.clone(), settings)
    }

    /// Sets what happens to a call while another with its key is being executed. Default: it joins.
    #[must_use]
    pub fn with_in_flight(self, in_flight: InFlight) -> Self {
        self.with(|settings| settings.in_flight = in_flight)
    }

    /// Sets what happens after an execution whose outcome is unknown. Default: at most once.
    #[must_use]
    pub fn with_guarantee(self, guarantee: Guarantee) -> Self {
        self.with(|settings| settings.guarantee = guarantee)
    }

    /// Whether calls are executed unprotected while the store does not answer; by default they are
    /// refused with `UNAVAILABLE`.
    #[must_use]
    pub fn with_fail_open(self, open: bool) -> Self {
        self.with(|settings| settings.fail_open = open)
    }

    /// Sets which methods refuse a call without a key: `true` for all with side effects, or by
    /// method. Default: none.
    #[must_use]
    pub fn with_required(self, required: impl Into<PerMethod<bool>>) -> Self {
        let required = required.into();
        self.with(|settings| settings.required = required)
    }

    /// Appends to replayed messages of a method an encoded message of the same type, whose fields
    /// replace those of the first answer (protobuf merges concatenated messages): such as
    /// `was_duplicate: true`.
    #[must_use]
    pub fn with_fragments(self, fragments: PerMethod<Vec<u8>>) -> Self {
        self.with(|settings| settings.fragments = fragments)
    }

    /// Whether a repetition is recognised by its key alone: `true` for every method, or by method.
    /// By default the same key with another request is refused; requests are the same if their
    /// messages are equal by the .proto, however they are encoded. If they differ between attempts
    /// (by a timestamp, for example), compare by key alone: the first answer is then given to every
    /// request with its key.
    #[must_use]
    pub fn with_key_alone(self, key_alone: impl Into<PerMethod<bool>>) -> Self {
        let key_alone = key_alone.into();
        self.with(|settings| settings.key_alone = key_alone)
    }

    /// Names the authenticated caller by headers and extensions of the call. The best choice, as
    /// the name stays the same when a token is renewed. A call without a name (`None`) is
    /// identified by the [default](crate#who-a-caller-is), and never equals a named one.
    ///
    /// If the function panics, the call is refused (`INTERNAL`).
    #[must_use]
    pub fn with_caller<F>(self, caller: F) -> Self
    where
        F: Fn(&HeaderMap, &Extensions) -> Option<String> + Send + Sync + 'static,
    {
        self.with(|settings| settings.callers = Callers::Named(Arc::new(caller)))
    }

    /// Names the caller by the header `name`; a call without it is identified by the
    /// [default](crate#who-a-caller-is). The header must be set or verified before this layer (by a
    /// proxy, or a layer outside): otherwise a caller can impersonate another.
    #[must_use]
    pub fn by_header(self, name: HeaderName) -> Self {
        self.with(|settings| settings.callers = Callers::Header(name))
    }

    /// Identifies callers by their addresses, without ports, or as users of a Unix socket. Behind a
    /// proxy or NAT many are one: one that guesses a key there and sends the same request gets the
    /// same answer.
    #[must_use]
    pub fn by_peer(self) -> Self {
        self.with(|settings| settings.callers = Callers::Peer)
    }

    /// Treats all callers as one: each that knows a key, and sends the same request, gets the same
    /// answer. For servers whose callers trust each other, or that forward a call to one another.
    #[must_use]
    pub fn by_key(self) -> Self {
        self.with(|settings| settings.callers = Callers::Shared)
    }

    /// Calls `ask` before a call receives the answer of an earlier one: with the method, the
    /// headers and the extensions of the request. A refusal is answered with its status. A first
    /// call is not checked, as its handler checks it; in shadow no call is.
    ///
    /// *Why:* a replay reaches neither the handler nor an interceptor below this layer. If
    /// authorization is outside this layer, as it should be, this check is not needed.
    ///
    /// If it panics, the call is refused (`INTERNAL`).
    ///
    /// ```
    /// use cinchona_core::Methods;
    /// use cinchona_idempotency::{DedupLayer, MemoryStore};
    /// use tonic::Status;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let dedup = DedupLayer::new(MemoryStore::new(), Methods::unknown()).with_authorize(
    ///     |request| async move {
    ///         match request.headers().contains_key("authorization") {
    ///             true => Ok(()),
    ///             false => Err(Status::unauthenticated("who are you?")),
    ///         }
    ///     },
    /// );
    /// # drop(dedup);
    /// # }
    /// ```
    #[must_use]
    pub fn with_authorize<F, A>(self, ask: F) -> Self
    where
        F: Fn(Request<()>) -> A + Send + Sync + 'static,
        A: Future<Output = Result<(), Status>> + Send + 'static,
    {
        self.with(|settings| settings.authorize = Some(Authorize::new(ask)))
    }

    /// Declares that the handlers answer these codes only if they have not begun, or have undone
    /// their work: such an answer is not kept. Default: none. A handler declares this for one
    /// answer by [`cinchona_plumbing::status::not_begun`].
    ///
    /// # Errors
    /// When `OK` is among them.
    pub fn with_released(self, codes: impl IntoIterator<Item = Code>) -> Result<Self, Invalid> {
        let codes: Vec<_> = codes.into_iter().collect();
        if codes.contains(&Code::Ok) {
            return Err(Invalid::new("released", "OK", "codes of failures"));
        }
        Ok(self.with(|settings| settings.released = codes))
    }

    /// How long an execution may take before it is cancelled. Default 30 s; `Duration::MAX`:
    /// without limit. Where the caller's deadline leaves more time, the execution has that, at most
    /// 1 h. It is the deadline that the handler sees, and that its own calls inherit: an execution
    /// goes on when its caller has given up. A server that crashes leaves the key unanswered until
    /// then.
    ///
    /// # Errors
    /// When it is zero.
    pub fn with_lease(self, lease: Duration) -> Result<Self, Invalid> {
        if lease.is_zero() {
            return Err(Invalid::new("lease", "0s", "more than 0"));
        }
        Ok(self.with(|settings| settings.lease = lease))
    }

    /// The most bytes of a request's message, as sent and decompressed (default 4 MiB, tonic's own
    /// limit; a larger one is refused with `OUT_OF_RANGE`), and of a record (default 1 MiB; a
    /// larger answer is sent once, and its repetitions are refused).
    #[must_use]
    pub fn with_limits(self, request: usize, record: usize) -> Self {
        self.with(|settings| (settings.request_limit, settings.record_limit) = (request, record))
    }

    /// The name, in every response to a call with a key, of the servers that share this store
    /// ([`DOMAIN`](crate::DOMAIN)): give all of them the same name, and the same after a restart if
    /// the store survives it. Every caller can read it: do not derive it from a URL with a
    /// password. Default: the store's own ([`Store::domain`]), or else a random, unique one.
    ///
    /// # Errors
    /// When `domain` is not a header value.
    pub fn with_domain(self, domain: &str) -> Result<Self, Invalid> {
        let refused = || Invalid::new("domain", "an invalid header value", "printable ASCII");
        let value = lasting(domain).ok_or_else(refused)?;
        Ok(self.with(|settings| settings.domain = Some(value)))
    }

    /// Sets the switch that decides whether calls are recognised, only counted, or passed through.
    #[must_use]
    pub fn with_switch(self, switch: Switch) -> Self {
        self.with(|settings| settings.switch = switch)
    }

    /// The outcomes of the calls so far, through this layer and its clones.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.cells.snapshot(self.shared.store.evicted())
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
        let Settings { methods, switch, .. } = &self.shared.settings;
        if switch.mode() != Mode::Off && methods.kinds().next().is_none() {
            tracing::warn!("no repeated call is recognised: {NO_METHODS}");
        }
        Dedup { inner, shared: self.shared.clone() }
    }
}
