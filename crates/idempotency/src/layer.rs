//! The server's layer, and what it can be set to.

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
    /// Recognises repeated calls by `store`. Only methods that `methods` lists can be: it must know
    /// which of them stream.
    pub fn new(store: T, methods: Methods) -> Self {
        let settings = Settings::new(methods, store.domain().as_deref());
        Self::over(store, settings)
    }

    fn over(store: T, settings: Settings) -> Self {
        let (cells, tokens) = (Cells::default(), Tokens::new());
        Self { shared: Arc::new(Shared { store, settings, cells, tokens }) }
    }

    /// Another layer, with counters of its own.
    fn with(self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = self.shared.settings.clone();
        change(&mut settings);
        Self::over(self.shared.store.clone(), settings)
    }

    /// What happens to a call while another with its key is being executed. Default: it joins.
    #[must_use]
    pub fn with_in_flight(self, in_flight: InFlight) -> Self {
        self.with(|settings| settings.in_flight = in_flight)
    }

    /// What happens after an execution whose outcome is unknown. Default: at most once.
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

    /// Which methods refuse a call without a key: `true` for all that are not without side effects,
    /// or by method. Default: none.
    #[must_use]
    pub fn with_required(self, required: impl Into<PerMethod<bool>>) -> Self {
        let required = required.into();
        self.with(|settings| settings.required = required)
    }

    /// Appends to the messages that a method replays an encoded message of the same type, whose
    /// fields take the place of the first answer's (protobuf merges what is concatenated): such as
    /// `was_duplicate: true`.
    #[must_use]
    pub fn with_fragments(self, fragments: PerMethod<Vec<u8>>) -> Self {
        self.with(|settings| settings.fragments = fragments)
    }

    /// Whether a key is all that a repetition is known by: `true` for every method, or by method.
    /// By default the same key with another request is refused, where requests are the same if
    /// their messages mean the same by the .proto, however they are encoded. Where they do not
    /// (such as with the time of the attempt in them), compare by key alone, and the first answer
    /// is given to whatever comes under its key.
    #[must_use]
    pub fn with_key_alone(self, key_alone: impl Into<PerMethod<bool>>) -> Self {
        let key_alone = key_alone.into();
        self.with(|settings| settings.key_alone = key_alone)
    }

    /// Names the caller, as it was authenticated, by headers and extensions of the call: best of
    /// all choices, as it stays the same when a token is renewed. What it does not name (`None`) is
    /// known by the [default](crate#who-a-caller-is), and never as one that it names.
    ///
    /// Where the function panics, the call is refused (`INTERNAL`).
    #[must_use]
    pub fn with_caller<F>(self, caller: F) -> Self
    where
        F: Fn(&HeaderMap, &Extensions) -> Option<String> + Send + Sync + 'static,
    {
        self.with(|settings| settings.callers = Callers::Named(Arc::new(caller)))
    }

    /// A caller is named by the header `name`; one without it is known by the
    /// [default](crate#who-a-caller-is). It must be set or verified before this layer (by a proxy,
    /// or a layer outside): a caller that can choose its value can choose to be another.
    #[must_use]
    pub fn by_header(self, name: HeaderName) -> Self {
        self.with(|settings| settings.callers = Callers::Header(name))
    }

    /// Callers are addresses, without ports, or users of a Unix socket. Behind a proxy or NAT many
    /// are one: one that guesses a key there and sends the same request gets the same answer.
    #[must_use]
    pub fn by_peer(self) -> Self {
        self.with(|settings| settings.callers = Callers::Peer)
    }

    /// All callers are one: each that knows a key, and sends the same request, gets the same
    /// answer. For servers whose callers trust each other, or that hand a call on to one another.
    #[must_use]
    pub fn by_key(self) -> Self {
        self.with(|settings| settings.callers = Callers::Shared)
    }

    /// Asks `ask` before a call gets anything of an earlier one: with the method, the headers
    /// and the extensions of the request. What it refuses is answered with its status. A first
    /// call is not asked about, as its handler does the asking; nor is anybody in shadow.
    ///
    /// *Why:* a replay does not reach the handler, nor an interceptor below this layer. Where
    /// authorization stands outside this layer, as it should, nothing needs to be asked.
    ///
    /// Where it panics, the call is refused (`INTERNAL`).
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

    /// Takes your word for it that the handlers answer these codes only where they have not begun,
    /// or have undone what they began: such an answer is not kept. Default: none. What is so of one
    /// answer, a handler says by [`cinchona_plumbing::status::not_begun`].
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

    /// How long an execution may take at least before it is cut off. Default 30 s; `Duration::MAX`
    /// for ever. Where its caller's deadline leaves more, it may take so long, up to 1 h. That is
    /// the deadline that the handler sees, and that its own calls inherit: an execution goes on
    /// when its caller has given up, so it does not end when its caller's time does. A server that
    /// crashes leaves the key unanswered until then.
    ///
    /// # Errors
    /// When it is zero.
    pub fn with_lease(self, lease: Duration) -> Result<Self, Invalid> {
        if lease.is_zero() {
            return Err(Invalid::new("lease", "0s", "more than 0"));
        }
        Ok(self.with(|settings| settings.lease = lease))
    }

    /// The most bytes of a request's message, as it comes and decompressed (default 4 MiB, tonic's
    /// own limit; more are refused with `OUT_OF_RANGE`), and of a record (default 1 MiB; an answer
    /// over that is given once, and then refused).
    #[must_use]
    pub fn with_limits(self, request: usize, record: usize) -> Self {
        self.with(|settings| (settings.request_limit, settings.record_limit) = (request, record))
    }

    /// Names in every response the servers that share this store ([`DOMAIN`](crate::DOMAIN)): give
    /// all of them the same name, and the same after a restart if the store survives it. Every
    /// caller reads it: do not make it of a URL with a password. Default: the store's own
    /// ([`Store::domain`]), or else a random name, which no other has.
    ///
    /// # Errors
    /// When `domain` is no header value.
    pub fn with_domain(self, domain: &str) -> Result<Self, Invalid> {
        let refused = || Invalid::new("domain", "what is no header value", "printable ASCII");
        let value = lasting(domain).ok_or_else(refused)?;
        Ok(self.with(|settings| settings.domain = Some(value)))
    }

    /// Lets `switch` decide whether calls are recognised, only counted, or passed through.
    #[must_use]
    pub fn with_switch(self, switch: Switch) -> Self {
        self.with(|settings| settings.switch = switch)
    }

    /// What became of the calls so far, through this layer and its clones.
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
