//! Endpoints: connections that ride out short outages, a pick among many, ejection of outliers.
//!
//! # Why
//!
//! tonic's `balance_list` with one dead endpoint of three fails a quarter of the calls, picks at
//! random and never backs off; and for a single endpoint tonic makes one connection attempt for
//! each call that finds none, so a server that restarts within a second fails every call of that
//! second.
//!
//! # Rule
//!
//! * [`Balance`] keeps a connection to every endpoint, and sends calls only where there is one: an
//!   endpoint that is down costs no call.
//! * An endpoint that is down is tried again after 1 s, 1.6 s, ... at most 120 s, each ±20 %
//!   (gRPC's connection backoff).
//! * Where no endpoint can be used, calls wait for the first 1.5 s of the outage, and then fail at
//!   once with `UNAVAILABLE`; the deadline above counts.
//! * Which endpoint is next is for the [`Picker`]; a retry or a hedge goes to one that its call has
//!   not been sent to, if there is one.
//! * A call with an `idempotency-key` is sent again only within the dedup domain that its first
//!   attempt was sent to (`idempotency-domain`), or where that is not known to the same endpoint.
//! * An endpoint whose gate is shut gets no calls ([`Options::gate`]): give it a circuit breaker.
//! * [`Picker::WeightedRoundRobin`] weighs by utilization (gRFC A58, [`Utilization`]), as endpoints
//!   report theirs with their answers: `endpoint-load-metrics-bin` in the trailers, an
//!   `xds.data.orca.v3.OrcaLoadReport`. The weight is
//!   `qps / (utilization + eps / qps * error_utilization_penalty)` and replaces [`Target::weight`];
//!   an endpoint that has none gets the mean. While fewer than two have one that may be used,
//!   [`Target::weight`] counts.
//! * [`OutlierDetection`] (gRFC A50) takes endpoints out that fail more than others. Where fewer
//!   than half were left, all are used.
//! * [`connect_lazy`] is for a single endpoint: at most one attempt to connect in 250 ms, however
//!   many calls wait.
//!
//! # Example
//!
//! ```
//! use cinchona_balance::{Balance, Options, Picker};
//! use cinchona_core::Target;
//! use http::Uri;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let endpoints: Vec<Target> = ["http://10.0.0.1:50051", "http://10.0.0.2:50051"]
//!     .map(|uri| Uri::from_static(uri).into())
//!     .into();
//! let options = Options { picker: Picker::RoundRobin, ..Options::default() };
//! let channel = Balance::new(endpoints, options).unwrap();
//! assert!(channel.states().is_empty(), "not yet");
//! # }
//! ```
//!
//! # What it does not do
//!
//! It does not retry: a call on a connection that is lost fails, and is for the retry layer. It
//! asks for no load reports out of band (`OpenRcaService`).

mod connect;
mod dns;
mod ejections;
mod flight;
mod load;
mod node;
mod outlier;
mod pick;
mod set;
mod snapshot;
mod utilization;
mod watched;

pub use connect::{Down, Reconnect, Tcp, connect_lazy};
pub use dns::Dns;
pub use ejections::Ejections;
pub use flight::{ResponseBody, ResponseFuture};
pub use node::State;
pub use outlier::{FailurePercentage, OutlierDetection, SuccessRate};
pub use pick::Picker;
pub use snapshot::Snapshot;
pub use utilization::Utilization;

use cinchona_core::{BoxError, Discover, Gate, Invalid, Rng, Target};
use http::{Request, Response, Uri};
use hyper::rt::{Read, Write};
use set::{Set, Tasks};
use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::Instant;
use tonic::{body::Body, transport::Endpoint};
use tower_service::Service;

/// A channel over many endpoints; its clones are the same.
#[derive(Clone, Debug)]
pub struct Balance {
    set: Arc<Set>,
    _tasks: Arc<Tasks>,
}

/// How endpoints are connected, picked and ejected.
#[derive(Clone)]
pub struct Options {
    /// Which endpoint is next. Default: power of two choices over peak EWMA.
    pub picker: Picker,
    /// How load reports make weights, for [`Picker::WeightedRoundRobin`]; the other pickers do not
    /// look at them. Default: as in gRFC A58.
    pub utilization: Utilization,
    /// When an endpoint is taken out. Default: never (both of gRPC's algorithms are off).
    pub outlier: OutlierDetection,
    /// If less than this share of the connected endpoints is not ejected, in percent, all are used.
    /// Default 50; 0 to 100.
    pub panic_threshold: u32,
    /// How long calls wait from the start of an outage of all endpoints. Default 1.5 s; 0 to fail
    /// at once, and `Duration::MAX` to wait for ever.
    pub patience: Duration,
    /// How long a connection may take to be made. Default 5 s; more than 0.
    pub connect_timeout: Duration,
    /// After how long without a word from the endpoint it is pinged, and how long it may take to
    /// answer before the connection is given up. Default 20 s and 10 s; `None` for never. Servers
    /// that allow fewer pings close the connection: grpc-go's default is one in five minutes. Each
    /// at least 10 ms (grpc-java's least timeout), and `Duration::MAX` for ever.
    pub keep_alive: Option<(Duration, Duration)>,
    /// How many bytes of headers, or of trailers, a response may have: a status with a long message
    /// or large details, say. Default 64 KiB (hyper's is 16 KiB, grpc-go's 16 MiB). This client
    /// resets what is larger, and its status says so.
    pub max_header_list_size: u32,
    /// Endpoints are used while they say that this service is healthy (`grpc.health.v1`, gRFC A17);
    /// an empty name asks for the server as a whole. Default: not asked.
    pub health: Option<String>,
    /// Makes the gate of each endpoint, such as a circuit breaker; calls go where they are let
    /// through, and fail with `UNAVAILABLE` where that is nowhere. Default: none.
    pub gate: Option<MakeGate>,
    /// Changes the endpoints that are connected: TLS, windows, origin.
    pub configure: Option<Arc<dyn Fn(Endpoint) -> Endpoint + Send + Sync>>,
    /// Where picks and jitter come from.
    pub rng: Rng,
}

/// Makes the gate of an endpoint.
type MakeGate = Arc<dyn Fn(&Target) -> Arc<dyn Gate> + Send + Sync>;

/// A connection that is pinged more often does little else.
const LEAST_KEEP_ALIVE: Duration = Duration::from_millis(10);

// === impl Balance ===

impl Balance {
    /// Connects to all endpoints that `discover` finds: a list, a watch, or [`Dns`].
    ///
    /// # Errors
    /// When an option is outside its range.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(discover: impl Discover, options: Options) -> Result<Self, Invalid> {
        Self::with_connector(discover, Tcp, options)
    }

    /// The same, by a connector of yours.
    ///
    /// # Errors
    /// When an option is outside its range.
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
        let set = Set::new(options.checked()?, Instant::now());
        let task = tokio::spawn(set.clone().follow(discover, connector));
        Ok(Self { set, _tasks: Arc::new(Tasks(task.abort_handle())) })
    }

    /// Each endpoint as it is now.
    pub fn states(&self) -> Vec<Snapshot> {
        self.set.states()
    }

    /// How many outliers were found, and what became of them (gRFC A91).
    pub fn ejections(&self) -> Ejections {
        self.set.ejections()
    }
}

impl Service<Request<Body>> for Balance {
    type Response = Response<ResponseBody>;
    type Error = BoxError;
    type Future = ResponseFuture;

    /// Always ready: which endpoint would have to be, is known with the call.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let now = Instant::now();
        match self.set.pick(&request, now) {
            Some(Ok(picked)) => ResponseFuture::send(self, picked, request, now),
            Some(Err(unsent)) => ResponseFuture::rejected(unsent),
            None => ResponseFuture::wait(self.clone(), request),
        }
    }
}

// === impl Options ===

impl Options {
    fn checked(self) -> Result<Self, Invalid> {
        if self.panic_threshold > 100 {
            return Err(Invalid::new("panic_threshold", self.panic_threshold, "0 to 100"));
        }
        if self.connect_timeout.is_zero() {
            return Err(Invalid::new("connect_timeout", "0s", "more than 0"));
        }
        let (after, within) = self.keep_alive.unwrap_or((Duration::MAX, Duration::MAX));
        for (field, time) in [("keep_alive.0", after), ("keep_alive.1", within)] {
            if time < LEAST_KEEP_ALIVE {
                return Err(Invalid::new(field, format!("{time:?}"), "at least 10ms"));
            }
        }
        let outlier = self.outlier.clone().checked()?;
        let utilization = self.utilization.checked()?;
        Ok(Self { outlier, utilization, ..self })
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            picker: Picker::default(),
            utilization: Utilization::default(),
            outlier: OutlierDetection::default(),
            panic_threshold: 50,
            patience: Duration::from_millis(1500),
            connect_timeout: Duration::from_secs(5),
            keep_alive: Some((Duration::from_secs(20), Duration::from_secs(10))),
            max_header_list_size: 64 * 1024,
            health: None,
            gate: None,
            configure: None,
            rng: Rng::from_os(),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("picker", &self.picker)
            .field("utilization", &self.utilization)
            .field("outlier", &self.outlier)
            .field("patience", &self.patience)
            .field("health", &self.health)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
