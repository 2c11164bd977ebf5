//! Refusals of requests that are not gRPC's, such as those of an axum router's other routes.

use bytes::Bytes;
use cinchona_observe::ResponseBody;
use cinchona_plumbing::{
    Next, Polled, Seen, Watcher,
    code::name,
    headers,
    status::{self, Pushback},
};
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use http_body_util::Full;
use pin_project_lite::pin_project;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};
use tonic::{Code, body::Body};

pin_project! {
    /// The future of a call through a [`Serve`](super::Serve).
    pub struct ServeFuture<F> {
        #[pin]
        inner: F,
        is_other: bool,
    }
}

/// Breaks off a body that a layer ends with a failure in its trailers: over HTTP/1 nobody sees
/// these, and what came before would look whole.
struct Breaks;

/// Whether a request is of another protocol: gRPC sends `POST`, with its own content type.
pub(super) fn is_other<B>(request: &Request<B>) -> bool {
    let kind = || headers::get(request.headers(), &CONTENT_TYPE);
    *request.method() != Method::POST || kind().is_some_and(|kind| !status::is_grpc_type(kind))
}

/// What a layer says of the request, which is a status of gRPC, in the words of HTTP.
#[cold]
fn in_http(mut answer: Response<ResponseBody>) -> Response<ResponseBody> {
    if !status::is_grpc(answer.headers()) {
        answer.body_mut().watch(Breaks);
        return answer;
    }
    let said = status::from_headers(answer.headers()).filter(|_| answer.status() == StatusCode::OK);
    // No layer says that a method is unknown: that is the router's.
    let refusal = |said: &tonic::Status| !matches!(said.code(), Code::Ok | Code::Unimplemented);
    let Some(said) = said.filter(refusal) else { return answer };
    let text = format!("{}: {}\n", name(said.code()), said.message());
    let body = Body::new(Full::new(Bytes::from(text)));
    let mut response = Response::new(ResponseBody::of(body));
    *response.status_mut() = status::http_of_code(said.code());
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    if let Some(Pushback::After(wait)) = status::pushback_of(&said) {
        // In whole seconds, and never too early.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

// === impl Breaks ===

impl Watcher for Breaks {
    fn sees_data(&self) -> bool {
        false
    }

    fn sees(self: Pin<&mut Self>, polled: &mut Polled, seen: &mut Seen) -> Next {
        let Some(Ok(frame)) = polled else { return Next::Watch };
        let code = frame.trailers_ref().and_then(|trailers| seen.code(trailers));
        match code.filter(|code| *code != Code::Ok) {
            Some(code) => {
                *polled = Some(Err(tonic::Status::new(code, "the answer broke off")));
                Next::Cut
            }
            None => Next::Watch,
        }
    }
}

// === impl ServeFuture ===

impl<F> ServeFuture<F> {
    pub(super) const fn new(inner: F, is_other: bool) -> Self {
        Self { inner, is_other }
    }
}

impl<F, E> Future for ServeFuture<F>
where
    F: Future<Output = Result<Response<ResponseBody>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let polled = this.inner.poll(cx);
        if *this.is_other { polled.map_ok(in_http) } else { polled }
    }
}

impl<F> fmt::Debug for ServeFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServeFuture").finish_non_exhaustive()
    }
}
