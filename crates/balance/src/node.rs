//! One endpoint: its connection, its load, and whether it is to be used.

use crate::{
    Picker, Snapshot, load::Load, outlier::Tally, set::Set, utilization::Reported, watched::Watched,
};
use cinchona_core::{Backoff, BoxError, DOMAIN, Gate, Live, Rng, Target, Ticket, Unsent, error};
use http::{HeaderMap, HeaderValue, Uri};
use hyper::rt::{Read, Write};
use std::{
    num::NonZeroU64,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, sleep_until},
};
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tower_service::Service;

/// The state of an endpoint's connection, as gRPC names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// No connection is wanted.
    #[default]
    Idle,
    /// One is being made, or the endpoint has not yet said that it is healthy.
    Connecting,
    /// Calls can be sent.
    Ready,
    /// The last attempt has failed, or the endpoint says that it is not healthy.
    TransientFailure,
}

/// An endpoint of a set.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: NonZeroU64,
    pub(crate) target: Target,
    /// Its host and port.
    pub(crate) name: Arc<str>,
    pub(crate) load: Load,
    pub(crate) tally: Tally,
    pub(crate) is_ejected: AtomicBool,
    /// For the weighted picker only.
    reported: Option<Reported>,
    pub(crate) gate: Option<Arc<dyn Gate>>,
    /// The dedup domain that its last response named.
    domain: Live<Option<HeaderValue>>,
    state: AtomicU8,
    /// Whether its connection has answered a call.
    has_served: AtomicBool,
    channel: Live<Option<Channel>>,
    last_error: Mutex<String>,
    set: Weak<Set>,
}

/// How connections are made.
#[derive(Clone, Debug)]
pub(crate) struct Connecting<C> {
    pub(crate) connector: C,
    pub(crate) endpoint: Endpoint,
    pub(crate) backoff: Backoff,
    /// The service whose health is asked for, if it is.
    pub(crate) health: Option<String>,
    pub(crate) rng: Rng,
}

// === impl Node ===

impl Node {
    pub(crate) fn new(id: NonZeroU64, target: Target, set: &Arc<Set>, now: Instant) -> Self {
        let is_weighted = set.options.picker == Picker::WeightedRoundRobin;
        Self {
            reported: is_weighted.then(|| Reported::new(set.options.utilization, now)),
            gate: set.options.gate.as_ref().map(|make| make(&target)),
            id,
            name: target.uri.authority().map_or("", |authority| authority.as_str()).into(),
            target,
            load: Load::new(now),
            tally: Tally::default(),
            is_ejected: AtomicBool::new(false),
            domain: Live::new(None),
            state: AtomicU8::new(State::Idle as u8),
            has_served: AtomicBool::new(false),
            channel: Live::new(None),
            last_error: Mutex::default(),
            set: Arc::downgrade(set),
        }
    }

    pub(crate) fn state(&self) -> State {
        match self.state.load(Ordering::Relaxed) {
            0 => State::Idle,
            1 => State::Connecting,
            2 => State::Ready,
            _ => State::TransientFailure,
        }
    }

    /// How it is, if it is ejected by that and for so long.
    pub(crate) fn snapshot(&self, ejected: Option<(&'static str, Duration)>) -> Snapshot {
        let (succeeded, failures) = self.tally.read();
        Snapshot {
            target: self.target.clone(),
            state: self.state(),
            ejected,
            in_flight: self.load.in_flight(),
            latency: self.load.is_known().then(|| self.load.average()),
            calls: succeeded + failures,
            failures,
        }
    }

    pub(crate) fn domain(&self) -> Option<HeaderValue> {
        (**self.domain.get()).clone()
    }

    /// Hears of itself in the headers of a response.
    pub(crate) fn heard(&self, headers: &HeaderMap) {
        if !self.has_served.load(Ordering::Relaxed) {
            self.has_served.store(true, Ordering::Relaxed);
        }
        if let Some(domain) = headers.get(DOMAIN)
            && self.domain.get().as_ref().as_ref() != Some(domain)
        {
            self.domain.set(Some(domain.clone()));
        }
    }

    /// Hears of its load in the last headers of a call.
    pub(crate) fn heard_last(&self, trailers: &HeaderMap, now: Instant) {
        if let Some(reported) = &self.reported {
            reported.hear(trailers, now);
        }
    }

    /// Its weight by what it has reported, if that may be used.
    pub(crate) fn weight(&self, now: Instant) -> Option<f64> {
        self.reported.as_ref()?.weight(now)
    }

    /// Whether its gate would let a call through.
    pub(crate) fn is_open_to(&self, path: &str, now: Instant) -> bool {
        self.gate.as_ref().is_none_or(|gate| gate.is_open_to(path, now))
    }

    /// Passes its gate, if it has one.
    pub(crate) fn enter(&self, path: &str, now: Instant) -> Result<Option<Ticket>, Unsent> {
        self.gate.as_ref().map(|gate| gate.enter(path, now)).transpose()
    }

    pub(crate) fn channel(&self) -> Option<Channel> {
        (**self.channel.get()).clone()
    }

    pub(crate) fn last_error(&self) -> String {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn becomes(&self, state: State) {
        let before = self.state.swap(state as u8, Ordering::Relaxed);
        if before == state as u8 {
            return;
        }
        if state == State::Ready
            && let Some(reported) = &self.reported
        {
            reported.begins_anew();
        }
        if let Some(set) = self.set.upgrade() {
            tracing::debug!(endpoint = %self.target.uri, ?state, "connection state");
            set.refresh();
        }
    }

    /// Keeps the endpoint connected, for ever (gRPC's connection backoff: an attempt begins no
    /// sooner than the backoff after the one before it began).
    pub(crate) async fn run<C>(self: Arc<Self>, connecting: Connecting<C>)
    where
        C: Service<Uri> + Clone + Send + Sync + 'static,
        C::Response: Read + Write + Unpin + Send + 'static,
        C::Error: Into<BoxError>,
        C::Future: Send,
    {
        let mut failures = 0;
        loop {
            let began = Instant::now();
            self.becomes(State::Connecting);
            self.has_served.store(false, Ordering::Relaxed);
            let node = Arc::downgrade(&self);
            let (connector, lost) = Watched::new(connecting.connector.clone(), move || {
                node.upgrade().iter().for_each(|node| node.disconnected());
            });
            match connecting.endpoint.connect_with_connector(connector).await {
                Ok(channel) => {
                    self.connected(channel, lost, &connecting).await;
                    tracing::info!(endpoint = %self.target.uri, "connection lost");
                    // A connection that was of no use is a failure too, or this would spin.
                    let has_served = self.has_served.load(Ordering::Relaxed);
                    if has_served || Instant::now() > began + FIRST_BACKOFF {
                        failures = 0;
                        continue;
                    }
                }
                Err(error) => self.failed(&error),
            }
            failures += 1;
            sleep_until(began + connecting.backoff.delay(failures, &mut connecting.rng.draw()))
                .await;
        }
    }

    fn failed(&self, error: &(dyn std::error::Error + 'static)) {
        let cause = error::chain(error).last().unwrap_or(error).to_string();
        if self.state() != State::TransientFailure {
            tracing::info!(endpoint = %self.target.uri, error = cause, "endpoint is down");
        }
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = cause;
        self.becomes(State::TransientFailure);
    }

    /// Until the connection is lost.
    async fn connected<C>(
        &self,
        channel: Channel,
        lost: oneshot::Receiver<()>,
        connecting: &Connecting<C>,
    ) {
        self.channel.set(Some(channel.clone()));
        match &connecting.health {
            None => {
                self.becomes(State::Ready);
                _ = lost.await;
            }
            Some(service) => tokio::select! {
                _ = lost => {}
                () = self.follow_health(channel, service, connecting) => {}
            },
        }
        self.disconnected();
    }

    fn disconnected(&self) {
        self.channel.set(None);
        self.becomes(State::Connecting);
    }

    /// Asks the endpoint to tell of its health, and believes it (gRFC A17), for ever.
    async fn follow_health<C>(&self, channel: Channel, service: &str, connecting: &Connecting<C>) {
        let mut failures = 0;
        loop {
            let request = HealthCheckRequest { service: service.to_owned() };
            let ended = match HealthClient::new(channel.clone()).watch(request).await {
                Ok(told) => {
                    let mut told = told.into_inner();
                    loop {
                        match told.message().await {
                            Ok(Some(health)) => {
                                failures = 0;
                                self.becomes(match health.status() {
                                    ServingStatus::Serving => State::Ready,
                                    _ => State::TransientFailure,
                                });
                            }
                            Ok(None) => break tonic::Status::unavailable("the watch ended"),
                            Err(status) => break status,
                        }
                    }
                }
                Err(status) => status,
            };
            if ended.code() == tonic::Code::Unimplemented {
                tracing::error!(endpoint = %self.target.uri, "no health service, taken to be well");
                self.becomes(State::Ready);
                return std::future::pending().await;
            }
            self.failed(&ended);
            failures += 1;
            sleep(connecting.backoff.delay(failures, &mut connecting.rng.draw())).await;
        }
    }
}

/// The shortest time in which an endpoint that is down is tried again.
pub(crate) const FIRST_BACKOFF: Duration = Duration::from_secs(1);
