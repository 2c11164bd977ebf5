//! What ends a call or an attempt, and when.

use crate::{messages::Messages, upload::Upload};
use cinchona_core::{Call, Deadline, Elapsed, Invalid, MethodKind, Switch};
use cinchona_plumbing::{Seldom, headers, status, timeout::GRPC_TIMEOUT};
use http::{HeaderMap, HeaderValue, uri::PathAndQuery};
use pin_project_lite::pin_project;
use std::{
    fmt,
    pin::Pin,
    sync::{Arc, LazyLock},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep_until};

/// A caller says how little time it has, so its calls write no line each.
static EXCEEDED: LazyLock<Seldom> =
    LazyLock::new(|| Seldom::new(|more| tracing::info!(more, "further deadlines exceeded")));

/// What was asked for a call: by its caller, or by the layers above.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// What a layer above ends the call at, if it has not begun to be answered, or at all.
    pub(crate) first: Option<Deadline>,
    /// What ends the call, however far it is.
    pub(crate) whole: Option<Deadline>,
}

/// The ends of a call at one layer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Terms {
    pub(crate) kind: Option<MethodKind>,
    /// When the answer must have begun; for a unary method, and as far as is known, ended.
    pub(crate) first: Option<End>,
    /// When it must have ended.
    pub(crate) whole: Option<End>,
    /// How long a response that has begun may be silent.
    pub(crate) silence: Option<Duration>,
    /// What the server is told.
    pub(crate) told: Option<Deadline>,
    pub(crate) says: Says,
}

/// How the server is told of what there is, as long as no time has passed.
#[derive(Clone, Debug, Default)]
pub(crate) enum Says {
    #[default]
    Anything,
    /// The caller's own words are right.
    Already,
    So(HeaderValue),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    at: Instant,
    what: What,
}

/// What it is that ends a call.
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

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// A place, or a connection.
    Readiness,
    Head,
    First,
    /// There is one message, and neither another nor the trailers.
    Second,
    Rest,
}

/// The terms of a call, and what to say of it when it ends by them.
#[derive(Debug)]
pub(crate) struct Bound {
    terms: Terms,
    started: Instant,
    path: Option<PathAndQuery>,
    attempt: u32,
    // Where the end is only counted.
    counting: Option<Switch>,
    upload: Option<Arc<Upload>>,
    // Since when the caller has been waiting for a frame, if that is of interest.
    waiting: Option<Instant>,
    watch: Watch,
    pub(crate) messages: Messages,
}

/// One timer is enough for a call and its attempt: that of the attempt ends it at the earlier of
/// the two limits.
#[derive(Debug)]
enum Watch {
    Alone,
    /// The layer of the call: it leaves the timer to an attempt that has one. Whether it has done so
    /// before.
    Call(Call, bool),
    /// The layer of the attempt: what it has told the record of the call.
    Attempt(Call),
}

pin_project! {
    /// A bound and its timer, from the call to the end of its response's body. Boxed: it is large,
    /// and what is around it moves.
    #[derive(Debug)]
    pub(crate) struct Timer {
        bound: Bound,
        // Begun when there is something to wait for.
        #[pin]
        sleep: Option<Sleep>,
    }
}

/// For how long a response may be silent after its first message, at least, if nobody knows what
/// its method streams. A unary method's trailers follow at once, so that there are none after a
/// minute is a fault; a stream's second message may take a while.
const PAUSE: Duration = Duration::from_secs(60);

/// How far two clocks, and the rounding of `grpc-timeout`, may be apart.
const TICK: Duration = Duration::from_millis(1);

// === impl Asked ===

impl Asked {
    /// What was asked for `request`, whose method is of this `kind`. The layer that put a deadline
    /// there also keeps it, so only where a stream is known must it be known what it is of.
    ///
    /// # Errors
    /// When `grpc-timeout` is malformed.
    pub(crate) fn of<B>(
        request: &mut http::Request<B>,
        kind: Option<MethodKind>,
        now: Instant,
    ) -> Result<Self, Invalid> {
        if let Some(first) = Deadline::handed_on(request) {
            let whole = kind.filter(|kind| *kind != MethodKind::Unary).and_then(|_| {
                Call::find(request).and_then(Call::whole).map_or(Some(first), |whole| whole)
            });
            return Ok(Self { first: Some(first), whole });
        }
        let timeout = Deadline::parse_timeout(request.headers())?;
        let whole = timeout.and_then(|timeout| Deadline::within(timeout, now));
        if timeout.is_some() && whole.is_none() {
            // For ever is not told.
            headers::remove(request.headers_mut(), &GRPC_TIMEOUT);
        }
        Ok(Self { first: None, whole })
    }

    /// The earlier of the two.
    pub(crate) fn min(self) -> Option<Deadline> {
        earlier(self.first, self.whole)
    }
}

/// The earlier of two that may not be there.
pub(crate) fn earlier<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

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
            watch: Watch::Alone,
            messages: Messages::new(),
        }
    }

    /// The same bound, of a whole call: an attempt of it may keep its deadline.
    pub(crate) fn of_call(mut self, call: Call) -> Self {
        self.watch = Watch::Call(call, false);
        self
    }

    /// The same bound, of an attempt that keeps the deadline of its `call`, where the call has one
    /// that bounds all of the attempt.
    pub(crate) fn keeping(mut self, call: Option<&Call>) -> Self {
        let bounds_all = matches!(self.terms.kind, None | Some(MethodKind::Unary));
        let keeps = |call: &&Call| {
            let ends = self.terms.first.map(|first| first.at);
            call.deadline().is_some_and(|deadline| ends.is_some_and(|end| end <= deadline.0))
        };
        if let Some(call) = call.filter(|_| bounds_all).filter(keeps) {
            call.is_timed();
            self.watch = Watch::Attempt(call.clone());
        }
        self
    }

    /// Whether it bounds the response's body: not where an attempt does.
    fn bounds_body(&mut self) -> bool {
        let is_unary = self.terms.kind == Some(MethodKind::Unary);
        match &self.watch {
            Watch::Call(call, _) => return !(is_unary && call.keeps_deadline()),
            // Of what may be a stream, the limit of an attempt ends with the first message.
            Watch::Attempt(_) if !is_unary => self.watch = Watch::Alone,
            _ => {}
        }
        true
    }

    /// Whether an attempt's timer ends the call in time. Who has been woken has to look whether the
    /// time is over: that timer may be one that nobody asks any more.
    fn is_kept(&mut self, end: End) -> bool {
        match &mut self.watch {
            Watch::Call(call, before) if call.keeps_deadline() => {
                !std::mem::replace(before, true) || Instant::now() < end.at
            }
            _ => false,
        }
    }

    /// The same bound, which ends nothing at the layer's own limits and only tells `switch`.
    pub(crate) fn counting(self, switch: &Switch) -> Self {
        Self { counting: Some(switch.clone()), ..self }
    }

    /// When it was asked for.
    pub(crate) const fn started(&self) -> Instant {
        self.started
    }

    /// What there is to say if there is no time at all.
    pub(crate) fn passed(&self) -> Option<Elapsed> {
        let end = self.over(self.started)?;
        Some(self.elapsed(end, Stage::Readiness, self.started))
    }

    /// Whether there is nothing left to send it in.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.over(now).is_some()
    }

    fn over(&self, now: Instant) -> Option<End> {
        let ends = [self.terms.first, self.terms.whole].into_iter().flatten();
        ends.filter(|end| end.at <= now && !self.counts(*end)).min_by_key(|end| end.at)
    }

    /// What there is to say if the deadline of the whole call has passed.
    pub(crate) fn whole_is_over(&self) -> Option<Elapsed> {
        let whole = self.terms.whole?;
        let now = Instant::now();
        let is_over = whole.at <= now && !self.counts(whole);
        is_over.then(|| self.elapsed(whole, Stage::Rest, now))
    }

    /// Tells the server how long there is; nothing where no deadline is that of the whole call.
    pub(crate) fn stamp(&self, headers: &mut HeaderMap, now: Instant) {
        match &self.terms.says {
            Says::Already if now == self.started => return,
            Says::So(value) if now == self.started => {
                return headers::set(headers, &GRPC_TIMEOUT, value.clone());
            }
            _ => {}
        }
        match self.terms.told {
            Some(told) => told.stamp(headers, now),
            None => headers::remove(headers, &GRPC_TIMEOUT),
        }
    }

    /// Whether the time that the server was told of is over, so that a timer of its own, too, can
    /// have ended the call.
    pub(crate) fn told_is_over(&self, now: Instant) -> bool {
        self.terms.told.is_some_and(|told| told.remaining(now) <= TICK)
    }

    /// There was a frame.
    const fn heard(&mut self) {
        self.waiting = None;
    }

    /// What ends the call if it goes on as it is.
    fn end(&mut self, stage: Stage) -> Option<End> {
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

    fn counts(&self, end: End) -> bool {
        self.counting.is_some() && end.what != What::Left
    }

    /// Counts `end`, which is not to end anything; whether it did.
    fn count(&mut self, end: End) -> bool {
        let Some(switch) = self.counting.as_ref().filter(|_| end.what != What::Left) else {
            return false;
        };
        switch.count();
        let whole = self.terms.whole.filter(|whole| whole.what == What::Left);
        (self.terms.first, self.terms.silence, self.terms.whole) = (None, None, whole);
        true
    }

    /// Reports that `end` has come.
    fn elapsed(&self, end: End, stage: Stage, now: Instant) -> Elapsed {
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

// === impl Timer ===

impl Timer {
    pub(crate) fn new(bound: Bound) -> Pin<Box<Self>> {
        Box::pin(Self { bound, sleep: None })
    }

    pub(crate) const fn bound(&self) -> &Bound {
        &self.bound
    }

    /// The head of the response is there: whether its body is bound, too.
    pub(crate) fn bounds_body(self: Pin<&mut Self>) -> bool {
        self.project().bound.bounds_body()
    }

    /// There was a frame.
    pub(crate) fn heard(self: Pin<&mut Self>, data: &[u8]) {
        let bound = self.project().bound;
        bound.messages.read(data);
        bound.heard();
    }

    /// What there is to say at the end, while a `stage` is waited for.
    pub(crate) fn poll_end(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        stage: Stage,
    ) -> Poll<Elapsed> {
        let mut this = self.project();
        let bound = this.bound;
        loop {
            let Some(end) = bound.end(stage) else { return Poll::Pending };
            if matches!(stage, Stage::Readiness | Stage::Head) && bound.is_kept(end) {
                return Poll::Pending;
            }
            let Some(mut sleep) = this.sleep.as_mut().as_pin_mut() else {
                this.sleep.set(Some(sleep_until(end.at)));
                continue;
            };
            // One that comes too early is set anew when it does, which most never do.
            if end.at < sleep.deadline() || (sleep.is_elapsed() && sleep.deadline() < end.at) {
                sleep.as_mut().reset(end.at);
            }
            ready!(sleep.as_mut().poll(cx));
            if end.at <= sleep.deadline() && !bound.count(end) {
                return Poll::Ready(bound.elapsed(end, stage, Instant::now()));
            }
        }
    }
}

// === impl Watch ===

impl Drop for Watch {
    fn drop(&mut self) {
        if let Self::Attempt(call) = self {
            call.is_untimed();
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

// === impl Stage ===

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Readiness => "a connection",
            Self::Head => "the response",
            Self::First => "the first message",
            Self::Second => "the end of the response, or its second message",
            Self::Rest => "the rest of the response",
        })
    }
}
