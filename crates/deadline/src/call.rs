//! The deadline of the whole call.

use crate::bound::{Bound, BoundBody, Readied, ResponseFuture};
use cinchona_core::{BoxError, Deadline, Inbound, Live, Mode, PerMethod, Switch};
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
///
/// Its clones, and the services it was applied to, share the timeouts by method.
#[derive(Clone, Debug)]
pub struct CallDeadlineLayer {
    settings: Settings,
}

/// Ends a call at its deadline with `DEADLINE_EXCEEDED`, wherever it then is.
///
/// The deadline is the earliest of the request's `grpc-timeout`, the configured limit, the method's
/// timeout and, where the call is made by the handler of another, that one's deadline; from the
/// moment of the call. It is handed on as a [`Deadline`] in the request's extensions.
/// Always ready: waiting for the service below is part of the call. A malformed `grpc-timeout` is
/// answered with `INVALID_ARGUMENT`, one of zero with `DEADLINE_EXCEEDED`, and neither is sent.
#[derive(Clone, Debug)]
pub struct CallDeadline<S> {
    inner: Readied<S>,
    settings: Settings,
}

#[derive(Clone, Debug)]
struct Settings {
    limit: Option<Duration>,
    timeouts: Live<PerMethod<Option<Duration>>>,
    switch: Switch,
}

// === impl CallDeadlineLayer ===

impl CallDeadlineLayer {
    /// Enforces the `grpc-timeout` of the calls that have one.
    pub fn new() -> Self {
        let timeouts = Live::new(PerMethod::new());
        Self { settings: Settings { limit: None, timeouts, switch: Switch::default() } }
    }

    /// Ends every call after `limit` at the latest. Any duration is valid; zero ends all calls.
    pub fn with_limit(mut self, limit: Duration) -> Self {
        self.settings.limit = Some(limit);
        self
    }

    /// Lets `switch` decide whether calls are ended, only counted, or not watched.
    pub fn with_switch(mut self, switch: Switch) -> Self {
        self.settings.switch = switch;
        self
    }

    /// Sets how long the calls of each method may take, while calls run.
    pub fn set_timeouts(&self, timeouts: PerMethod<Option<Duration>>) {
        self.settings.timeouts.set(timeouts);
    }
}

impl Default for CallDeadlineLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for CallDeadlineLayer {
    type Service = CallDeadline<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CallDeadline { inner: Readied::new(inner), settings: self.settings.clone() }
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
        let Settings { limit, timeouts, switch } = &self.settings;
        let mode = switch.mode();
        if mode == Mode::Off {
            return self.inner.call(request, None);
        }
        let asked = match Deadline::of(&request, now) {
            Ok(asked) => asked,
            Err(invalid) => {
                return ResponseFuture::failed(Status::invalid_argument(invalid.to_string()));
            }
        };
        let of_method = timeouts.get().get(request.uri().path()).copied().flatten();
        let configured = [*limit, of_method].into_iter().flatten();
        let configured = configured.map(|limit| Deadline::after(limit, now));
        let inherited = Inbound::current().and_then(|inbound| inbound.deadline);
        let Some(deadline) = configured.chain(asked).chain(inherited).min() else {
            return self.inner.call(request, None);
        };
        if mode == Mode::Shadow {
            let bound = Bound::new("call deadline", deadline, &request, now);
            return self.inner.call(request, Some(bound.counting(switch.clone())));
        }
        request.extensions_mut().insert(deadline);
        self.inner.call_until(request, (deadline, "call deadline"), now)
    }
}
