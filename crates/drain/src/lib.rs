//! The end of a tonic server: what has begun may finish within a grace, and nothing outlives it.
//!
//! # Why
//!
//! tonic's `serve_with_incoming_shutdown` waits until every connection has closed, for ever if need
//! be: a client that watches health, holds a stream, reads slowly or has vanished keeps the process
//! until it is killed, and with it the calls that would have ended.
//!
//! # Rule
//!
//! 1. *Draining*, when the program stops it: no connection is accepted, `GOAWAY` asks clients to go
//!    elsewhere (RFC 9113, section 6.8), and calls that have begun go on. Streams that only wait
//!    (`grpc.health.v1.Health/Watch`, reflection, and whatever [`DrainLayer::with_watches`] names)
//!    hand on what they have, such as `NOT_SERVING`, and end with `UNAVAILABLE`.
//! 2. *Over*, when nine tenths of the grace have passed: gRPC calls that have not ended do so with
//!    `UNAVAILABLE`, so that clients may try elsewhere; their handlers are dropped. A stream that
//!    always has something to say is sent 16 more frames.
//! 3. *Cut*, at the end of the grace: reads and writes of each connection that is left fail. So a
//!    slow reader, a half-sent request or a peer that has vanished holds up nobody.
//!
//! This is grpc-go's `GracefulStop`, followed by `Stop`. The grace is 10 s by default: well below
//! the 30 s after which Kubernetes kills a pod (`terminationGracePeriodSeconds`), as a program may
//! have more to do than this, before and after.
//!
//! # Example
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use cinchona_drain::Drain;
//! use tonic::transport::{Server, server::TcpIncoming};
//!
//! let drain = Drain::default();
//! let incoming = TcpIncoming::bind("[::1]:50051".parse()?)?;
//! let (health, health_service) = tonic_health::server::health_reporter();
//! let serving = Server::builder()
//!     .layer(drain.layer())
//!     .add_service(health_service)
//!     .serve_with_incoming_shutdown(drain.incoming(incoming), drain.begun());
//! let shutdown = async {
//!     std::future::pending::<()>().await; // SIGTERM, say
//!     // Watchers of its health hear of it first.
//!     health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
//! };
//! if let Some(served) = drain.serve(shutdown, serving).await {
//!     served?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What it does not do
//!
//! It ends no task that a handler has spawned, and no handler that blocks its thread: a program
//! that must exit shuts its runtime down with a limit (`Runtime::shutdown_timeout`).

mod body;
mod end;
mod io;
mod layer;
mod metrics;
mod phases;
mod sync;

pub use cinchona_plumbing::ResponseBody;
pub use io::{DrainIncoming, DrainIo};
pub use layer::{DrainFuture, DrainLayer, DrainService};

use cinchona_plumbing::clock;
use phases::{Phase, Shared};
use std::{future::Future, pin::pin, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep_until};

/// Ends a server in order; clones are the same.
#[derive(Clone, Debug)]
pub struct Drain {
    grace: Duration,
    shared: Arc<Shared>,
}

/// The grace by default.
const GRACE: Duration = Duration::from_secs(10);

/// Once all connections are cut, a server has so long to notice it.
const NOTICE: Duration = Duration::from_secs(1);

// === impl Drain ===

impl Drain {
    /// For a server that ends within `grace` of the signal. Zero ends it at once;
    /// `Duration::MAX` waits for the calls that have begun for ever.
    pub fn new(grace: Duration) -> Self {
        Self { grace, shared: Arc::default() }
    }

    /// How long calls that have begun may take to end.
    pub const fn grace(&self) -> Duration {
        self.grace
    }

    /// For `Server::layer`, where a status still reaches the client: within what counts calls, and
    /// around all that answers them.
    pub fn layer(&self) -> DrainLayer {
        DrainLayer::new(self.shared.clone())
    }

    /// The same connections, which end with the grace.
    pub fn incoming<I>(&self, incoming: I) -> DrainIncoming<I> {
        DrainIncoming::new(incoming, self.shared.clone())
    }

    /// Runs `serving`, and ends it in order once `shutdown` is over; what it returned, or `None`
    /// where it has not ended within 1 s of the grace: then a handler blocks the runtime's threads,
    /// or its connections are not those of [`incoming`](Self::incoming).
    pub async fn serve<T>(
        &self,
        shutdown: impl Future<Output = ()>,
        serving: impl Future<Output = T>,
    ) -> Option<T> {
        let mut serving = pin!(serving);
        tokio::select! {
            biased;
            served = &mut serving => return Some(served),
            () = shutdown => self.begin(),
            () = self.begun() => {}
        }
        tokio::select! {
            biased;
            served = &mut serving => Some(served),
            () = self.run_out() => None,
        }
    }

    /// Begins to drain, if that has not begun; for a server that [`serve`](Self::serve) runs.
    pub fn begin(&self) {
        self.shared.advance(Phase::Draining);
    }

    /// Cuts all that has not ended, at once: after a second signal, say.
    pub fn cut(&self) {
        self.shared.advance(Phase::Cut);
    }

    /// Waits until draining has begun: for `serve_with_incoming_shutdown`, and whatever else is to
    /// stop then.
    pub fn begun(&self) -> impl Future<Output = ()> + Send + 'static {
        Shared::reached(self.shared.clone(), Phase::Draining)
    }

    /// Waits until all was cut.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        Shared::reached(self.shared.clone(), Phase::Cut)
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.shared.connections()
    }

    /// Goes through the phases, and waits a little longer.
    async fn run_out(&self) {
        let began = Instant::now();
        let phases = async {
            sleep_until(clock::later(began, clock::times(self.grace, 0.9))).await;
            self.shared.advance(Phase::Over);
            sleep_until(clock::later(began, self.grace)).await;
            self.shared.advance(Phase::Cut);
        };
        tokio::select! {
            () = phases => {}
            () = self.ended() => {}
        }
        let left = self.connections();
        if left > 0 {
            tracing::warn!(connections = left, grace = ?self.grace, "connections were cut");
        }
        tokio::time::sleep(NOTICE).await;
    }
}

impl Default for Drain {
    /// A grace of 10 s.
    fn default() -> Self {
        Self::new(GRACE)
    }
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
mod tests;
