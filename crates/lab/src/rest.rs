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
//!   names ([`http_of_code`]), with gRPC's name of it as `code`, the server's `reason` if it gives
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

pub use cinchona_plumbing::status::http_of_code;

use crate::pb::{
    Amount, AppendRequest, BinaryOperation, CounterRequest, CounterResult, DeleteRequest, Empty,
    IncrementRequest, Key, Result as Value, SetValueRequest, Text, WithdrawRequest,
};
use axum::{Router, routing::MethodFilter};
use calculator::around::{Around, Stack};
use call::call;
use cinchona_plumbing::ResponseBody;
use http::{HeaderValue, Request, Response, StatusCode, Version, header::CONTENT_TYPE};
use problem::Problem;
use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};
use tonic::body::Body;
use tower::{Service, layer::layer_fn};

/// Makes a gRPC call of each request that is none yet, and an HTTP answer of what it returns.
#[derive(Clone, Debug)]
struct Rest {
    stack: Stack,
    routes: Router,
}

/// REST for a server, around its stack.
pub fn around() -> Around {
    let rest = |stack: Stack| Rest { routes: routes().with_state(stack.clone()), stack };
    Around::new("the same calls as JSON", layer_fn(rest))
}

// === impl Rest ===

impl Service<Request<Body>> for Rest {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.stack.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if is_grpc(&request) {
            return self.stack.call(request);
        }
        // The stack that is ready stays so: a route readies a clone of its own.
        let answered = self.routes.call(request);
        Box::pin(async { Ok(answered.await?.map(ResponseBody::of)) })
    }
}

/// Whether the request is a call already: gRPC has no HTTP/1.1, and names its content.
fn is_grpc<B>(request: &Request<B>) -> bool {
    let kind = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    request.version() >= Version::HTTP_2
        && kind.is_some_and(|kind| kind.starts_with(b"application/grpc"))
}

/// Each route to its call on the stack.
fn routes() -> Router<Stack> {
    const GET: MethodFilter = MethodFilter::GET;
    const POST: MethodFilter = MethodFilter::POST;
    const PUT: MethodFilter = MethodFilter::PUT;
    const DELETE: MethodFilter = MethodFilter::DELETE;
    let operation = |rpc| call::<BinaryOperation, Value>(GET.or(POST), rpc);
    let counter = |filter, rpc| call::<Empty, CounterResult>(filter, rpc);
    let increment = call::<CounterRequest, CounterResult>;
    let (got, set) = (call::<Key, Text>, call::<SetValueRequest, Empty>);
    let (deleted, balance) = (call::<DeleteRequest, Empty>, call::<Key, Amount>);
    let (added, appended) = (call::<IncrementRequest, Amount>, call::<AppendRequest, Text>);
    let withdrawn = call::<WithdrawRequest, Amount>;
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
