//! Load balancing: connections that survive short outages, a pick among many endpoints, ejection of
//! outliers.
//!
//! # Why
//!
//! With one dead endpoint of three, tonic's `balance_list` fails a quarter of the calls, picks at
//! random and never backs off; and for a single endpoint tonic makes one connection attempt for
//! each call without a connection, so a server that restarts within a second fails every call of
//! that second.
//!
//! # Rule
//!
//! * [`Balance`] keeps a connection to every endpoint, and sends calls only to connected ones: an
//!   endpoint that is down costs no call. [`connect_lazy`] is the same over a list of one.
//! * It speaks HTTP/2 itself, on h2: the caller's task sends the request and reads the answer,
//!   without the queues of a tonic `Channel`, for a quarter less work. TLS, and what else only a
//!   tonic `Endpoint` can say ([`Options::configure`], [`of_endpoint`]), is for tonic's transport.
//! * The states of an endpoint are gRPC's ([`State`]): it is ready when its server has sent its
//!   HTTP/2 SETTINGS, within [`Options::connect_timeout`]; over TLS, when the session is
//!   established with HTTP/2 (ALPN).
//! * An endpoint that is down is tried again by [`Options::backoff`]: after 1 s, 1.6 s, ... at most
//!   120 s, each ±20 % (gRPC's connection backoff). A lost connection is replaced immediately,
//!   unless connections end soon after one another.
//! * A call without a usable endpoint waits for at most [`Options::patience`] (1.5 s), and then
//!   fails with `UNAVAILABLE`, and the state of each endpoint since when; the deadline above
//!   counts.
//! * A vanished peer is detected by the calls that it does not answer: a call that has waited for
//!   at least 500 ms on a connection without data since makes the balancer open a second
//!   connection. Calls go there once it is ready; if that takes more than a second, the endpoint
//!   gets none. `TCP_USER_TIMEOUT` detects unacknowledged data (gRFC A18), and keepalive is
//!   optional (gRFC A8).
//! * The [`Picker`] chooses the next endpoint; a retry or a hedge goes to one that its call has not
//!   used, if there is one.
//! * A call with an `idempotency-key` is sent again only within the dedup domain of its first
//!   attempt (`idempotency-domain`), or if that is unknown to the same endpoint.
//! * An endpoint whose gate is shut gets no calls ([`Options::gate`]): such as a circuit breaker.
//! * [`Picker::WeightedRoundRobin`] weighs by utilization (gRFC A58, [`Utilization`]), as endpoints
//!   report theirs with their answers: `endpoint-load-metrics-bin` in the trailers, an
//!   `xds.data.orca.v3.OrcaLoadReport`. The weight is `qps / (utilization + eps / qps *
//!   error_utilization_penalty)` and replaces [`Target::weight`]; an endpoint without one gets the
//!   mean. While fewer than two have a valid one, [`Target::weight`] counts.
//! * [`OutlierDetection`] (gRFC A50) ejects endpoints that fail more than others. If fewer than
//!   [`Options::panic_threshold`] were left, all are used.
//!
//! # Example
//!
//! ```
//! use cinchona_balance::{Balance, Options, Picker};
//! use cinchona_core::Target;
//! use http::Uri;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(),
//! cinchona_core::Invalid> { let endpoints: Vec<Target> = ["http://10.0.0.1:50051",
//! "http://10.0.0.2:50051"]     .map(|uri| Uri::from_static(uri).into())
//!     .into();
//! let options = Options { picker: Picker::RoundRobin, ..Options::default() };
//! let channel = Balance::new(endpoints, options)?;
//! assert_eq!(channel.states().len(), 2);
//! # Ok(())
//! # }
//! ```
//!
//! # What it does not do
//!
//! It does not retry: a call on a lost connection fails, and is for the retry layer. It requests no
//! load reports out of band (`OpenRcaService`). It cannot read a server's frames inside of TLS: the
//! next call detects a GOAWAY there, and fails with a verdict that lets it be sent again, and a
//! watch of health is renewed every 30 s so that it delays no shutdown.

mod address;
mod callback;
mod channel;
mod dial;
mod dns;
mod drive;
mod engine;
mod failed;
mod flight;
mod frames;
mod handle;
mod health;
mod http2;
mod metrics;
mod node;
mod options;
mod pick;
mod report;
mod response;
mod sender;
mod set;
mod snapshot;
mod source;
mod stir;
mod sync;
mod wait;
mod wire;

pub use cinchona_plumbing::{Avoid, ResponseBody, Signals, Ticket};
#[doc(inline)]
pub use cinchona_policy::{
    Backoff, Jitter,
    connect::State,
    outlier::{Ejections, FailurePercentage, OutlierDetection, SuccessRate},
    pick::Picker,
    utilization::Utilization,
};
pub use dial::Tcp;
pub use dns::Dns;
pub use options::Options;
pub use response::ResponseFuture;
pub use snapshot::Snapshot;

use address::Place;
use cinchona_core::{BoxError, Discover, Invalid, Target};
use cinchona_plumbing::clock::Passing;
use dial::{Dialer, dialer_of};
use engine::Engine;
use handle::Handle;
use http::{Request, Response, Uri};
use hyper::rt::{Read, Write};
use set::Set;
use std::{
    sync::Arc,
    task::{Context, Poll},
};
use tokio::time::Instant;
use tonic::{body::Body, transport::Endpoint};
use tower_service::Service;

/// A channel over one or more endpoints; clones share it.
#[derive(Clone, Debug)]
pub struct Balance(Handle);

/// How a balancer connects.
struct Connecting {
    by: address::Connector,
    dialer: Dialer,
    whole: Option<Endpoint>,
}

/// A channel to one endpoint that connects on first use: a [`Balance`] over a list of one, with
/// [`Options::of_one_endpoint`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), cinchona_core::Invalid> {
/// use cinchona_balance::connect_lazy;
/// use http::Uri;
///
/// let channel = connect_lazy(Uri::from_static("http://10.0.0.1:50051"))?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// When it is no address: `http://host:port` or a Unix domain socket. What needs TLS is an
/// [`of_endpoint`].
///
/// # Panics
/// Outside a tokio runtime.
pub fn connect_lazy(target: impl Into<Target>) -> Result<Balance, Invalid> {
    let (target, options) = (target.into(), Options::of_one_endpoint());
    if target.is_tls() {
        let given = target.without_userinfo();
        return Err(Invalid::new("endpoint", given, "without TLS; see `of_endpoint`"));
    }
    let dialer = Tcp::new().with_user_timeout(options.user_timeout).dialer();
    let by = Connecting { by: address::Connector::Ours, dialer, whole: None };
    Place::new(&target, by.by)?;
    Ok(Balance::over(vec![target], by, options))
}

/// The same as [`connect_lazy`] to a tonic `Endpoint`, with its settings.
///
/// TLS, HTTP/2, timeout and user agent are the endpoint's, and so is its `connect_timeout` (default
/// 5 s); its TCP settings are ignored. The window of its connections is as large as HTTP/2 allows,
/// so that unread streams do not stop others. Only tonic can read an `Endpoint`, so its transport
/// makes the connections; a call costs more than on those of [`connect_lazy`].
///
/// # Panics
/// Outside a tokio runtime.
pub fn of_endpoint(endpoint: Endpoint) -> Balance {
    let default = Options::of_one_endpoint();
    let connect_timeout = endpoint.get_connect_timeout().filter(|timeout| !timeout.is_zero());
    let options =
        Options { connect_timeout: connect_timeout.unwrap_or(default.connect_timeout), ..default };
    let target = Target::from(endpoint.uri().clone());
    let dialer = Tcp::new().dialer();
    let by = Connecting { by: address::Connector::Lenient, dialer, whole: Some(endpoint) };
    Balance::over(vec![target], by, options)
}

// === impl Balance ===

impl Balance {
    /// Connects to all endpoints that `discover` finds: a list, a watch, or [`Dns`].
    ///
    /// # Errors
    /// When an option is outside its range, or an initial endpoint of `discover` is not an address:
    /// `http://host:port`, `https://host[:port]`, or a Unix domain socket. An invalid one found
    /// later is logged, and left out.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(discover: impl Discover, options: Options) -> Result<Self, Invalid> {
        let options = options.checked()?;
        let dialer = Tcp::new().with_user_timeout(options.user_timeout).dialer();
        let by = Connecting { by: address::Connector::Ours, dialer, whole: None };
        Self::checked(discover, by, options)
    }

    /// The same, with your connector. It receives the URI of the target, with the address in place
    /// of the host if known; it interprets host and port itself.
    ///
    /// # Errors
    /// When an option is outside its range, or an initial endpoint of `discover` is not a URI with
    /// `http` or `https` and a host.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn with_connector<C>(
        discover: impl Discover,
        connector: C,
        options: Options,
    ) -> Result<Self, Invalid>
    where
        C: Service<Uri> + Clone + Send + Sync + 'static,
        C::Response: Read + Write + Unpin + Send + 'static,
        C::Error: Into<BoxError>,
        C::Future: Send,
    {
        let dialer = dialer_of(connector);
        let by = Connecting { by: address::Connector::Users, dialer, whole: None };
        Self::checked(discover, by, options.checked()?)
    }

    fn checked(
        mut discover: impl Discover,
        by: Connecting,
        options: Options,
    ) -> Result<Self, Invalid> {
        let known = discover.known();
        for target in known.iter().flatten() {
            Place::new(target, by.by)?;
        }
        Ok(Self::begin((discover, false), known, by, options))
    }

    /// Over a list that connects on first use.
    fn over(targets: Vec<Target>, by: Connecting, options: Options) -> Self {
        Self::begin((Vec::new(), true), Some(targets), by, options)
    }

    fn begin(
        (discover, is_lazy): (impl Discover, bool),
        known: Option<Vec<Target>>,
        by: Connecting,
        options: Options,
    ) -> Self {
        let set = Set::new(options, discover.signals(), by.by, Instant::now());
        if let Some(known) = known {
            set.replace(known);
        }
        let connector =
            channel::Connector { dialer: by.dialer, options: set.options.clone(), whole: by.whole };
        let task = tokio::spawn(Engine::new(&set, connector).run(discover, is_lazy));
        Self(Handle::new(set, task.abort_handle()))
    }

    /// The current state of each endpoint.
    pub fn states(&self) -> Vec<Snapshot> {
        self.0.set.states()
    }

    /// Returns the results of [`states`](Self::states), for an observer that must not keep the
    /// balancer: `None` once its last clone was dropped.
    pub fn watcher(&self) -> impl Fn() -> Option<Vec<Snapshot>> + Send + Sync + use<> {
        let set = Arc::downgrade(&self.0.set);
        move || Some(set.upgrade()?.states())
    }

    /// How many outliers were found, and how many of them were ejected (gRFC A91).
    pub fn ejections(&self) -> Ejections {
        self.0.set.ejections()
    }
}

impl Service<Request<Body>> for Balance {
    type Response = Response<ResponseBody>;
    type Error = BoxError;
    type Future = ResponseFuture;

    /// Always ready: which endpoint must be ready depends on the call.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let passing = Passing::begin();
        let now = passing.now();
        match self.0.set.pick(&request, now) {
            Some(Ok(picked)) => ResponseFuture::send(&self.0, picked, request, now),
            Some(Err(_)) if self.0.set.has_more() => ResponseFuture::wait(self.0.clone(), request),
            Some(Err(rejected)) => ResponseFuture::rejected(rejected, &request),
            None => ResponseFuture::wait(self.0.clone(), request),
        }
    }
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
mod tests;
