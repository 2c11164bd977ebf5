//! The calculator and its store as REST: JSON over HTTP/1.1 and HTTP/2, beside gRPC on one port.
//!
//! # Why
//!
//! Browsers, shell scripts and proxies speak HTTP and JSON, and their calls need the same
//! protection. So a request becomes the gRPC call that it stands for, as in [grpc-gateway] and
//! [Envoy's transcoder], and passes through all layers of the server's stack. Handlers and layers
//! see only gRPC.
//!
//! # Rule
//!
//! | `idempotency_level` | request | method |
//! |---|---|---|
//! | `NO_SIDE_EFFECTS` | `GET`, `POST /v1/add` | `Add` |
//! | | `GET`, `POST /v1/subtract`, `/v1/multiply`, `/v1/divide` | `Subtract` and so on |
//! | | `GET /v1/counter` | `GetCounter` |
//! | | `GET /v1/values/{key}` | `GetValue` |
//! | | `GET /v1/values/{key}/balance` | `Balance` |
//! | `IDEMPOTENT` | `DELETE /v1/counter` | `ResetCounter` |
//! | | `PUT`, `DELETE /v1/values/{key}` | `SetValue`, `Delete` |
//! | none | `POST /v1/counter/increment` | `IncrementCounter` |
//! | | `POST /v1/values/{key}/increment` | `Increment` |
//! | | `POST /v1/values/{key}/append` | `Append` |
//! | | `POST /v1/values/{key}/withdraw` | `Withdraw` |
//!
//! * `GET` stands for methods that only read, `PUT` and `DELETE` for idempotent ones. So a client
//!   or a proxy that repeats a request because its HTTP method allows it ([RFC 9110, 9.2]) does no
//!   harm.
//! * The fields are in the body, an `application/json` object of at most 1 MiB that arrives within
//!   10 s, for `POST` and `PUT`; in the query for `GET` and `DELETE`; `key` is in the path. The
//!   JSON is [protobuf's][json]. An answer has all fields, those with their default too.
//! * `grpc-timeout` is the deadline, as for grpc-gateway: `250m`, `2S`. `idempotency-key` is as for
//!   gRPC, whatever the bytes; so are all other headers that are not about HTTP itself.
//! * A failure is `application/problem+json` ([RFC 9457]) under the status that google.rpc.Code
//!   names ([`http_status`]), with gRPC's name of it as `code`, the server's `reason` if it gives
//!   one, and a pushback as `Retry-After`.
//!
//! | the request | answer |
//! |---|---|
//! | is no JSON; its `grpc-timeout` is malformed | 400, `INVALID_ARGUMENT` |
//! | has a field that is unknown, there twice, or of another type | 400, `INVALID_ARGUMENT` |
//! | has an unknown path; has a known path, but not by this method | 404; 405, and `Allow` |
//! | has a body that is late; too long; of another type, or compressed | 408; 413; 415 |
//!
//! # What it does not do
//!
//! Methods that stream have no REST: JSON has no stream that all clients would read alike. A fault
//! that breaks a connection below gRPC (a reset, `drop`, `goaway`) is an error of status 5xx here.
//! There is no CORS: a web page of another origin may send a `GET`, which changes nothing, but does
//! not see the answer; all else would have to be allowed first. `Host` is not looked at. An answer
//! to a `GET` says `no-store`, as nothing says how long it holds.
//!
//! [Envoy's transcoder]: https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/grpc_json_transcoder_filter
//! [RFC 9110, 9.2]: https://www.rfc-editor.org/rfc/rfc9110#section-9.2
//! [RFC 9457]: https://www.rfc-editor.org/rfc/rfc9457
//! [grpc-gateway]: https://grpc-ecosystem.github.io/grpc-gateway/
//! [json]: https://protobuf.dev/programming-guides/json/

mod call;
mod headers;
pub(crate) mod json;
mod problem;

pub use problem::http_status;

use crate::pb::{
    Amount, AppendRequest, BinaryOperation, CounterRequest, CounterResult, DeleteRequest, Empty,
    IncrementRequest, Key, Result as Value, SetValueRequest, Text, WithdrawRequest,
};
use axum::{
    Router,
    body::Body as HttpBody,
    routing::{MethodFilter, future::RouteFuture},
};
use bytes::Bytes;
use call::call;
use cinchona::core::BoxError;
use http::{HeaderValue, Request, Response, StatusCode, Version, header::CONTENT_TYPE};
use http_body_util::Either;
use pin_project_lite::pin_project;
use problem::Problem;
use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tonic::body::Body;
use tower::{Layer, Service};

/// Applies [`Rest`] to a server's stack, around all its other layers.
#[derive(Clone, Copy, Debug)]
pub struct RestLayer {
    is_on: bool,
}

/// Makes a gRPC call of each request that is none yet, and an HTTP answer of what it returns.
#[derive(Clone, Debug)]
pub struct Rest<S> {
    stack: S,
    /// `None` where there is gRPC alone.
    routes: Option<Router>,
}

pin_project! {
    /// The future of a [`Rest`] request.
    pub struct ResponseFuture<F> {
        #[pin]
        way: Way<F>,
    }
}

pin_project! {
    #[project = WayProj]
    enum Way<F> {
        Grpc { #[pin] answered: F },
        Rest { #[pin] answered: RouteFuture<Infallible> },
    }
}

// === impl RestLayer ===

impl RestLayer {
    /// Accepts REST if it `is_on`, else gRPC alone.
    pub const fn new(is_on: bool) -> Self {
        Self { is_on }
    }
}

impl<S, B> Layer<S> for RestLayer
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError> + Send,
{
    type Service = Rest<S>;

    fn layer(&self, stack: S) -> Rest<S> {
        let routes = self.is_on.then(|| routes().with_state(stack.clone()));
        Rest { stack, routes }
    }
}

// === impl Rest ===

impl<S, B> Service<Request<Body>> for Rest<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    B: http_body::Body<Data = Bytes>,
{
    type Response = Response<Either<B, HttpBody>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.stack.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let way = match &mut self.routes {
            // The stack that is ready stays so: a route readies a clone of its own.
            Some(routes) if !is_grpc(&request) => Way::Rest { answered: routes.call(request) },
            _ => Way::Grpc { answered: self.stack.call(request) },
        };
        ResponseFuture { way }
    }
}

/// Whether the request is a call already: gRPC has no HTTP/1.1, and names its content.
fn is_grpc<B>(request: &Request<B>) -> bool {
    let kind = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    request.version() >= Version::HTTP_2
        && kind.is_some_and(|kind| kind.starts_with(b"application/grpc"))
}

// === impl ResponseFuture ===

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<Either<B, HttpBody>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match self.project().way.project() {
            WayProj::Grpc { answered } => {
                ready!(answered.poll(cx)).map(|response| response.map(Either::Left))
            }
            WayProj::Rest { answered } => {
                let Ok(response) = ready!(answered.poll(cx));
                Ok(response.map(Either::Right))
            }
        })
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

/// Each route to its call on the stack.
fn routes<S, B>() -> Router<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError> + Send,
{
    const GET: MethodFilter = MethodFilter::GET;
    const POST: MethodFilter = MethodFilter::POST;
    const PUT: MethodFilter = MethodFilter::PUT;
    const DELETE: MethodFilter = MethodFilter::DELETE;
    let operation = |rpc| call::<S, BinaryOperation, Value>(GET.or(POST), rpc);
    let counter = |filter, rpc| call::<S, Empty, CounterResult>(filter, rpc);
    let increment = call::<S, CounterRequest, CounterResult>;
    let (got, set) = (call::<S, Key, Text>, call::<S, SetValueRequest, Empty>);
    let (deleted, balance) = (call::<S, DeleteRequest, Empty>, call::<S, Key, Amount>);
    let (added, appended) = (call::<S, IncrementRequest, Amount>, call::<S, AppendRequest, Text>);
    let withdrawn = call::<S, WithdrawRequest, Amount>;
    Router::new()
        .route("/v1/add", operation("/calculator.Calculator/Add"))
        .route("/v1/subtract", operation("/calculator.Calculator/Subtract"))
        .route("/v1/multiply", operation("/calculator.Calculator/Multiply"))
        .route("/v1/divide", operation("/calculator.Calculator/Divide"))
        .route("/v1/counter", counter(GET, "/calculator.Calculator/GetCounter"))
        .route("/v1/counter", counter(DELETE, "/calculator.Calculator/ResetCounter"))
        .route("/v1/counter/increment", increment(POST, "/calculator.Calculator/IncrementCounter"))
        .route("/v1/values/{key}", got(GET, "/calculator.Store/GetValue"))
        .route("/v1/values/{key}", set(PUT, "/calculator.Store/SetValue"))
        .route("/v1/values/{key}", deleted(DELETE, "/calculator.Store/Delete"))
        .route("/v1/values/{key}/balance", balance(GET, "/calculator.Store/Balance"))
        .route("/v1/values/{key}/increment", added(POST, "/calculator.Store/Increment"))
        .route("/v1/values/{key}/append", appended(POST, "/calculator.Store/Append"))
        .route("/v1/values/{key}/withdraw", withdrawn(POST, "/calculator.Store/Withdraw"))
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "nothing is served at this path"))
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path has no such method")
        })
}
