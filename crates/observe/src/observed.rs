//! The service around another that is watched, its future and its body.

use crate::{
    meters::{CallMeter, TransferMeter},
    metrics::Client,
    series::{Table, Transfers},
    spans::{Ending, Traced, Tracer},
    tally::Book,
};
use bytes::Bytes;
use cinchona_core::{BoxError, Verdict, status};
use http::{HeaderMap, HeaderName, StatusCode};
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use std::{
    any::Any,
    error::Error,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tonic::{Code, Status, body::Body, server::NamedService};
use tower_service::Service;

/// A service that is watched by one of the layers of this crate; its answers and errors are passed
/// on as they are.
///
/// *Errors:* what the client layers make of one is read from a `BoxError`, a `tonic::Status` or a
/// `tonic::transport::Error`; of any other type it is `UNKNOWN`, unless it is boxed first.
#[derive(Clone, Debug)]
pub struct Observed<S> {
    inner: S,
    probe: Probe,
}

pin_project! {
    /// The future of an [`Observed`] call.
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        watch: Watch,
    }
}

pin_project! {
    /// A response body that is passed on as it is; how it ends is noted.
    pub struct ResponseBody<B> {
        #[pin]
        inner: B,
        watch: Watch,
    }
}

/// Who watches.
#[derive(Clone, Debug)]
pub(crate) enum Probe {
    Calls(Arc<Client>),
    Attempts(Arc<Client>),
    Served(Arc<Table<Transfers>>),
    Spans(Arc<Tracer>),
}

/// What is noted of one call; dropped before the end, it was cancelled.
#[derive(Debug)]
struct Watch(Noted);

#[derive(Debug)]
enum Noted {
    Nothing,
    Call(CallMeter),
    Transfer(TransferMeter),
    Span(Box<Traced>),
}

// === impl Observed ===

impl<S> Observed<S> {
    pub(crate) const fn new(inner: S, probe: Probe) -> Self {
        Self { inner, probe }
    }
}

impl<S, B> Service<http::Request<Body>> for Observed<S>
where
    S: Service<http::Request<Body>, Response = http::Response<B>>,
    S::Error: 'static,
    B: http_body::Body,
{
    type Response = http::Response<ResponseBody<B>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        if !self.probe.is_interested() {
            return ResponseFuture { inner: self.inner.call(request), watch: Watch::NONE };
        }
        let mut watch = Watch(self.probe.begin(&mut request));
        let inner = watch.within(|| self.inner.call(request));
        ResponseFuture { inner, watch }
    }
}

impl<S: NamedService> NamedService for Observed<S> {
    const NAME: &'static str = S::NAME;
}

// === impl Probe ===

impl Probe {
    /// Whether there may be something to note: where nobody is interested, a call is not held up.
    #[inline]
    fn is_interested(&self) -> bool {
        match self {
            Self::Spans(tracer) => tracer.is_interested(),
            Self::Calls(_) | Self::Attempts(_) | Self::Served(_) => true,
        }
    }

    fn begin(&self, request: &mut http::Request<Body>) -> Noted {
        match self {
            Self::Calls(client) => Noted::Call(CallMeter::begin(&client.calls, request)),
            Self::Attempts(client) => {
                Noted::Transfer(TransferMeter::attempt(&client.attempts, request))
            }
            Self::Served(served) => Noted::Transfer(TransferMeter::serve(served, request)),
            Self::Spans(tracer) => match tracer.begin(request) {
                Some(traced) => Noted::Span(Box::new(traced)),
                None => Noted::Nothing,
            },
        }
    }
}

// === impl Watch ===

impl Watch {
    const NONE: Self = Self(Noted::Nothing);

    #[inline]
    const fn is_none(&self) -> bool {
        matches!(self.0, Noted::Nothing)
    }

    fn within<T>(&mut self, poll: impl FnOnce() -> T) -> T {
        match &mut self.0 {
            Noted::Call(meter) => meter.tally.within(Book::Metrics, poll),
            Noted::Span(traced) => traced.within(poll),
            Noted::Nothing | Noted::Transfer(_) => poll(),
        }
    }

    /// As `within`, in a poll of its own.
    fn polled<T>(&mut self, poll: impl FnOnce() -> T) -> T {
        self.wake();
        self.within(poll)
    }

    /// As `polled`, of a body: there no attempt begins any more.
    fn in_body<T>(&mut self, poll: impl FnOnce() -> T) -> T {
        match &mut self.0 {
            Noted::Call(meter) => {
                meter.tally.wake();
                poll()
            }
            _ => self.polled(poll),
        }
    }

    const fn wake(&mut self) {
        match &mut self.0 {
            Noted::Call(meter) => meter.tally.wake(),
            Noted::Span(traced) => traced.wake(),
            Noted::Nothing | Noted::Transfer(_) => {}
        }
    }

    /// The head of a response is there, and with it the end, where it is all there is.
    fn head<B: http_body::Body>(&mut self, head: &http::Response<B>) {
        if let Noted::Span(traced) = &mut self.0 {
            traced.head(head.extensions());
        }
        if let Some(code) = code(head.headers()) {
            self.end(code, || Ending::Verdict(Verdict::of_head(head)));
        } else if head.status() != StatusCode::OK {
            let code = status::code_of_http(head.status());
            self.end(code, || Ending::Verdict(Verdict::of_head(head)));
        } else if head.body().is_end_stream() {
            self.end_unsaid();
        }
    }

    fn frame<E: 'static>(&mut self, frame: Option<&Result<Frame<Bytes>, E>>) {
        match frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    if let Noted::Transfer(meter) = &mut self.0 {
                        meter.response.add(data);
                    }
                } else if let Some(trailers) = frame.trailers_ref() {
                    let code = code(trailers).unwrap_or(Code::Unknown);
                    self.end(code, || Ending::Verdict(Verdict::of_trailers(trailers)));
                }
            }
            Some(Err(error)) => self.failed(error),
            None => self.end_unsaid(),
        }
    }

    fn failed(&mut self, error: &dyn Any) {
        match as_error(error) {
            Some(error) => {
                let verdict = Verdict::of_error(error);
                self.end(verdict.code(), || Ending::Failed(verdict, error));
            }
            None => self.end_unsaid(),
        }
    }

    /// It has ended, and nothing says how.
    fn end_unsaid(&mut self) {
        self.end(Code::Unknown, || Ending::Verdict(Verdict::MaybeProcessed(Code::Unknown)));
    }

    /// It has ended with `code`; `how` is asked by who wants to know more.
    fn end<'a>(&mut self, code: Code, how: impl FnOnce() -> Ending<'a>) {
        match std::mem::replace(&mut self.0, Noted::Nothing) {
            Noted::Nothing => {}
            Noted::Call(meter) => meter.end(code),
            // Only a request that failed has perhaps not left.
            Noted::Transfer(meter) if code == Code::Ok => meter.end(code, true),
            Noted::Transfer(meter) => meter.end(code, how().has_left()),
            Noted::Span(traced) => traced.end(code, &how()),
        }
    }
}

impl Drop for Watch {
    #[inline]
    fn drop(&mut self) {
        if !self.is_none() {
            self.wake();
            self.end(Code::Cancelled, || Ending::Dropped);
        }
    }
}

/// As `status::code`, with a name that need not be read each time.
fn code(headers: &HeaderMap) -> Option<Code> {
    static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
    headers.get(&GRPC_STATUS).map(|value| Code::from_bytes(value.as_bytes()))
}

fn as_error(error: &dyn Any) -> Option<&(dyn Error + 'static)> {
    if let Some(boxed) = error.downcast_ref::<BoxError>() {
        return Some(&**boxed);
    }
    if let Some(status) = error.downcast_ref::<Status>() {
        return Some(status);
    }
    error.downcast_ref::<tonic::transport::Error>().map(|error| error as _)
}

// === impl ResponseFuture ===

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<http::Response<B>, E>>,
    B: http_body::Body,
    E: 'static,
{
    type Output = Result<http::Response<ResponseBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if this.watch.is_none() {
            let outcome = ready!(this.inner.poll(cx));
            let unwatched = |inner| ResponseBody { inner, watch: Watch::NONE };
            return Poll::Ready(outcome.map(|head| head.map(unwatched)));
        }
        let outcome = ready!(this.watch.polled(|| this.inner.poll(cx)));
        match &outcome {
            Ok(head) => this.watch.head(head),
            Err(error) => this.watch.failed(error),
        }
        let watch = std::mem::replace(this.watch, Watch::NONE);
        Poll::Ready(outcome.map(|head| head.map(|inner| ResponseBody { inner, watch })))
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

// === impl ResponseBody ===

impl<B> http_body::Body for ResponseBody<B>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: 'static,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        if this.watch.is_none() {
            return this.inner.poll_frame(cx);
        }
        let frame = ready!(this.watch.in_body(|| this.inner.poll_frame(cx)));
        this.watch.frame(frame.as_ref());
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<B> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").finish_non_exhaustive()
    }
}
