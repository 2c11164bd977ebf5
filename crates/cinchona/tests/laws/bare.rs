//! A service that follows a plan, and records how it is used.

use bytes::Bytes;
use cinchona::core::{BoxError, Rng};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use rand::{RngExt, rngs::SmallRng};
use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Sleep, sleep};
use tonic::body::Body;
use tower::Service;

/// How a service was used, and what its caller received, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

/// One call: its request, and its outcome.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    path: &'static str,
    headers: HeaderMap,
    request: Vec<Step>,
    /// How often the service is not ready, and whether it ever is.
    unready: u32,
    is_broken: bool,
    /// How long the head takes, and what it is.
    waits: u32,
    end: End,
    response: Vec<Step>,
    /// After how many polls the caller gives up.
    pub(crate) patience: u32,
}

#[derive(Clone, Debug)]
enum End {
    Answer(u16, HeaderMap),
    Error,
    PanicInCall,
    Panic,
}

/// A step of a body.
#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Data(Bytes),
    Trailers(HeaderMap),
    Error,
    Panic,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marker(u8);

/// The error of a service or a body.
#[derive(Debug)]
pub(crate) struct Boom(&'static str);

/// The service. Where it is timed its waits take milliseconds, else polls.
#[derive(Debug)]
pub(crate) struct Bare {
    plan: Arc<Plan>,
    log: Log,
    unready: u32,
    is_timed: bool,
}

struct Frames {
    steps: VecDeque<Step>,
    waits: u64,
    timer: Option<Pin<Box<Sleep>>>,
    is_timed: bool,
    log: Log,
    name: &'static str,
}

/// The future of a call.
pub(crate) struct Answering {
    request: Option<Pin<Box<Body>>>,
    plan: Arc<Plan>,
    waits: u32,
    timer: Option<Pin<Box<Sleep>>>,
    is_timed: bool,
    log: Log,
}

// === impl Log ===

impl Log {
    pub(crate) fn note(&self, what: impl fmt::Display) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(what.to_string());
    }

    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

// === impl Plan ===

impl Plan {
    pub(crate) fn drawn(rng: &Rng) -> Self {
        const PATHS: [&str; 4] = ["/a.B/Unary", "/a.B/Stream", "/a.B/Unknown", "/a.B/Read"];
        let rng = &mut rng.draw();
        let end = match rng.random_range(0..12) {
            0 => End::Error,
            1 => End::PanicInCall,
            2 => End::Panic,
            3..6 => End::Answer(200, status(rng)),
            6 => End::Answer(503, HeaderMap::new()),
            _ => End::Answer(200, HeaderMap::new()),
        };
        Self {
            path: PATHS[rng.random_range(0..PATHS.len())],
            headers: asked(rng),
            request: steps(rng),
            unready: rng.random_range(0..3),
            is_broken: rng.random_bool(0.1),
            waits: rng.random_range(0..3),
            end,
            response: steps(rng),
            patience: if rng.random_bool(0.5) { 100 } else { rng.random_range(0..16) },
        }
    }

    /// A call that is answered by a message, late.
    pub(crate) fn plain() -> Self {
        let ok = HeaderMap::from_iter([header("grpc-status", "0")]);
        Self {
            path: "/a.B/Read",
            headers: HeaderMap::new(),
            request: vec![Step::Data(Bytes::from_static(b"\0\0\0\0\x01x"))],
            unready: 0,
            is_broken: false,
            waits: 1,
            end: End::Answer(200, HeaderMap::new()),
            response: vec![
                Step::Wait(1),
                Step::Data(Bytes::from_static(b"\0\0\0\0\x01y")),
                Step::Trailers(ok),
            ],
            patience: 100,
        }
    }

    /// The same call of a caller that waits, with a request that does not fail.
    pub(crate) fn sound(mut self) -> Self {
        self.request.retain(|step| matches!(step, Step::Wait(_) | Step::Data(_)));
        Self { patience: 100, ..self }
    }

    /// The call, as it is sent; its body records nothing.
    pub(crate) fn request(&self, is_timed: bool) -> Request<Body> {
        let body = Frames::new(&self.request, "sent", is_timed, &Log::default());
        let mut request = Request::post(format!("http://any{}", self.path)).body(Body::new(body));
        let request = request.as_mut().unwrap();
        *request.headers_mut() = self.headers.clone();
        request.extensions_mut().insert(Marker(7));
        std::mem::take(request)
    }
}

fn header(name: &'static str, value: &str) -> (HeaderName, HeaderValue) {
    (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
}

fn drawn(rng: &mut SmallRng, all: &[(&'static str, &str)], share: f64) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in all {
        if rng.random_bool(share) {
            let (name, value) = header(name, value);
            headers.append(name, value);
        }
    }
    headers
}

fn asked(rng: &mut SmallRng) -> HeaderMap {
    const ASKED: [(&str, &str); 9] = [
        ("grpc-timeout", "1m"),
        ("grpc-timeout", "soon"),
        ("idempotency-key", "not a key"),
        ("idempotency-domain", "elsewhere"),
        ("x-request-id", "7"),
        ("grpc-previous-rpc-attempts", "2"),
        ("cache-control", "no-store"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("x-own", "value"),
    ];
    drawn(rng, &ASKED, 0.3)
}

/// A status as headers or trailers, with what makes layers do something.
fn status(rng: &mut SmallRng) -> HeaderMap {
    const CODES: [&str; 6] = ["0", "14", "8", "13", "5", "banana"];
    const OTHERS: [(&str, &str); 5] = [
        ("grpc-message", "some%20words"),
        ("grpc-status-details-bin", "*no base64*"),
        ("grpc-retry-pushback-ms", "10"),
        ("degraded", "cached"),
        ("x-own", "value"),
    ];
    let mut headers = drawn(rng, &OTHERS, 0.4);
    if rng.random_bool(0.2) {
        let (name, long) = header("grpc-message", &"long ".repeat(1000));
        headers.insert(name, long);
    }
    let (name, code) = header("grpc-status", CODES[rng.random_range(0..CODES.len())]);
    headers.insert(name, code);
    headers
}

fn steps(rng: &mut SmallRng) -> Vec<Step> {
    let mut steps = Vec::new();
    for _ in 0..rng.random_range(0..5) {
        steps.push(match rng.random_range(0..14) {
            0..5 => Step::Wait(rng.random_range(1..30)),
            5..11 => Step::Data(Bytes::from(vec![0; rng.random_range(0..9)])),
            11 => Step::Error,
            12 => Step::Panic,
            _ => Step::Trailers(status(rng)),
        });
    }
    if rng.random_bool(0.6) {
        steps.push(Step::Trailers(status(rng)));
    }
    steps
}

// === impl Boom ===

impl fmt::Display for Boom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "boom: {}", self.0)
    }
}

impl std::error::Error for Boom {}

// === impl Frames ===

impl Frames {
    fn new(steps: &[Step], name: &'static str, is_timed: bool, log: &Log) -> Self {
        let (steps, log) = (steps.iter().cloned().collect(), log.clone());
        Self { steps, waits: 0, timer: None, is_timed, log, name }
    }

    fn waits(&mut self, cx: &mut Context<'_>, time: u64) -> bool {
        if !self.is_timed {
            self.waits += 1;
            cx.waker().wake_by_ref();
            return self.waits.is_multiple_of(2);
        }
        let millis = Duration::from_millis(time);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(millis)));
        let waits = timer.as_mut().poll(cx).is_pending();
        if !waits {
            self.timer = None;
        }
        waits
    }
}

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        this.log.note(format_args!("{} is polled", this.name));
        if let Some(Step::Wait(time)) = this.steps.front() {
            let time = *time;
            if this.waits(cx, time) {
                return Poll::Pending;
            }
            this.steps.pop_front();
            return Pin::new(this).poll_frame(cx);
        }
        Poll::Ready(this.steps.pop_front().map(|step| match step {
            Step::Data(data) => Ok(Frame::data(data)),
            Step::Trailers(trailers) => Ok(Frame::trailers(trailers)),
            Step::Panic => panic!("in {}", this.name),
            Step::Error | Step::Wait(_) => Err(Boom(this.name).into()),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let data = |step: &Step| if let Step::Data(data) = step { data.len() as u64 } else { 0 };
        SizeHint::with_exact(self.steps.iter().map(data).sum())
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        self.log.note(format_args!("{} is dropped", self.name));
    }
}

// === impl Bare ===

impl Bare {
    pub(crate) fn new(plan: &Plan, is_timed: bool) -> (Self, Log) {
        // With capacity, so that records allocate the same whatever was recorded before.
        let log = Log(Arc::new(Mutex::new(Vec::with_capacity(1 << 8))));
        let plan = Arc::new(plan.clone());
        (Self { unready: plan.unready, plan, log: log.clone(), is_timed }, log)
    }
}

impl Clone for Bare {
    fn clone(&self) -> Self {
        self.log.note("it is cloned");
        Self {
            unready: self.plan.unready,
            plan: self.plan.clone(),
            log: self.log.clone(),
            is_timed: self.is_timed,
        }
    }
}

impl Service<Request<Body>> for Bare {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Answering;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.log.note("it is asked whether it is ready");
        if self.unready > 0 {
            self.unready -= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(if self.plan.is_broken { Err(Boom("not ready").into()) } else { Ok(()) })
    }

    fn call(&mut self, request: Request<Body>) -> Answering {
        let (parts, body) = request.into_parts();
        self.log.note(format_args!(
            "it is called: {} {} {:?} {:?}, {} extensions, {:?}; {:?}, {}",
            parts.method,
            parts.uri,
            parts.version,
            parts.headers,
            parts.extensions.len(),
            parts.extensions.get::<Marker>(),
            body.size_hint(),
            body.is_end_stream(),
        ));
        if matches!(self.plan.end, End::PanicInCall) {
            panic!("in call");
        }
        Answering {
            request: Some(Box::pin(body)),
            waits: self.plan.waits,
            plan: self.plan.clone(),
            timer: None,
            is_timed: self.is_timed,
            log: self.log.clone(),
        }
    }
}

// === impl Answering ===

impl Answering {
    /// Whether the request is not complete yet.
    fn reads(&mut self, cx: &mut Context<'_>) -> bool {
        while let Some(body) = &mut self.request {
            match body.as_mut().poll_frame(cx) {
                Poll::Pending => return true,
                Poll::Ready(Some(Ok(frame))) => self.log.note(format_args!("it reads {frame:?}")),
                Poll::Ready(end) => {
                    self.log.note(format_args!("its request ends: {end:?}"));
                    self.request = None;
                }
            }
        }
        false
    }

    fn waits(&mut self, cx: &mut Context<'_>) -> bool {
        if self.is_timed {
            let millis = Duration::from_millis(self.waits.into());
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(millis)));
            return timer.as_mut().poll(cx).is_pending();
        }
        cx.waker().wake_by_ref();
        let waits = self.waits > 0;
        self.waits = self.waits.saturating_sub(1);
        waits
    }
}

impl Future for Answering {
    type Output = Result<Response<Body>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        this.log.note("its answer is polled");
        if this.reads(cx) || this.waits(cx) {
            return Poll::Pending;
        }
        let (status, headers) = match &this.plan.end {
            End::Answer(status, headers) => (*status, headers.clone()),
            End::Error => return Poll::Ready(Err(Boom("no answer").into())),
            End::Panic | End::PanicInCall => panic!("in its answer"),
        };
        let frames = Frames::new(&this.plan.response, "the response", this.is_timed, &this.log);
        let mut response = Response::new(Body::new(frames));
        *response.status_mut() = status.try_into().unwrap();
        *response.headers_mut() = headers;
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        response.extensions_mut().insert(Marker(9));
        Poll::Ready(Ok(response))
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.log.note("its answer is dropped");
    }
}
