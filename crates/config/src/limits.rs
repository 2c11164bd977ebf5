//! Limits of message sizes: `maxRequestMessageBytes` and `maxResponseMessageBytes`.

mod body;
mod lengths;

use body::{Limiter, Overrun, RequestBody};
use bytes::Bytes;
use cinchona_core::{BoxError, Mode, PerMethod, Switch};
use cinchona_plumbing::{Reloadable, ResponseBody, headers, plain_request, polled_again};
use http::{HeaderMap, Request, Response, header::CONTENT_TYPE};
use pin_project_lite::pin_project;
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};
use tonic::body::Body;
use tower_layer::Layer;
use tower_service::Service;

/// The largest message of a call in each direction, in bytes as sent: compressed, and without the
/// five bytes of prefix. Default: any size; 0 allows only empty messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageLimits {
    /// For a request, or each message in a stream of requests.
    pub max_request_bytes: Option<u32>,
    /// For a response, likewise.
    pub max_response_bytes: Option<u32>,
}

/// Applies [`LimitMessages`] to a service. Its clones, and the services it was applied to, share
/// the limits by method.
///
/// *Where:* around the retries, as another attempt of an oversized request is useless.
///
/// ```
/// use cinchona_config::{MessageLimits, MessageLimitsLayer, MessageLimitsSettings};
/// use tonic::{Code, Status, body::Body};
/// use tower::{Layer, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let server = service_fn(|_: http::Request<Body>| async {
///     Ok::<_, Status>(Status::ok("").into_http::<Body>())
/// });
/// let limits = MessageLimits { max_request_bytes: Some(4), ..MessageLimits::default() };
/// let client = MessageLimitsSettings::new().with_limits(limits).layer().layer(server);
///
/// let five = http_body_util::Full::from(&b"\0\0\0\0\x05hello"[..]);
/// let error = client.oneshot(http::Request::new(Body::new(five))).await.err().unwrap();
/// let status = Status::from_error(error);
/// assert_eq!(status.code(), Code::ResourceExhausted);
/// assert_eq!(status.message(), "trying to send message larger than max (5 vs. 4)");
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct MessageLimitsLayer {
    own: MessageLimits,
    by_method: Reloadable<PerMethod<MessageLimits>>,
    switch: Switch,
}

/// The settings of a [`MessageLimitsLayer`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MessageLimitsSettings {
    own: MessageLimits,
    switch: Option<Switch>,
}

/// Fails a call with `RESOURCE_EXHAUSTED` if a message of its request or response is too large.
///
/// A request that is complete when the call is made, as a unary one is, is not sent at all. A
/// stream passes up to the message that is too large, and then fails: it is reset, and never looks
/// complete. Earlier messages are delivered. Sizes are those of gRPC's `service_config.proto`, as
/// framed; the decompressed size is limited by tonic (`max_decoding_message_size`).
#[derive(Clone, Debug)]
pub struct LimitMessages<S> {
    inner: S,
    layer: MessageLimitsLayer,
}

pin_project! {
    /// The future of a call whose messages are limited.
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
        // The state of a limited call.
        limited: Option<Box<(Option<Overrun>, Option<u32>)>>,
    }
}

pin_project! {
    #[project = StateProj]
    #[derive(Debug)]
    enum State<F> {
        Called { #[pin] future: F },
        Failed { error: Option<BoxError> },
    }
}

// === impl MessageLimits ===

impl MessageLimits {
    /// The smaller limit of both, in each direction.
    fn min(self, other: Self) -> Self {
        let smaller = |one: Option<u32>, two| one.into_iter().chain(two).min();
        Self {
            max_request_bytes: smaller(self.max_request_bytes, other.max_request_bytes),
            max_response_bytes: smaller(self.max_response_bytes, other.max_response_bytes),
        }
    }
}

// === impl MessageLimitsSettings ===

impl MessageLimitsSettings {
    /// Without limits of their own.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the application's own limits, for all methods: of these and those by method, the
    /// smaller ones count.
    #[must_use]
    pub fn with_limits(self, own: MessageLimits) -> Self {
        Self { own, ..self }
    }

    /// Sets the switch that decides whether messages are limited; in shadow they are not.
    #[must_use]
    pub fn with_switch(self, switch: Switch) -> Self {
        Self { switch: Some(switch), ..self }
    }

    /// A layer with these settings, and its own limits by method.
    #[must_use]
    pub fn layer(&self) -> MessageLimitsLayer {
        MessageLimitsLayer {
            own: self.own,
            by_method: Reloadable::new(PerMethod::new()),
            switch: self.switch.clone().unwrap_or_default(),
        }
    }
}

// === impl MessageLimitsLayer ===

impl MessageLimitsLayer {
    /// The layer of [`MessageLimitsSettings::new`]: without limits until one is set.
    pub fn new() -> Self {
        MessageLimitsSettings::new().layer()
    }

    /// Sets the limits by method, while calls run: those that have begun keep theirs.
    pub fn set_limits(&self, by_method: PerMethod<MessageLimits>) {
        self.by_method.set(by_method);
    }

    fn limits(&self, path: &str) -> MessageLimits {
        if self.switch.mode() != Mode::Enforce {
            return MessageLimits::default();
        }
        let by_method = self.by_method.get();
        by_method.get(path).map_or(self.own, |limits| limits.min(self.own))
    }
}

impl Default for MessageLimitsLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for MessageLimitsLayer {
    type Service = LimitMessages<S>;

    fn layer(&self, inner: S) -> Self::Service {
        LimitMessages { inner, layer: self.clone() }
    }
}

// === impl LimitMessages ===

impl<S, B, ResBody> Service<Request<B>> for LimitMessages<S>
where
    S: Service<Request<Body>, Response = Response<ResBody>>,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    ResBody: http_body::Body<Data = Bytes> + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody>;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let limits = self.layer.limits(request.uri().path());
        let request = plain_request(request);
        let (request, overrun) = match limits.max_request_bytes {
            None => (request, None),
            Some(most) => {
                let (head, body) = request.into_parts();
                match RequestBody::begin(body, most) {
                    Ok((body, overrun)) => {
                        (Request::from_parts(head, Body::new(body)), Some(overrun))
                    }
                    Err(status) => return ResponseFuture::failed(status.into()),
                }
            }
        };
        let state = State::Called { future: self.inner.call(request) };
        let is_limited = overrun.is_some() || limits.max_response_bytes.is_some();
        let limited = is_limited.then(|| Box::new((overrun, limits.max_response_bytes)));
        ResponseFuture { state, limited }
    }
}

// === impl ResponseFuture ===

impl<F> ResponseFuture<F> {
    fn failed(error: BoxError) -> Self {
        Self { state: State::Failed { error: Some(error) }, limited: None }
    }
}

impl<F, E, ResBody> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<ResBody>, E>>,
    E: Into<BoxError>,
    ResBody: http_body::Body<Data = Bytes> + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    type Output = Result<Response<ResponseBody>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let outcome = match this.state.project() {
            StateProj::Called { future } => ready!(future.poll(cx)).map_err(Into::into),
            StateProj::Failed { error } => Err(error.take().unwrap_or_else(polled_again)),
        };
        let Some((overrun, most)) = this.limited.take().map(|limited| *limited) else {
            return Poll::Ready(outcome.map(|response| response.map(ResponseBody::of)));
        };
        // A request that failed here is the cause of the service's error, if any.
        if let Some(status) = overrun.as_ref().and_then(|overrun| overrun.get()) {
            return Poll::Ready(Err(status.clone().into()));
        }
        Poll::Ready(outcome.map(|response| {
            let most = most.filter(|_| is_grpc(response.headers()));
            let limiter = Limiter::new(most, overrun);
            response.map(|body| ResponseBody::of(body).watched(limiter))
        }))
    }
}

/// Whether the body can be gRPC's: one of another content type has no messages.
fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers::get(headers, &CONTENT_TYPE);
    content_type.is_none_or(|value| value.as_bytes().starts_with(b"application/grpc"))
}

#[cfg(test)]
mod tests;
