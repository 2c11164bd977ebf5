//! The settings of a dedup layer.

use crate::{authorize::Authorize, caller::Callers};
use cinchona_core::{IDEMPOTENCY_KEY, Invalid, Methods, PerMethod, Switch};
use cinchona_plumbing::Callback;
use cinchona_policy::dedup::{Guarantee, InFlight};
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Request};
use std::{fmt, future::Future, sync::Arc, time::Duration};
use tonic::{Code, Status};

/// The settings of a [`DedupLayer`](crate::DedupLayer).
#[derive(Clone, PartialEq)]
pub struct DedupSettings {
    pub(crate) methods: Methods,
    pub(crate) in_flight: InFlight,
    pub(crate) guarantee: Guarantee,
    pub(crate) fail_open: bool,
    pub(crate) required: PerMethod<bool>,
    pub(crate) fragments: PerMethod<Vec<u8>>,
    pub(crate) key_alone: PerMethod<bool>,
    pub(crate) callers: Callers,
    pub(crate) authorize: Option<Authorize>,
    /// The codes by which handlers declare that they have not begun.
    pub(crate) released: Vec<Code>,
    pub(crate) lease: Duration,
    pub(crate) request_limit: usize,
    pub(crate) record_limit: usize,
    pub(crate) domain: Option<&'static HeaderValue>,
    pub(crate) switch: Option<Switch>,
}

// === impl DedupSettings ===

impl DedupSettings {
    /// Recognises repeated calls. Only unary methods that `methods` lists can be recognised.
    pub fn new(methods: Methods) -> Self {
        Self {
            methods,
            in_flight: InFlight::default(),
            guarantee: Guarantee::default(),
            fail_open: false,
            required: PerMethod::new(),
            fragments: PerMethod::new(),
            key_alone: PerMethod::new(),
            callers: Callers::default(),
            authorize: None,
            released: Vec::new(),
            lease: Duration::from_secs(30),
            request_limit: 4 << 20,
            record_limit: 1 << 20,
            domain: None,
            switch: None,
        }
    }

    /// Sets what happens to a call while another with its key is being executed. Default: it joins.
    #[must_use]
    pub fn with_in_flight(self, in_flight: InFlight) -> Self {
        Self { in_flight, ..self }
    }

    /// Sets what happens after an execution whose outcome is unknown. Default: at most once.
    #[must_use]
    pub fn with_guarantee(self, guarantee: Guarantee) -> Self {
        Self { guarantee, ..self }
    }

    /// Whether calls are executed unprotected while the store does not answer; by default they are
    /// refused with `UNAVAILABLE`.
    #[must_use]
    pub fn with_fail_open(self, open: bool) -> Self {
        Self { fail_open: open, ..self }
    }

    /// Sets which methods refuse a call without a key: `true` for all with side effects, or by
    /// method. Default: none.
    #[must_use]
    pub fn with_required(self, required: impl Into<PerMethod<bool>>) -> Self {
        let required = required.into();
        Self { required, ..self }
    }

    /// Appends to replayed messages of a method an encoded message of the same type, whose fields
    /// replace those of the first answer (protobuf merges concatenated messages): such as
    /// `was_duplicate: true`.
    #[must_use]
    pub fn with_fragments(self, fragments: PerMethod<Vec<u8>>) -> Self {
        Self { fragments, ..self }
    }

    /// Whether a repetition is recognised by its key alone: `true` for every method, or by method.
    /// By default the same key with another request is refused; requests are the same if their
    /// messages are equal by the .proto, however they are encoded. If they differ between attempts
    /// (by a timestamp, for example), compare by key alone: the first answer is then given to every
    /// request with its key.
    #[must_use]
    pub fn with_key_alone(self, key_alone: impl Into<PerMethod<bool>>) -> Self {
        let key_alone = key_alone.into();
        Self { key_alone, ..self }
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
        Self { callers: Callers::Named(Callback(Arc::new(caller))), ..self }
    }

    /// Names the caller by the header `name`; a call without it is identified by the
    /// [default](crate#who-a-caller-is). The header must be set or verified before this layer (by a
    /// proxy, or a layer outside): otherwise a caller can impersonate another.
    #[must_use]
    pub fn by_header(self, name: HeaderName) -> Self {
        Self { callers: Callers::Header(name), ..self }
    }

    /// Identifies callers by their addresses, without ports, or as users of a Unix socket. Behind a
    /// proxy or NAT many are one: one that guesses a key there and sends the same request gets the
    /// same answer.
    #[must_use]
    pub fn by_peer(self) -> Self {
        Self { callers: Callers::Peer, ..self }
    }

    /// Treats all callers as one: each that knows a key, and sends the same request, gets the same
    /// answer. For servers whose callers trust each other, or that forward a call to one another.
    #[must_use]
    pub fn by_key(self) -> Self {
        Self { callers: Callers::Shared, ..self }
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
    /// use cinchona_idempotency::{DedupSettings, MemoryStore};
    /// use tonic::Status;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let settings = DedupSettings::new(Methods::unknown()).with_authorize(
    ///     |request| async move {
    ///         match request.headers().contains_key("authorization") {
    ///             true => Ok(()),
    ///             false => Err(Status::unauthenticated("who are you?")),
    ///         }
    ///     },
    /// );
    /// let dedup = settings.layer(MemoryStore::new());
    /// # drop(dedup);
    /// # }
    /// ```
    #[must_use]
    pub fn with_authorize<F, A>(self, ask: F) -> Self
    where
        F: Fn(Request<()>) -> A + Send + Sync + 'static,
        A: Future<Output = Result<(), Status>> + Send + 'static,
    {
        Self { authorize: Some(Authorize::new(ask)), ..self }
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
        Ok(Self { released: codes, ..self })
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
        Ok(Self { lease, ..self })
    }

    /// The most bytes of a request's message, as sent and decompressed (default 4 MiB, tonic's own
    /// limit; a larger one is refused with `OUT_OF_RANGE`), and of a record (default 1 MiB; a
    /// larger answer is sent once, and its repetitions are refused).
    #[must_use]
    pub fn with_limits(self, request: usize, record: usize) -> Self {
        Self { request_limit: request, record_limit: record, ..self }
    }

    /// The name, in every response to a call with a key, of the servers that share this store
    /// ([`DOMAIN`](crate::DOMAIN)): give all of them the same name, and the same after a restart if
    /// the store survives it. Every caller can read it: do not derive it from a URL with a
    /// password. Default: the store's own ([`Store::domain`](crate::Store::domain)), or else a
    /// random, unique one.
    ///
    /// # Errors
    /// When `domain` is not a header value.
    pub fn with_domain(self, domain: &str) -> Result<Self, Invalid> {
        let refused = || Invalid::new("domain", "an invalid header value", "printable ASCII");
        let value = lasting(domain).ok_or_else(refused)?;
        Ok(Self { domain: Some(value), ..self })
    }

    /// Sets the switch that decides whether calls are recognised, only counted, or passed through.
    ///
    /// In shadow a call has the outcome, the deadline and the end that it would have without the
    /// layer. But a request is still read before it is passed on, an answer before it is sent, and
    /// the store is asked for both: the call takes as long as that, and an answer that breaks off
    /// is a status alone.
    #[must_use]
    pub fn with_switch(self, switch: Switch) -> Self {
        Self { switch: Some(switch), ..self }
    }

    /// Whether a call may have a key, or must have one.
    pub(crate) fn concern<B>(&self, request: &Request<B>) -> bool {
        let path = request.uri().path();
        let may_have_one = || {
            request.headers().contains_key(IDEMPOTENCY_KEY)
                || self.methods.request_id_field(path).is_some()
                || self.required.get(path) == Some(&true)
        };
        self.methods.is_unary_with_effects(path) && may_have_one()
    }
}

/// A unique name of servers.
pub(crate) fn random() -> Option<&'static HeaderValue> {
    lasting(&uuid::Uuid::new_v4().simple().to_string())
}

/// The header value, leaked: there are few, all answers have them, and a reference count would be
/// contended by all threads.
pub(crate) fn lasting(domain: &str) -> Option<&'static HeaderValue> {
    // The text of other values cannot be a static one.
    HeaderValue::from_str(domain).ok().filter(|value| !value.is_empty())?.to_str().ok()?;
    let domain: &'static str = Box::leak(domain.into());
    Some(Box::leak(Box::new(HeaderValue::from_static(domain))))
}

impl fmt::Debug for DedupSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DedupSettings")
            .field("in_flight", &self.in_flight)
            .field("guarantee", &self.guarantee)
            .field("fail_open", &self.fail_open)
            .field("callers", &self.callers)
            .field("lease", &self.lease)
            .field("domain", &self.domain)
            .finish_non_exhaustive()
    }
}
