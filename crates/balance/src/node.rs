//! One endpoint: the state shared by calls, pickers and its connection.

use crate::{
    Snapshot, State, address::Place, callback, report, sender::Sender, stir::Stir, wire::Line,
};
use cinchona_core::{DOMAIN, Gate, Rejected, Target};
use cinchona_plumbing::{Count, Reloadable, Ticket, headers};
use cinchona_policy::{
    connect::USEFUL,
    load::Load,
    outlier::Tally,
    utilization::{Reported, Utilization},
};
use http::{HeaderMap, HeaderValue};
use std::{
    num::NonZeroU64,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

/// An endpoint of a set.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: NonZeroU64,
    /// As it was first found; its weight may have changed.
    pub(crate) target: Target,
    pub(crate) place: Place,
    given_weight: AtomicU32,
    pub(crate) load: Load,
    pub(crate) tally: Tally,
    pub(crate) is_ejected: AtomicBool,
    /// For the weighted picker only.
    reported: Option<Reported>,
    pub(crate) gate: Option<Arc<dyn Gate>>,
    /// The dedup domain in its last response.
    domain: Reloadable<Option<HeaderValue>>,
    state: AtomicU8,
    connection: Reloadable<Option<Arc<Connection>>>,
    trouble: Mutex<Option<Trouble>>,
    /// Whether it is to be connected.
    pub(crate) wanted: watch::Sender<bool>,
    /// Whether it can never be connected, as its gate could not be created.
    is_broken: AtomicBool,
    /// Ends a wait for the next attempt to connect.
    pub(crate) woken: Notify,
    /// A call has ended without an answer, and its connection was silent.
    pub(crate) suspected: Notify,
    /// How often the server has complained of too many pings.
    too_many_pings: AtomicU32,
    /// Read by the picker.
    stir: Arc<Stir>,
}

/// A connection of an endpoint that can be sent calls.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) sender: Sender,
    pub(crate) line: Arc<Line>,
    /// Since when calls have had no answer, and the count of data received before.
    silence: Mutex<Option<(Instant, u64)>>,
    /// How many calls have been answered on it, as far as it matters.
    answered: Count,
    /// Whether a check of the server is pending.
    in_doubt: AtomicBool,
}

/// Why an endpoint cannot be used.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    pub(crate) since: Instant,
    pub(crate) error: String,
}

/// How long calls must have no answer before the connection is suspected: a shorter wait may be a
/// caller's impatience.
const SILENCE: Duration = Duration::from_millis(500);

/// A unique id, also among other balancers' endpoints.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

// === impl Node ===

impl Node {
    pub(crate) fn new(
        (target, place): (Target, Place),
        gate: Option<Arc<dyn Gate>>,
        utilization: Option<Utilization>,
        stir: Arc<Stir>,
        now: Instant,
    ) -> Self {
        stir.comes(State::Idle);
        let id = NonZeroU64::new(NEXT_ID.fetch_add(1, Ordering::Relaxed));
        Self {
            id: id.unwrap_or(NonZeroU64::MIN),
            given_weight: AtomicU32::new(target.weight),
            target,
            place,
            load: Load::new(now),
            tally: Tally::default(),
            is_ejected: AtomicBool::new(false),
            reported: utilization.map(|settings| Reported::new(settings, now)),
            gate,
            domain: Reloadable::new(None),
            state: AtomicU8::new(State::Idle as u8),
            connection: Reloadable::new(None),
            trouble: Mutex::default(),
            wanted: watch::Sender::new(false),
            is_broken: AtomicBool::new(false),
            woken: Notify::new(),
            suspected: Notify::new(),
            too_many_pings: AtomicU32::new(0),
            stir,
        }
    }

    /// Host and port, or the path of its socket.
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.place.name
    }

    pub(crate) fn state(&self) -> State {
        state_of(self.state.load(Ordering::Relaxed))
    }

    /// Whether calls can be sent to it now.
    pub(crate) fn is_ready(&self) -> bool {
        self.state() == State::Ready
    }

    /// Its state; ejected by that method and for so long, if so.
    pub(crate) fn snapshot(&self, ejected: Option<(&'static str, Duration)>) -> Snapshot {
        let (succeeded, failures) = self.tally.read();
        Snapshot {
            target: self.target.clone().with_weight(self.given_weight.load(Ordering::Relaxed)),
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

    /// Receives its headers of a response.
    pub(crate) fn heard(&self, headers: &HeaderMap) {
        if let Some(domain) = headers::get(headers, &DOMAIN)
            && self.domain.get().as_ref().as_ref() != Some(domain)
        {
            self.domain.set(Some(domain.clone()));
        }
    }

    /// Receives its load report from the last headers of a call.
    pub(crate) fn heard_last(&self, trailers: &HeaderMap, now: Instant) {
        if let Some(reported) = &self.reported {
            report::hear(reported, trailers, now);
        }
    }

    /// Its reported weight, if that is valid.
    pub(crate) fn reported_weight(&self, now: Instant) -> Option<f64> {
        self.reported.as_ref()?.weight(now)
    }

    /// Its weight from the source.
    pub(crate) fn given_weight(&self) -> u32 {
        self.given_weight.load(Ordering::Relaxed).max(1)
    }

    pub(crate) fn set_weight(&self, weight: u32) {
        self.given_weight.store(weight, Ordering::Relaxed);
    }

    /// Whether its gate would admit a call.
    pub(crate) fn is_open_to(&self, path: &str, now: Instant) -> bool {
        let Some(gate) = &self.gate else { return true };
        callback::call("gate", || gate.is_open_to(path, now)).unwrap_or(false)
    }

    /// Passes its gate, if it has one.
    pub(crate) fn enter(&self, path: &str, now: Instant) -> Result<Option<Ticket>, Rejected> {
        let Some(gate) = &self.gate else { return Ok(None) };
        let entered = callback::call("gate", || gate.enter(path, now));
        entered.map_err(|panic| Rejected::new(format!("{}: {panic}", self.name()), None))?.map(Some)
    }

    /// Its connection, if there is one that takes calls.
    pub(crate) fn connection(&self) -> Option<Arc<Connection>> {
        let connection = self.connection.get();
        (**connection).as_ref().filter(|connection| connection.takes_calls()).cloned()
    }

    /// Why it cannot be used, if it cannot.
    pub(crate) fn trouble(&self) -> Option<Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// It has a connection from now on, or none.
    pub(crate) fn connects(&self, connection: Option<Arc<Connection>>) {
        self.connection.set(connection);
    }

    /// It cannot be used, for this reason.
    pub(crate) fn fails(&self, error: impl Into<String>) {
        self.loses(error);
        self.becomes(State::TransientFailure);
    }

    /// Its connection has failed, for this reason.
    pub(crate) fn loses(&self, error: impl Into<String>) {
        let (error, now) = (error.into(), Instant::now());
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let since = trouble.as_ref().map_or(now, |trouble| trouble.since);
        if trouble.as_ref().is_none_or(|trouble| trouble.error != error) {
            tracing::info!(endpoint = %self.name(), error, "endpoint is down");
        }
        *trouble = Some(Trouble { since, error });
    }

    pub(crate) fn becomes(&self, state: State) {
        let before = state_of(self.state.swap(state as u8, Ordering::Relaxed));
        if before == state {
            return;
        }
        if state == State::Ready {
            *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
            if let Some(reported) = &self.reported {
                reported.begins_anew();
            }
        }
        tracing::debug!(endpoint = %self.name(), ?state, "connection state");
        self.stir.changes(before, state);
    }

    /// It can never be used, for this reason.
    pub(crate) fn breaks(&self, error: String) {
        self.is_broken.store(true, Ordering::Relaxed);
        self.fails(error);
    }

    /// Whether it is to be connected.
    pub(crate) fn set_wanted(&self, wanted: bool) {
        let wanted = wanted && !self.is_broken.load(Ordering::Relaxed);
        self.wanted.send_if_modified(|now| std::mem::replace(now, wanted) != wanted);
    }

    /// It is not listed any more, though calls may still use it.
    pub(crate) fn goes(&self) {
        self.connects(None);
        self.becomes(State::TransientFailure);
    }

    /// The choice may change after this event.
    pub(crate) fn stirs(&self) {
        self.stir.stirs();
    }

    /// A call has ended without an answer while `connection` was silent: it may be dead.
    pub(crate) fn suspects(&self, connection: &Arc<Connection>, began: Instant, now: Instant) {
        let is_silent = connection.unanswered(began, now) >= SILENCE;
        let current = self.connection.get();
        let is_it = |current: &Arc<Connection>| Arc::ptr_eq(current, connection);
        if is_silent && (**current).as_ref().is_some_and(is_it) {
            // The next call of this caller, too, is not sent there before that is decided.
            connection.is_in_doubt(true);
            self.suspected.notify_one();
        }
    }

    /// The server has complained of too many pings (gRFC A8).
    pub(crate) fn is_pinged_too_often(&self) {
        self.too_many_pings.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(
            endpoint = %self.name(), factor = self.ping_factor(),
            "the server forbids as many keepalive pings: their interval is doubled",
        );
    }

    /// The factor of the interval of its pings.
    pub(crate) fn ping_factor(&self) -> u32 {
        2_u32.saturating_pow(self.too_many_pings.load(Ordering::Relaxed))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stir.goes(self.state());
    }
}

const fn state_of(state: u8) -> State {
    match state {
        0 => State::Idle,
        1 => State::Connecting,
        2 => State::Ready,
        _ => State::TransientFailure,
    }
}

// === impl Connection ===

impl Connection {
    pub(crate) fn new(sender: Sender, line: Arc<Line>) -> Self {
        let (answered, in_doubt) = (Count::default(), AtomicBool::new(false));
        Self { sender, line, silence: Mutex::new(None), answered, in_doubt }
    }

    fn takes_calls(&self) -> bool {
        !self.line.has_ended() && !self.in_doubt.load(Ordering::Relaxed)
    }

    pub(crate) fn is_in_doubt(&self, in_doubt: bool) {
        self.in_doubt.store(in_doubt, Ordering::Relaxed);
    }

    /// A call has been answered on it.
    pub(crate) fn answers(&self) {
        // Usually it is known, and nothing is written.
        if self.answered.read() < USEFUL {
            self.answered.count();
        }
    }

    /// How many calls have been answered on it; counting stops once there are enough.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.read()
    }

    /// A call that began then has had no answer, and no data has arrived since. Returns how long
    /// the connection is silent by all such calls.
    fn unanswered(&self, began: Instant, now: Instant) -> Duration {
        let reads = self.line.reads();
        let mut silence = self.silence.lock().unwrap_or_else(PoisonError::into_inner);
        let since = match *silence {
            Some((since, before)) if before == reads => since.min(began),
            _ => began,
        };
        *silence = Some((since, reads));
        now.saturating_duration_since(since)
    }

    /// Whether no data has arrived since a call ended without an answer.
    pub(crate) fn is_suspect(&self) -> bool {
        let silence = *self.silence.lock().unwrap_or_else(PoisonError::into_inner);
        silence.is_some_and(|(_, reads)| reads == self.line.reads())
    }
}
