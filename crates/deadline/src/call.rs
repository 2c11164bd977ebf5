//! The deadline of the whole call.

use crate::bound::{BoundBody, Readied, ResponseFuture};
use cinchona_core::{BoxError, Deadline};
use http_body::Body;
use std::{
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::Instant;
use tonic::Status;
use tower_layer::Layer;
use tower_service::Service;

/// Applies [`CallDeadline`] to a service.
#[derive(Clone, Copy, Debug, Default)]
pub struct CallDeadlineLayer {
    limit: Option<Duration>,
}

/// Ends a call at its deadline with `DEADLINE_EXCEEDED`, wherever it then is.
///
/// The deadline is the earlier of the request's `grpc-timeout` and the configured limit, from the
/// moment of the call. It is handed on as a [`Deadline`] in the request's extensions.
/// Always ready: waiting for the service below is part of the call. A malformed `grpc-timeout` is
/// answered with `INVALID_ARGUMENT`, one of zero with `DEADLINE_EXCEEDED`, and neither is sent.
#[derive(Clone, Debug)]
pub struct CallDeadline<S> {
    inner: Readied<S>,
    limit: Option<Duration>,
}

// === impl CallDeadlineLayer ===

impl CallDeadlineLayer {
    /// Enforces the `grpc-timeout` of the calls that have one.
    pub const fn new() -> Self {
        Self { limit: None }
    }

    /// Ends every call after `limit` at the latest. Any duration is valid; zero ends all calls.
    pub const fn with_limit(self, limit: Duration) -> Self {
        Self { limit: Some(limit) }
    }
}

impl<S> Layer<S> for CallDeadlineLayer {
    type Service = CallDeadline<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CallDeadline { inner: Readied::new(inner), limit: self.limit }
    }
}

// === impl CallDeadline ===

impl<S, B, ResBody> Service<http::Request<B>> for CallDeadline<S>
where
    S: Service<http::Request<B>, Response = http::Response<ResBody>> + Clone,
    S::Error: Into<BoxError>,
    ResBody: Body,
{
    type Response = http::Response<BoundBody<ResBody>>;
    type Error = BoxError;
    type Future = ResponseFuture<S, B, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll(cx);
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        let now = Instant::now();
        let asked = match Deadline::of(&request, now) {
            Ok(asked) => asked,
            Err(invalid) => {
                return ResponseFuture::failed(Status::invalid_argument(invalid.to_string()));
            }
        };
        let configured = self.limit.map(|limit| Deadline::after(limit, now));
        let Some(deadline) = asked.into_iter().chain(configured).min() else {
            return self.inner.call(request, None);
        };
        request.extensions_mut().insert(deadline);
        self.inner.call_until(request, (deadline, "call deadline"), now)
    }
}
