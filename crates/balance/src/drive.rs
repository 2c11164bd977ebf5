//! The task that keeps one endpoint connected.

use crate::{
    Picker, State,
    channel::Connector,
    health,
    node::{Connection, Node},
    wire::End,
};
use cinchona_plumbing::Signals;
use cinchona_policy::connect::Link;
use std::{future::Future, pin::Pin, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, sleep_until};

/// Connects one endpoint repeatedly, while it is wanted.
pub(crate) struct Driver {
    pub(crate) node: Arc<Node>,
    pub(crate) connector: Connector,
    /// Requests a new lookup if the endpoint cannot be reached.
    pub(crate) signals: Signals,
    link: Link,
}

/// A second connection, made because the first is silent.
struct Probe {
    connecting: Connecting,
    /// The count of data received on the first when it was suspected.
    reads: u64,
    /// When the first is considered dead, unless data arrives on it.
    doubted: Option<Instant>,
}

/// The progress of a second connection.
enum Probed {
    Made(Result<Arc<Connection>, String>),
    /// It takes long; the count of data received on the first.
    Doubted(u64),
    /// The first is not silent any more.
    Heard,
}

type Connecting = Pin<Box<dyn Future<Output = Result<Arc<Connection>, String>> + Send>>;

/// Why a connection was abandoned.
enum Left {
    /// It takes no more calls; how many were answered on it.
    Ended(End, u64),
    /// It is silent, and no other can be made.
    Silent(String),
}

/// How long an answer may take from the connection to its call.
const ANSWERS: Duration = Duration::from_millis(1);

/// How often a silent connection is checked.
const LOOK: Duration = Duration::from_millis(50);

/// How long a second connection may take before the endpoint has failed.
const DOUBT: Duration = Duration::from_secs(1);

// === impl Driver ===

impl Driver {
    pub(crate) fn new(node: Arc<Node>, connector: Connector, signals: Signals) -> Self {
        let link = Link::new(connector.options.backoff, Instant::now());
        Self { node, connector, signals, link }
    }

    /// Never completes.
    pub(crate) async fn run(mut self) {
        let node = self.node.clone();
        let mut wanted = node.wanted.subscribe();
        loop {
            if wanted.wait_for(|wanted| *wanted).await.is_err() {
                return;
            }
            tokio::select! {
                _ = wanted.wait_for(|wanted| !wanted) => {}
                never = self.stay_connected() => match never {},
            }
            self.node.connects(None);
            self.link.rests();
            self.shows();
        }
    }

    async fn stay_connected(&mut self) -> std::convert::Infallible {
        loop {
            self.link.begins(Instant::now());
            self.shows();
            let next = match self.connector.connect(&self.node).await {
                Err(error) => self.failed(error),
                Ok(connection) => {
                    self.link.settles(Instant::now());
                    let left = self.serve(connection).await;
                    self.node.connects(None);
                    self.left(left)
                }
            };
            // Its addresses may have changed.
            self.signals.ask_again();
            self.rest_until(next).await;
        }
    }

    fn shows(&self) {
        self.node.becomes(self.link.state());
    }

    fn failed(&mut self, error: String) -> Instant {
        let next = self.link.fails(&mut self.connector.options.rng.draw());
        self.node.fails(error);
        next
    }

    fn left(&mut self, left: Left) -> Instant {
        match left {
            Left::Silent(error) => self.failed(error),
            Left::Ended(end, answered) => {
                if let End::Goaway(goaway) = &end
                    && goaway.is_too_many_pings()
                {
                    self.node.is_pinged_too_often();
                }
                let rng = &mut self.connector.options.rng.draw();
                let next = self.link.loses(answered, Instant::now(), rng);
                self.node.loses(end.to_string());
                self.shows();
                next
            }
        }
    }

    /// Waits until the next attempt is due, or a signal makes one worthwhile.
    async fn rest_until(&mut self, mut next: Instant) {
        loop {
            tokio::select! {
                () = sleep_until(next) => return,
                () = self.node.woken.notified() => {
                    let rng = &mut self.connector.options.rng.draw();
                    next = next.min(self.link.wakes(Instant::now(), rng));
                }
            }
        }
    }

    /// Lets calls use the connection until it fails.
    async fn serve(&mut self, mut connection: Arc<Connection>) -> Left {
        let node = self.node.clone();
        let mut health = self.begin(&connection);
        let mut probe: Option<Probe> = None;
        loop {
            tokio::select! {
                end = connection.line.ended() => {
                    node.connects(None);
                    node.becomes(State::Connecting);
                    if let End::Goaway(_) = end {
                        // The answers before it are still on their way to their calls.
                        sleep(ANSWERS).await;
                    }
                    return Left::Ended(end, connection.answered());
                }
                () = &mut health => {}
                () = node.suspected.notified(), if probe.is_none() => {
                    probe = self.suspect(&connection);
                    let has_others = self.connector.options.picker != Picker::PickFirst;
                    if probe.is_none() {
                        connection.is_in_doubt(false);
                        node.stirs();
                    } else if node.is_ready() && has_others {
                        // Calls that begin now use other endpoints, or wait for the result.
                        node.becomes(State::Connecting);
                    }
                }
                news = probed(&mut probe, &connection) => match news {
                    Probed::Made(made) => {
                        let before = probe.take().map(|probe| probe.reads);
                        match made {
                            Ok(second) => connection = second,
                            Err(error) if before == Some(connection.line.reads()) => {
                                let text = "the server answers nothing, and cannot be reached";
                                return Left::Silent(format!("{text}: {error}"));
                            }
                            Err(_) => {}
                        }
                        self.link.settles(Instant::now());
                        health = self.begin(&connection);
                    }
                    Probed::Doubted(reads) if reads == connection.line.reads() => {
                        node.fails("the server answers nothing");
                    }
                    Probed::Doubted(_) => {}
                    Probed::Heard => {
                        probe = None;
                        health = self.begin(&connection);
                    }
                }
            }
        }
    }

    /// Sends calls on this connection, as soon as the endpoint is healthy if health checks are on.
    fn begin(&self, connection: &Arc<Connection>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let (node, options) = (self.node.clone(), &self.connector.options);
        connection.is_in_doubt(false);
        node.connects(Some(connection.clone()));
        node.stirs();
        match options.health.clone().filter(|_| options.asks_for_health()) {
            None => {
                self.shows();
                Box::pin(std::future::pending())
            }
            Some(service) => {
                let rng = options.rng.clone();
                Box::pin(health::follow(node, connection.clone(), service, rng))
            }
        }
    }

    /// A call has ended without an answer on a silent connection. The server may just be slow, so a
    /// second connection tests whether it is up.
    fn suspect(&mut self, connection: &Connection) -> Option<Probe> {
        let now = Instant::now();
        let rng = &mut self.connector.options.rng.draw();
        if !connection.is_suspect() || !self.link.may_probe(connection.answered(), now, rng) {
            return None;
        }
        tracing::debug!(endpoint = %self.node.name(), "is silent: trying a second connection");
        let (connector, node) = (self.connector.clone(), self.node.clone());
        let connecting = Box::pin(async move { connector.connect(&node).await });
        Some(Probe { connecting, reads: connection.line.reads(), doubted: Some(now + DOUBT) })
    }
}

/// The progress of a second connection, if one is being made.
async fn probed(probe: &mut Option<Probe>, first: &Connection) -> Probed {
    let Some(probe) = probe else { return std::future::pending().await };
    let doubted = probe.doubted;
    tokio::select! {
        made = &mut probe.connecting => Probed::Made(made),
        () = heard(first, probe.reads) => Probed::Heard,
        () = sleep_until(doubted.unwrap_or_else(Instant::now)), if doubted.is_some() => {
            probe.doubted = None;
            Probed::Doubted(probe.reads)
        }
    }
}

/// Waits until data arrives on the connection.
async fn heard(connection: &Connection, reads: u64) {
    while connection.line.reads() == reads {
        sleep(LOOK).await;
    }
}
