//! The time limit of one attempt.

use crate::bound::{Bound, BoundBody, Readied, ResponseFuture};
use cinchona_core::{BoxError, Deadline, Mode, Switch};
use http_body::Body;
use std::{
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::Instant;
use tonic::Status;
use tower_layer::Layer;
use tower_service::Service;

/// Applies [`AttemptTimeout`] to a service; 2 s unless said otherwise.
#[derive(Clone, Debug)]
pub struct AttemptTimeoutLayer {
    limit: Duration,
    switch: Switch,
}

/// Ends an attempt that is not over within a limit with `DEADLINE_EXCEEDED`.
///
/// The attempt's response body counts: a unary answer that stalls after its headers is ended too.
/// Never later than the call's own deadline.
#[derive(Clone, Debug)]
pub struct AttemptTimeout<S> {
    inner: Readied<S>,
    limit: Duration,
    switch: Switch,
}

/// Another limit for the attempts of one call, put into the request's extensions; `None` lifts it,
/// for a server stream that is meant to last.
///
/// ```
/// let mut request = tonic::Request::new(());
/// request.extensions_mut().insert(cinchona_deadline::AttemptLimit(None));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptLimit(pub Option<Duration>);

// === impl AttemptTimeoutLayer ===

impl AttemptTimeoutLayer {
    /// Bounds each attempt by `limit`. Any duration is valid; zero ends all attempts.
    pub fn new(limit: Duration) -> Self {
        Self { limit, switch: Switch::default() }
    }

    /// Lets `switch` decide whether attempts are ended, only counted, or not watched. The call's
    /// own deadline is not this layer's to switch.
    pub fn with_switch(self, switch: Switch) -> Self {
        Self { switch, ..self }
    }
}

impl Default for AttemptTimeoutLayer {
    fn default() -> Self {
        Self::new(Duration::from_secs(2))
    }
}

impl<S> Layer<S> for AttemptTimeoutLayer {
    type Service = AttemptTimeout<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AttemptTimeout {
            inner: Readied::new(inner),
            limit: self.limit,
            switch: self.switch.clone(),
        }
    }
}

// === impl AttemptTimeout ===

impl<S, B, ResBody> Service<http::Request<B>> for AttemptTimeout<S>
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

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let now = Instant::now();
        let call = match Deadline::of(&request, now) {
            Ok(call) => call,
            Err(invalid) => {
                return ResponseFuture::failed(Status::invalid_argument(invalid.to_string()));
            }
        };
        let mode = self.switch.mode();
        let limit =
            request.extensions().get().map_or(Some(self.limit), |limit: &AttemptLimit| limit.0);
        let attempt = limit.map(|limit| Deadline::after(limit, now));
        let attempt = attempt.filter(|_| mode != Mode::Off);
        let (deadline, what) = match (attempt, call) {
            (None, None) => return self.inner.call(request, None),
            (Some(attempt), Some(call)) if call <= attempt => (call, "call deadline"),
            (None, Some(call)) => (call, "call deadline"),
            (Some(attempt), _) if mode == Mode::Shadow => {
                let bound = Bound::new("attempt timeout", attempt, &request, now);
                return self.inner.call(request, Some(bound.counting(self.switch.clone())));
            }
            (Some(attempt), _) => (attempt, "attempt timeout"),
        };
        self.inner.call_until(request, (deadline, what), now)
    }
}
