//! The same key, the same answer: effects that happen once however often a call is sent.
//!
//! # Why
//!
//! A reply that is lost looks like a request that was lost, so whoever retries may have a call
//! executed twice: harmless where it only reads, wrong where it counts, ruinous where it pays.
//! The client names each logical call ([`IdempotencyKeyLayer`]), the server remembers what it has
//! answered ([`DedupLayer`]), and any unary method is safe to retry and to hedge, with nothing to
//! change in its handler.
//!
//! # Rule
//!
//! * A call's key is the field `string request_id` of its message where that is set ([AIP-155]),
//!   else the header `idempotency-key`: 1 to 255 bytes of printable ASCII. It counts within its
//!   method and its caller ([`DedupLayer::with_caller`]).
//! * *First:* the call is executed under a lease. *In flight:* a second one waits for the first
//!   one's answer, or is refused ([`InFlight`]). *Answered:* it is answered byte for byte as the
//!   first was, with `idempotent-replayed: true`. *Another request under the same key:*
//!   `INVALID_ARGUMENT`, reason `IDEMPOTENCY_KEY_REUSED`.
//! * Kept are OK and the failures that a repetition would meet again. Not kept are `UNAVAILABLE`,
//!   `ABORTED`, `RESOURCE_EXHAUSTED` and `UNAUTHENTICATED`: by what they mean the handler has not
//!   begun. Where it has, and nobody knows how far it came (a panic, a lost lease, `INTERNAL`,
//!   `UNKNOWN`, `DATA_LOSS`, `DEADLINE_EXCEEDED`, `CANCELLED`), [`Guarantee`] decides.
//! * A caller that gives up does not stop an execution: it goes on for as long as its lease, and a
//!   retry finds its answer.
//! * Every response names the server's [`DOMAIN`]; an attempt that says it follows one in another
//!   domain is refused (`FAILED_PRECONDITION`, reason `IDEMPOTENCY_DOMAIN_MISMATCH`), as this
//!   server would not recognise it.
//! * Methods that stream, that say `NO_SIDE_EFFECTS` or that the .proto does not list pass through.
//!
//! # Example
//!
//! ```
//! use cinchona_core::Methods;
//! use cinchona_idempotency::{DedupLayer, MemoryStore};
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! # use prost::Message;
//! # use prost_types::{
//! #     FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto, ServiceDescriptorProto,
//! # };
//! # let mut service = ServiceDescriptorProto::default();
//! # let mut file = FileDescriptorProto::default();
//! # service.name = Some("Bank".into());
//! # let pay = MethodDescriptorProto { name: Some("Pay".into()), ..Default::default() };
//! # service.method.push(pay);
//! # file.service.push(service);
//! # let descriptors = FileDescriptorSet { file: vec![file] }.encode_to_vec();
//! # use std::{convert::Infallible, sync::atomic::{AtomicU32, Ordering}};
//! # use tonic::{Status, body::Body};
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! static PAID: AtomicU32 = AtomicU32::new(0);
//! let service = service_fn(|_: http::Request<Body>| async {
//!     PAID.fetch_add(1, Ordering::Relaxed);
//!     Ok::<_, Infallible>(Status::ok("").into_http::<Body>())
//! });
//! let methods = Methods::from_file_descriptor_set(&descriptors).unwrap();
//! let dedup = DedupLayer::new(MemoryStore::new(), methods);
//!
//! for attempt in 0..3 {
//!     let request = http::Request::post("/Bank/Pay").header("idempotency-key", "k1");
//!     let response = dedup.layer(service).oneshot(request.body(Body::empty()).unwrap());
//!     let replayed = response.await.unwrap().headers().contains_key("idempotent-replayed");
//!     assert_eq!(replayed, attempt > 0);
//! }
//! assert_eq!(PAID.load(Ordering::Relaxed), 1);
//! # }
//! ```
//!
//! # What it costs
//!
//! With the store in memory a first call takes 1.1 µs and 10 allocations more than without this
//! layer, an answer that is replayed half a microsecond and no handler. A record takes 227 bytes
//! where the answer has 64, with a million of them. Two threads do 1.5 times what one does, where
//! without the layer it is twice as much (`cargo xtask bench dedup`). In Redis, claim and finish
//! of 64 callers at once run at 0.6 to 0.7 of the rate of a bare `SET NX PX` and a bare `SET`
//! (`cargo xtask bench redis`).
//!
//! # What it does not do
//!
//! It cannot make two things one that are two: a handler that changes a database and crashes before
//! its answer is stored leaves an effect without a record, which is then ambiguous. Where that must
//! not be, keep what the handler changes in a [`State`], with which the record is committed.
//!
//! [AIP-155]: https://google.aip.dev/155

mod call;
pub mod conformance;
mod counters;
mod key;
mod lease;
mod memory;
pub mod record;
mod refusal;
mod request_id;
mod settings;
mod state;
mod store;

pub use cinchona_core::{DOMAIN, IDEMPOTENCY_KEY};
pub use counters::Snapshot;
pub use memory::MemoryStore;
pub use request_id::{IdempotencyKey, IdempotencyKeyLayer, REQUEST_ID};
pub use settings::{Guarantee, InFlight};
pub use state::{Execution, State, fenced};
pub use store::{Claim, Store, Wait};

use call::Call;
use cinchona_core::{Invalid, Methods, Mode, PerMethod, Switch};
use counters::Cells;
use http::{Extensions, HeaderMap, HeaderValue, Request, Response};
use lease::{Begun, Tokens, Unstoppable};
use pin_project_lite::pin_project;
use settings::Settings;
use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tonic::{body::Body, server::NamedService};
use tower_layer::Layer;
use tower_service::Service;

/// Applies [`Dedup`] to a server, or to a single service.
#[derive(Debug)]
pub struct DedupLayer<T> {
    shared: Arc<Shared<T>>,
}

/// Executes each call once, and answers its repetitions as it answered the first.
#[derive(Debug)]
pub struct Dedup<S, T> {
    inner: S,
    shared: Arc<Shared<T>>,
}

#[derive(Debug)]
struct Shared<T> {
    store: T,
    settings: Settings,
    cells: Cells,
    tokens: Tokens,
}

pin_project! {
    /// The future of a [`Dedup`] call.
    pub struct ResponseFuture<F, E: 'static> {
        #[pin]
        way: Way<F, E>,
        domain: Option<HeaderValue>,
    }
}

pin_project! {
    #[project = WayProj]
    enum Way<F, E: 'static> {
        Through { #[pin] inner: F },
        Keyed { #[pin] inner: Unstoppable<Result<Response<Body>, E>> },
    }
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
    pub fn with_in_flight(self, in_flight: InFlight) -> Self {
        self.with(|settings| settings.in_flight = in_flight)
    }

    /// What happens after an execution whose outcome is unknown. Default: at most once.
    pub fn with_guarantee(self, guarantee: Guarantee) -> Self {
        self.with(|settings| settings.guarantee = guarantee)
    }

    /// Whether calls are executed unprotected while the store does not answer; by default they are
    /// refused with `UNAVAILABLE`.
    pub fn with_fail_open(self, open: bool) -> Self {
        self.with(|settings| settings.fail_open = open)
    }

    /// Which methods refuse a call without a key: `true` for all that are not without side effects,
    /// or by method. Default: none.
    pub fn with_required(self, required: impl Into<PerMethod<bool>>) -> Self {
        let required = required.into();
        self.with(|settings| settings.required = required)
    }

    /// Appends to the messages that a method replays an encoded message of the same type, whose
    /// fields take the place of the first answer's (protobuf merges what is concatenated): such as
    /// `was_duplicate: true`.
    pub fn with_fragments(self, fragments: PerMethod<Vec<u8>>) -> Self {
        self.with(|settings| settings.fragments = fragments)
    }

    /// Who makes a call, by its headers and extensions: keys of different callers have nothing to
    /// do with each other. Without this all callers are one, and whoever guesses a key and sends
    /// the same request gets the same answer; so where callers do not trust each other, name them,
    /// by what they were authenticated as.
    pub fn with_caller<F>(self, caller: F) -> Self
    where
        F: Fn(&HeaderMap, &Extensions) -> Option<String> + Send + Sync + 'static,
    {
        self.with(|settings| settings.caller = Some(Arc::new(caller)))
    }

    /// How long an execution may take before it is cut off. Default 30 s; `Duration::MAX` for ever.
    ///
    /// # Errors
    /// When it is zero.
    pub fn with_lease(self, lease: Duration) -> Result<Self, Invalid> {
        if lease.is_zero() {
            return Err(Invalid::new("lease", "0s", "more than 0"));
        }
        Ok(self.with(|settings| settings.lease = lease))
    }

    /// The most bytes of a request, which is read as a whole (default 4 MiB, tonic's own limit),
    /// and of a record (default 1 MiB); an answer over that is given once, and then refused.
    pub fn with_limits(self, request: usize, record: usize) -> Self {
        self.with(|settings| (settings.request_limit, settings.record_limit) = (request, record))
    }

    /// Names in every response the servers that share this store ([`DOMAIN`]): give all of them
    /// the same name, and the same after a restart if the store survives it. Every caller reads
    /// it: do not make it of a URL with a password. Default: the store's own
    /// ([`Store::domain`]), or else a random name, which no other has.
    ///
    /// # Errors
    /// When `domain` is no header value.
    pub fn with_domain(self, domain: &str) -> Result<Self, Invalid> {
        let value = HeaderValue::from_str(domain);
        let value = value
            .map_err(|_| Invalid::new("domain", "what is no header value", "printable ASCII"))?;
        Ok(self.with(|settings| settings.domain = Some(value)))
    }

    /// Lets `switch` decide whether calls are recognised, only counted, or passed through.
    pub fn with_switch(self, switch: Switch) -> Self {
        self.with(|settings| settings.switch = switch)
    }

    /// What became of the calls so far, through this layer and its clones.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.cells.snapshot()
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
        Dedup { inner, shared: self.shared.clone() }
    }
}

// === impl Dedup ===

impl<S, T> Service<Request<Body>> for Dedup<S, T>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send + 'static,
    T: Store,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let settings = &self.shared.settings;
        let (mode, domain) = (settings.switch.mode(), settings.domain.clone());
        if mode == Mode::Off || !settings.concern(request.uri().path()) {
            let inner = self.inner.call(request);
            return ResponseFuture { way: Way::Through { inner }, domain };
        }
        let (clone, begun) = (self.inner.clone(), Begun::default());
        let call = Call {
            service: mem::replace(&mut self.inner, clone),
            request,
            shared: self.shared.clone(),
            mode,
            begun: begun.clone(),
        };
        let inner = Unstoppable::new(call.answer(), begun);
        ResponseFuture { way: Way::Keyed { inner }, domain }
    }
}

impl<S: Clone, T> Clone for Dedup<S, T> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), shared: self.shared.clone() }
    }
}

impl<S: NamedService, T> NamedService for Dedup<S, T> {
    const NAME: &'static str = S::NAME;
}

// === impl ResponseFuture ===

impl<F, E> Future for ResponseFuture<F, E>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = Result<Response<Body>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut answered = ready!(match this.way.project() {
            WayProj::Through { inner } => inner.poll(cx),
            WayProj::Keyed { inner } => inner.poll(cx),
        });
        if let (Ok(response), Some(domain)) = (&mut answered, this.domain.take()) {
            response.headers_mut().insert(DOMAIN, domain);
        }
        Poll::Ready(answered)
    }
}

impl<F, E> fmt::Debug for ResponseFuture<F, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
