//! Bounds the size of statuses.

use bytes::Bytes;
use cinchona_core::{BoxError, Mode, Switch};
use cinchona_plumbing::{Count, Next, Polled, ResponseBody, Seen, Watcher, begins, status};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header::CONTENT_TYPE};
use http_body::Body;
use pin_project_lite::pin_project;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tonic::{Code, Status, server::NamedService};
use tower_layer::Layer;
use tower_service::Service;

/// Applies [`StatusLimit`] to a server; best as the outermost layer.
///
/// # Why
///
/// A status is sent in HTTP/2 headers, which each peer limits: to 8 to 16 KiB. A status that
/// repeats a large value in its message does not arrive: its code becomes `INTERNAL`, and beyond
/// some size the connection is lost, with all its other calls.
///
/// # Rule
///
/// For a status other than OK:
///
/// * `grpc-message` has at most 1 kB as sent (percent-encoded); a longer one is cut and ends in
///   `...`.
/// * `grpc-status-details-bin` has at most 4 kB as sent (base64), or is removed: a part of it would
///   be malformed.
/// * All its metadata has at most 8 kB as counted by HTTP/2 (32 bytes for each entry); beyond that
///   the largest entries are removed, but never `grpc-status`, `grpc-message`, `content-type` and
///   `grpc-retry-pushback-ms`.
#[derive(Clone, Debug, Default)]
pub struct StatusLimitLayer {
    shared: Arc<Shared>,
}

/// The settings of a [`StatusLimitLayer`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StatusLimitSettings {
    switch: Option<Switch>,
}

/// What a [`StatusLimitLayer`] has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StatusLimitCounters {
    /// Statuses that were cut.
    pub cut: u64,
}

/// Sends no status that is too large for its receivers.
#[derive(Clone, Debug)]
pub struct StatusLimit<S> {
    inner: S,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    switch: Switch,
    cut: Count,
}

pin_project! {
    /// The future of a [`StatusLimit`] call.
    pub struct StatusLimitFuture<F> {
        #[pin]
        future: F,
        shared: Option<Arc<Shared>>,
    }
}

/// Bounds the trailers of a response.
struct Cuts(Arc<Shared>);

const MESSAGE: usize = 1000;
const DETAILS: usize = 4000;
const ALL: usize = 8000;
/// The overhead of an entry beside its name and value (RFC 9113, section 6.5.2).
const ENTRY: usize = 32;

// === impl StatusLimitSettings ===

impl StatusLimitSettings {
    /// Bounds the statuses of all methods.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the switch that decides whether statuses are cut, only counted, or passed through.
    #[must_use]
    pub fn with_switch(self, switch: Switch) -> Self {
        Self { switch: Some(switch) }
    }

    /// A layer with these settings, and its own counters.
    #[must_use]
    pub fn layer(&self) -> StatusLimitLayer {
        let switch = self.switch.clone().unwrap_or_default();
        StatusLimitLayer { shared: Arc::new(Shared { switch, cut: Count::default() }) }
    }
}

// === impl StatusLimitLayer ===

impl StatusLimitLayer {
    /// The layer of [`StatusLimitSettings::new`].
    pub fn new() -> Self {
        Self::default()
    }

    /// What it has counted.
    pub fn counters(&self) -> StatusLimitCounters {
        StatusLimitCounters { cut: self.shared.cut.read() }
    }
}

impl<S> Layer<S> for StatusLimitLayer {
    type Service = StatusLimit<S>;

    fn layer(&self, inner: S) -> Self::Service {
        StatusLimit { inner, shared: self.shared.clone() }
    }
}

// === impl StatusLimit ===

impl<S, B, ResBody> Service<Request<B>> for StatusLimit<S>
where
    S: Service<Request<B>, Response = Response<ResBody>>,
    ResBody: Body<Data = Bytes> + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody>;
    type Error = S::Error;
    type Future = StatusLimitFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let is_off = self.shared.switch.mode() == Mode::Off;
        let shared = (!is_off).then(|| self.shared.clone());
        StatusLimitFuture { future: self.inner.call(request), shared }
    }
}

impl<S: NamedService> NamedService for StatusLimit<S> {
    const NAME: &'static str = S::NAME;
}

// === impl Shared ===

impl Shared {
    /// The headers or trailers with a status of this code.
    fn bound(&self, code: Option<Code>, headers: &mut HeaderMap) {
        if code.is_none_or(|code| code == Code::Ok) || fits(headers) {
            return;
        }
        if self.switch.mode() == Mode::Shadow {
            return self.switch.count();
        }
        self.cut.count();
        cut(headers);
    }
}

fn size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + ENTRY).sum()
}

fn fits(headers: &HeaderMap) -> bool {
    let within = |name, most| headers.get(name).is_none_or(|value| value.len() <= most);
    within(Status::GRPC_MESSAGE, MESSAGE)
        && within(Status::GRPC_STATUS_DETAILS, DETAILS)
        && size(headers) <= ALL
}

fn cut(headers: &mut HeaderMap) {
    if let Some(message) = headers.get(Status::GRPC_MESSAGE)
        && message.len() > MESSAGE
    {
        let message = shortened(message.as_bytes());
        headers.insert(Status::GRPC_MESSAGE, message);
    }
    if headers.get(Status::GRPC_STATUS_DETAILS).is_some_and(|details| details.len() > DETAILS) {
        headers.remove(Status::GRPC_STATUS_DETAILS);
    }
    while size(headers) > ALL {
        let removable = headers.iter().filter(|(name, _)| !is_kept(name));
        let largest = removable.max_by_key(|(_, value)| value.len()).map(|(name, _)| name.clone());
        let Some(largest) = largest else { return };
        headers.remove(largest);
    }
}

fn is_kept(name: &HeaderName) -> bool {
    [Status::GRPC_STATUS, Status::GRPC_MESSAGE, CONTENT_TYPE, status::PUSHBACK].contains(name)
}

/// The longest prefix of a percent-encoded message that fits, cut between characters, and `...`.
fn shortened(message: &[u8]) -> HeaderValue {
    let mut end = 0;
    let mut at = 0;
    while at <= MESSAGE - 3 && at < message.len() {
        let (byte, width) = match message.get(at..at + 3) {
            Some([b'%', digits @ ..]) => (decoded(digits), 3),
            _ => (message[at], 1),
        };
        // Not in the middle of a UTF-8 character.
        if byte & 0xC0 != 0x80 {
            end = at;
        }
        at += width;
    }
    let cut = [&message[..end], b"..."].concat();
    HeaderValue::from_bytes(&cut).unwrap_or(HeaderValue::from_static("..."))
}

fn decoded(digits: &[u8]) -> u8 {
    let text = std::str::from_utf8(digits).unwrap_or_default();
    u8::from_str_radix(text, 16).unwrap_or(b'%')
}

// === impl StatusLimitFuture ===

impl<F, B, E> Future for StatusLimitFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Output = Result<Response<ResponseBody>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let shared = this.shared;
        let answered = ready!(this.future.poll(cx));
        Poll::Ready(answered.map(|response| {
            let mut response = response.map(ResponseBody::of);
            if let Some(shared) = shared.take() {
                if !begins(&response) {
                    let code = status::code(response.headers());
                    shared.bound(code, response.headers_mut());
                }
                response.body_mut().watch(Cuts(shared));
            }
            response
        }))
    }
}

impl<F> fmt::Debug for StatusLimitFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatusLimitFuture").finish_non_exhaustive()
    }
}

impl Watcher for Cuts {
    fn sees_data(&self) -> bool {
        false
    }

    fn sees(self: Pin<&mut Self>, polled: &mut Polled, seen: &mut Seen) -> Next {
        if let Some(Ok(frame)) = polled
            && let Some(trailers) = frame.trailers_mut()
        {
            self.0.bound(seen.code(trailers), trailers);
        }
        Next::Watch
    }
}
