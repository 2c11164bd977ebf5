//! Graceful shutdown of a tonic server: calls that have begun may finish within a grace, and
//! nothing outlives it.
//!
//! # Why
//!
//! tonic's `serve_with_incoming_shutdown` waits without limit until every connection has closed: a
//! client that watches health, holds a stream, reads slowly or has vanished keeps the process until
//! it is killed, and all calls in flight with it.
//!
//! # Rule
//!
//! 1. *Draining*, from the shutdown signal: no connection is accepted, `GOAWAY` asks clients to
//!    reconnect elsewhere (RFC 9113, section 6.8), and calls that have begun go on. Streams that
//!    only wait (`grpc.health.v1.Health/Watch`, reflection, and those named by
//!    [`DrainSettings::with_watches`]) send their ready messages, such as `NOT_SERVING`, and end
//!    with `UNAVAILABLE`.
//! 2. *Over*, after nine tenths of the grace: gRPC calls that have not ended do so with
//!    `UNAVAILABLE`, so that clients may try elsewhere; their handlers are dropped. A stream that
//!    always has a frame ready is sent 16 more.
//! 3. *Cut*, at the end of the grace: reads and writes of the remaining connections fail. So a slow
//!    reader, a half-sent request or a vanished peer delays no shutdown.
//!
//! This is grpc-go's `GracefulStop`, followed by `Stop`. The grace is 10 s by default: well below
//! the 30 s after which Kubernetes kills a pod (`terminationGracePeriodSeconds`), as a program may
//! have other work before and after.
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
pub use layer::{DrainFuture, DrainLayer, DrainService, DrainSettings};

use cinchona_plumbing::clock;
use phases::{Phase, Shared};
use std::{
    any::Any,
    future::Future,
    pin::pin,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::time::{Instant, sleep_until};

/// Shuts a server down in order; clones are the same.
#[derive(Clone, Debug)]
pub struct Drain {
    grace: Duration,
    shared: Arc<Shared>,
}

/// The default grace.
const GRACE: Duration = Duration::from_secs(10);

/// How long a server has to return after all connections are cut.
const NOTICE: Duration = Duration::from_secs(1);

// === impl DrainSettings ===

impl DrainSettings {
    /// The layer of `drain` with these settings.
    #[must_use]
    pub fn layer(&self, drain: &Drain) -> DrainLayer {
        self.by(drain.shared.clone())
    }
}

// === impl Drain ===

impl Drain {
    /// For a server that ends within `grace` of the signal. Zero ends it immediately;
    /// `Duration::MAX` waits for the calls that have begun without limit.
    pub fn new(grace: Duration) -> Self {
        Self { grace, shared: Arc::default() }
    }

    /// What it counts with, as an address.
    pub(crate) fn counted(&self) -> Weak<dyn Any + Send + Sync> {
        let counted: Weak<Shared> = Arc::downgrade(&self.shared);
        counted
    }

    /// How long calls that have begun may take to end.
    pub const fn grace(&self) -> Duration {
        self.grace
    }

    /// The layer for `Server::layer`, placed where a status still reaches the client: inside layers
    /// that count calls, and around all that answer them.
    pub fn layer(&self) -> DrainLayer {
        DrainSettings::new().layer(self)
    }

    /// Wraps the connections, so that they end with the grace.
    pub fn incoming<I>(&self, incoming: I) -> DrainIncoming<I> {
        DrainIncoming::new(incoming, self.shared.clone())
    }

    /// Runs `serving`, and shuts it down once `shutdown` completes; returns its output, or `None`
    /// if it has not returned within 1 s of the grace: then a handler blocks the runtime's threads,
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

    /// Begins to drain, if not begun; for a server run by [`serve`](Self::serve).
    pub fn begin(&self) {
        self.shared.advance(Phase::Draining);
    }

    /// Cuts all remaining connections immediately: after a second signal, for example.
    pub fn cut(&self) {
        self.shared.advance(Phase::Cut);
    }

    /// Waits until draining has begun: for `serve_with_incoming_shutdown`, and other tasks that
    /// stop then.
    pub fn begun(&self) -> impl Future<Output = ()> + Send + 'static {
        Shared::reached(self.shared.clone(), Phase::Draining)
    }

    /// Waits until all connections were cut.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        Shared::reached(self.shared.clone(), Phase::Cut)
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.shared.connections()
    }

    /// Goes through the phases, and waits for the server to return.
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
