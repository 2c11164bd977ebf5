//! What ends a call or an attempt, and when.

use crate::{asked::earlier, messages::Messages, stage::Stage, upload::Upload};
use cinchona_core::{Call, Deadline, MethodKind, Switch};
use cinchona_plumbing::{Elapsed, Seldom, headers, status, timeout::GRPC_TIMEOUT};
use http::{HeaderMap, HeaderValue, uri::PathAndQuery};
use std::{
    fmt,
    sync::{Arc, LazyLock},
    time::Duration,
};
use tokio::time::Instant;

/// Callers choose their deadlines, so these lines are rate-limited.
static EXCEEDED: LazyLock<Seldom> =
    LazyLock::new(|| Seldom::new(|more| tracing::info!(more, "further deadlines exceeded")));

/// The limits of a call at one layer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Terms {
    pub(crate) kind: Option<MethodKind>,
    /// When the answer must have begun; for a unary method, and as far as is known, ended.
    pub(crate) first: Option<End>,
    /// When it must have ended.
    pub(crate) whole: Option<End>,
    /// How long a response that has begun may be silent.
    pub(crate) silence: Option<Duration>,
    /// The deadline sent in `grpc-timeout`.
    pub(crate) announced: Option<Deadline>,
    pub(crate) says: Says,
}

/// The value of `grpc-timeout` while no time has passed.
#[derive(Clone, Debug, Default)]
pub(crate) enum Says {
    #[default]
    Anything,
    /// The caller's own header is correct.
    Already,
    So(HeaderValue),
    /// The layer is in shadow: the caller's own header, or none, also later.
    Untouched,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) at: Instant,
    what: What,
}

/// Which limit ends a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// The call's own deadline, at the layer that keeps it.
    Call,
    /// The call's deadline, where it ends an attempt.
    Left,
    /// The attempt's limit.
    Attempt,
    Silence,
}

/// The limits of a call, and the labels of its errors.
#[derive(Debug)]
pub(crate) struct Bound {
    terms: Terms,
    started: Instant,
    path: Option<PathAndQuery>,
    attempt: u32,
    // Set if the end is only counted.
    counting: Option<Switch>,
    upload: Option<Arc<Upload>>,
    // Since when the caller has been waiting for a frame, if that matters.
    waiting: Option<Instant>,
    keeper: Keeper,
    pub(crate) messages: Messages,
}

/// One timer is enough for a call and its attempt: the attempt's ends both at the earlier of the
/// two limits.
#[derive(Debug)]
enum Keeper {
    Alone,
    /// The layer of the call: it leaves the timer to an attempt that has one. The number of attempt
    /// polls at its last check.
    Call(Call, u32),
    /// The layer of the attempt: it notifies the record of the call once its timer runs.
    Attempt(Call, bool),
}

/// The least silence allowed after the first message of a response of an unknown kind. A unary
/// method's trailers follow immediately, so a minute without them is a fault; a stream's second
/// message may take longer.
const PAUSE: Duration = Duration::from_secs(60);

/// The tolerance for two clocks and the rounding of `grpc-timeout`.
pub(crate) const TICK: Duration = Duration::from_millis(1);

// === impl Terms ===

impl Terms {
    /// Whether nothing ends the call.
    pub(crate) const fn is_empty(&self) -> bool {
        self.first.is_none() && self.whole.is_none() && self.silence.is_none()
    }
}

// === impl End ===

impl End {
    pub(crate) const fn new(deadline: Deadline, what: What) -> Self {
        Self { at: deadline.0, what }
    }

    fn earlier(a: Option<Self>, b: Option<Self>) -> Option<Self> {
        match (a, b) {
            (Some(a), Some(b)) => Some(if b.at < a.at { b } else { a }),
            (a, b) => a.or(b),
        }
    }
}

// === impl Bound ===

impl Bound {
    pub(crate) fn new<B: 'static>(
        terms: Terms,
        request: &mut http::Request<B>,
        now: Instant,
    ) -> Self {
        let upload = terms.first.and_then(|_| Upload::watch(terms.kind, request, now));
        Self {
            terms,
            started: now,
            path: request.uri().path_and_query().cloned(),
            attempt: status::previous_attempts(request.headers()) + 1,
            counting: None,
            upload,
            waiting: None,
            keeper: Keeper::Alone,
            messages: Messages::default(),
        }
    }

    /// It bounds a whole call: an attempt of it may enforce its deadline.
    pub(crate) fn of_call(&mut self, call: Call) {
        self.keeper = Keeper::Call(call, 0);
    }

    /// It bounds an attempt, which enforces the deadline of its `call`, if that bounds all of the
    /// attempt.
    pub(crate) fn keeping(&mut self, call: Option<&Call>) {
        let bounds_all = matches!(self.terms.kind, None | Some(MethodKind::Unary));
        if let (true, Some(call), Some(first)) = (bounds_all, call, self.terms.first)
            && call.deadline().is_some_and(|deadline| first.at <= deadline.0)
        {
            self.keeper = Keeper::Attempt(call.clone(), false);
        }
    }

    /// Whether it bounds the response's body: not if an attempt does.
    pub(crate) fn bounds_body(&mut self) -> bool {
        let is_unary = self.terms.kind == Some(MethodKind::Unary);
        match &self.keeper {
            Keeper::Call(call, _) => return !(is_unary && call.timed_until().is_some()),
            // For a possible stream, the limit of an attempt ends with the first message.
            Keeper::Attempt(..) if !is_unary => self.keeper = Keeper::Alone,
            _ => {}
        }
        true
    }

    /// Whether an attempt's timer ends the call in time: one that was just polled will. If none
    /// was, the timer may have fired in an attempt that is no longer polled.
    pub(crate) fn is_kept(&mut self) -> bool {
        let Keeper::Call(call, before) = &mut self.keeper else { return false };
        let asked = call.asked_timers();
        let was_asked = std::mem::replace(before, asked) != asked;
        call.timed_until().is_some_and(|until| was_asked || Instant::now() < until)
    }

    /// The timer is about to be polled until `end`.
    pub(crate) fn asks(&mut self, end: End) {
        if let Keeper::Attempt(call, is_running) = &mut self.keeper {
            if !std::mem::replace(is_running, true) {
                call.starts_timer(end.at);
            }
            call.asks_timer();
        }
    }

    /// The layer is in shadow: it ends and announces nothing, and its own limits are reported to
    /// `switch`.
    pub(crate) fn counting(&mut self, switch: &Switch) {
        self.counting = Some(switch.clone());
        (self.terms.says, self.terms.announced) = (Says::Untouched, None);
        // It would not be sent.
        if let Some(end) = self.passed_by(self.started) {
            self.count(end);
        }
    }

    /// When it was started.
    pub(crate) const fn started(&self) -> Instant {
        self.started
    }

    /// The error if there is no time at all.
    pub(crate) fn passed(&self) -> Option<Elapsed> {
        let end = self.over(self.started)?;
        Some(self.elapsed(end, Stage::Readiness, self.started))
    }

    /// Whether no time is left to send it.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.over(now).is_some()
    }

    fn over(&self, now: Instant) -> Option<End> {
        self.passed_by(now).filter(|_| !self.counts())
    }

    fn passed_by(&self, now: Instant) -> Option<End> {
        let ends = [self.terms.first, self.terms.whole].into_iter().flatten();
        ends.filter(|end| end.at <= now).min_by_key(|end| end.at)
    }

    /// The error if the deadline of the whole call has passed; counts it if it only counts.
    pub(crate) fn whole_is_over(&mut self) -> Option<Elapsed> {
        let whole = self.terms.whole?;
        let now = Instant::now();
        let is_over = whole.at <= now && !self.count(whole);
        is_over.then(|| self.elapsed(whole, Stage::Rest, now))
    }

    /// Sets `grpc-timeout` to the remaining time; no header if there is no deadline of the whole
    /// call.
    pub(crate) fn stamp(&self, headers: &mut HeaderMap, now: Instant) {
        match &self.terms.says {
            Says::Untouched => return,
            Says::Already if now == self.started => return,
            Says::So(value) if now == self.started => {
                return headers::set(headers, &GRPC_TIMEOUT, value.clone());
            }
            _ => {}
        }
        match self.terms.announced {
            Some(deadline) => deadline.stamp(headers, now),
            None => headers::remove(headers, &GRPC_TIMEOUT),
        }
    }

    /// Whether the time sent in `grpc-timeout` is over, so that the server's own timer may have
    /// ended the call.
    pub(crate) fn announced_is_over(&self, now: Instant) -> bool {
        self.terms.announced.is_some_and(|deadline| deadline.remaining(now) <= TICK)
    }

    /// A frame has arrived.
    pub(crate) const fn heard(&mut self) {
        self.waiting = None;
    }

    /// The next end of the call, without further frames.
    pub(crate) fn end(&mut self, stage: Stage) -> Option<End> {
        let Terms { kind, first, whole, silence, .. } = self.terms;
        let limit = || first.map(|first| first.at - self.started);
        let pause = match (stage, kind) {
            (Stage::Readiness | Stage::Head | Stage::First, _) => {
                return End::earlier(self.first(), whole);
            }
            (_, Some(MethodKind::Unary)) => return End::earlier(first, whole),
            (_, Some(MethodKind::ClientStreaming)) => earlier(limit(), silence),
            (Stage::Second, None) => earlier(limit().map(|limit| limit.max(PAUSE)), silence),
            _ => silence,
        };
        let quiet = pause.map(|pause| {
            let since = *self.waiting.get_or_insert_with(Instant::now);
            End::new(Deadline::after(pause, since), What::Silence)
        });
        End::earlier(quiet, whole)
    }

    fn first(&self) -> Option<End> {
        let (first, Some(upload)) = (self.terms.first?, &self.upload) else {
            return self.terms.first;
        };
        let at = upload.end(first.at - self.started, Instant::now());
        Some(End { at, ..first })
    }

    /// Whether it only counts.
    pub(crate) const fn counts(&self) -> bool {
        self.counting.is_some()
    }

    /// Counts `end`, if it only counts and this is the layer's own limit; returns whether it only
    /// counts.
    pub(crate) fn count(&mut self, end: End) -> bool {
        let Some(switch) = &self.counting else { return false };
        if end.what != What::Left {
            switch.count();
        }
        (self.terms.first, self.terms.silence, self.terms.whole) = (None, None, None);
        true
    }

    /// Reports that `end` has come.
    pub(crate) fn elapsed(&self, end: End, stage: Stage, now: Instant) -> Elapsed {
        let what = end.what;
        let method = self.path.as_ref().map_or("", PathAndQuery::path);
        let (attempt, elapsed) = (self.attempt, now - self.started);
        let limit = match (&self.upload, end.what, self.waiting) {
            (_, What::Silence, Some(since)) => end.at - since,
            (Some(_), ..) => self.terms.first.map_or(end.at, |first| first.at) - self.started,
            _ => end.at - self.started,
        };
        let by = format!("exceeded by {method}, attempt {attempt}");
        if EXCEEDED.is_due(now) {
            tracing::info!(
                rpc.method = method,
                attempt,
                ?limit,
                ?elapsed,
                %stage,
                "{what} exceeded"
            );
        }
        Elapsed::new(match what {
            _ if end.at <= self.started => format!("{what} of {limit:?} {by}, before it was sent"),
            What::Left => format!("{what} {by}, {limit:?} after it began, waiting for {stage}"),
            _ => format!("{what} of {limit:?} {by}, waiting for {stage}"),
        })
    }
}

// === impl Keeper ===

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Self::Attempt(call, true) = self {
            call.stops_timer();
        }
    }
}

// === impl What ===

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Call | Self::Left => "call deadline",
            Self::Attempt => "attempt timeout",
            Self::Silence => "limit of silence",
        })
    }
}
