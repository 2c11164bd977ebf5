//! How endpoints are connected, picked and ejected.

use crate::{OutlierDetection, Picker, Utilization};
use cinchona_core::{BoxError, Gate, Invalid, Rng, Target};
use cinchona_plumbing::{Backoff, Jitter};
use std::{fmt, sync::Arc, time::Duration};
use tonic::transport::Endpoint;

/// How endpoints are connected, picked and ejected.
#[derive(Clone)]
pub struct Options {
    /// How the next endpoint is picked. Default: power of two choices over peak EWMA.
    pub picker: Picker,
    /// Whether [`Picker::PickFirst`] shuffles each new list of endpoints (gRFC A62), so that not
    /// all clients use the same. Default: no.
    pub shuffle_address_list: bool,
    /// How load reports become weights, for [`Picker::WeightedRoundRobin`]; the other pickers
    /// ignore them. Default: as in gRFC A58.
    pub utilization: Utilization,
    /// When an endpoint is ejected. Default: never (both of gRPC's algorithms are off). It has no
    /// effect with [`Picker::PickFirst`], as in gRPC.
    pub outlier: OutlierDetection,
    /// If less than this share of the connected endpoints is not ejected, in percent, all are used:
    /// Envoy's [panic threshold](https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/panic_threshold).
    /// Default 0, never, as in gRPC; 0 to 100.
    pub panic_threshold: u32,
    /// How long a call waits without a usable endpoint: from the start of an outage of all
    /// endpoints, or while they are being found or connected from its own start. Then it fails with
    /// `UNAVAILABLE` and the reason.
    ///
    /// Default 1.5 s, which covers a server's restart. 0 is gRPC's fail-fast: a call fails
    /// immediately if all endpoints are in [`TransientFailure`](crate::State::TransientFailure),
    /// and waits for connecting ones as long as they take. `Duration::MAX`: without limit.
    pub patience: Duration,
    /// How long making a connection may take: until the server has sent its SETTINGS. Default 5 s
    /// (gRPC's is 20 s); more than 0.
    pub connect_timeout: Duration,
    /// The backoff of failed endpoints, from the beginning of one attempt to that of the next.
    /// Default 1 s, 1.6 s, ... at most 120 s, each ±20 % (gRPC's [connection backoff][backoff]). It
    /// restarts when the server has sent its SETTINGS; when the source has found other endpoints;
    /// and when an endpoint is usable after an outage of all.
    ///
    /// [backoff]: https://github.com/grpc/grpc/blob/master/doc/connection-backoff.md
    pub backoff: Backoff,
    /// The keepalive interval, after which a silent endpoint with calls is pinged, and how long it
    /// may take to answer before the connection is closed (gRFC A8). Default `None`: never. Each at
    /// least 10 ms; `Duration::MAX` is without limit.
    ///
    /// Servers close the connections of clients that ping more often than allowed, and gRPC's allow
    /// one ping in five minutes by default. When an endpoint does so (`too_many_pings`), its
    /// interval is doubled.
    pub keep_alive: Option<(Duration, Duration)>,
    /// How long sent data may stay unacknowledged before the connection is closed
    /// (`TCP_USER_TIMEOUT`, on Linux; gRFC A18). Default 20 s; `None` leaves it to the system. Only
    /// for the connector of [`Balance::new`](crate::Balance::new).
    pub user_timeout: Option<Duration>,
    /// The most bytes of headers, or of trailers, in a response, for example of a status with a
    /// long message or large details. Default 256 KiB (hyper's is 16 KiB, grpc-go's 16 MiB). This
    /// client resets a larger one, with a status that names the limit; one larger by more than a
    /// quarter ends the connection, as h2 takes it for an attack (CVE-2024-27316).
    pub max_header_list_size: u32,
    /// The health check: endpoints are used while they report this service as healthy
    /// (`grpc.health.v1`, gRFC A17); an empty name means the server as a whole.
    /// [`Picker::PickFirst`] does not check, as in gRPC. Default: no check.
    pub health: Option<String>,
    /// Creates the gate of each endpoint, such as a circuit breaker; calls go to endpoints that
    /// admit them, and fail with `UNAVAILABLE` if none does. An endpoint whose gate panics during
    /// creation is not used. Default: none.
    pub gate: Option<MakeGate>,
    /// Has a connection made by tonic's transport, with TLS, a user agent, an origin or windows of
    /// the endpoint that it returns. `None` leaves the connection to the balancer, which costs less
    /// per call, but only without TLS. It is called for every connection, so that certificates can
    /// be rotated; if it fails or panics, the attempt to connect has failed. Default: none.
    ///
    /// Its argument has the target's URI, and windows with which unread streams do not stop others:
    /// 1 MiB for a stream, and the most that HTTP/2 allows for the connection.
    ///
    /// ```
    /// use cinchona_balance::Options;
    /// use std::{sync::Arc, time::Duration};
    ///
    /// let configure = Arc::new(|endpoint: tonic::transport::Endpoint| {
    ///     let endpoint = endpoint.user_agent("orders/1.0")?;
    ///     Ok(Some(endpoint.tcp_keepalive(Some(Duration::from_secs(60)))))
    /// });
    /// let options = Options { configure: Some(configure), ..Options::default() };
    /// ```
    pub configure: Option<Configure>,
    /// The source of randomness for picks, shuffles and jitter.
    pub rng: Rng,
}

/// Creates the gate of an endpoint.
pub(crate) type MakeGate = Arc<dyn Fn(&Target) -> Arc<dyn Gate> + Send + Sync>;

/// Makes the endpoint of a connection, if tonic's transport is to make it.
pub(crate) type Configure =
    Arc<dyn Fn(Endpoint) -> Result<Option<Endpoint>, BoxError> + Send + Sync>;

/// More frequent pings would be most of a connection's traffic.
const LEAST_KEEP_ALIVE: Duration = Duration::from_millis(10);

// === impl Options ===

impl Options {
    pub(crate) fn checked(self) -> Result<Self, Invalid> {
        if self.panic_threshold > 100 {
            return Err(Invalid::new("panic_threshold", self.panic_threshold, "0 to 100"));
        }
        if self.connect_timeout.is_zero() {
            return Err(Invalid::new("connect_timeout", "0s", "more than 0"));
        }
        if self.user_timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(Invalid::new("user_timeout", "0s", "more than 0"));
        }
        if self.max_header_list_size == 0 {
            return Err(Invalid::new("max_header_list_size", 0, "at least 1"));
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

    /// The default for a single endpoint, which is tried again sooner, as there is no other: after
    /// 250 ms, 375 ms, ... at most 5 s, each ±20 %. So an outage of a second fits into the
    /// [`patience`](Self::patience).
    pub fn of_one_endpoint() -> Self {
        let backoff = Backoff::new(Duration::from_millis(250), 1.5, Duration::from_secs(5));
        let backoff = backoff.unwrap_or_default().with_jitter(Jitter::Grpc);
        Self { backoff, ..Self::default() }
    }

    /// How long a call waits for endpoints that are being found or connected.
    pub(crate) fn grace(&self) -> Duration {
        if self.patience.is_zero() { self.connect_timeout } else { self.patience }
    }

    /// Whether the health of endpoints is checked.
    pub(crate) fn asks_for_health(&self) -> bool {
        self.health.is_some() && self.picker != Picker::PickFirst
    }

    /// gRPC's connection backoff.
    fn grpc_backoff() -> Backoff {
        let backoff = Backoff::new(Duration::from_secs(1), 1.6, Duration::from_secs(120));
        backoff.unwrap_or_default().with_jitter(Jitter::Grpc)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            picker: Picker::default(),
            shuffle_address_list: false,
            utilization: Utilization::default(),
            outlier: OutlierDetection::default(),
            panic_threshold: 0,
            patience: Duration::from_millis(1500),
            connect_timeout: Duration::from_secs(5),
            backoff: Self::grpc_backoff(),
            keep_alive: None,
            user_timeout: Some(Duration::from_secs(20)),
            max_header_list_size: 256 * 1024,
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
            .field("backoff", &self.backoff)
            .field("health", &self.health)
            .finish_non_exhaustive()
    }
}
