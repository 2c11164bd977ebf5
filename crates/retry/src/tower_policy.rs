//! The same policy for users of tower's retry.

use crate::{layer::RetryLayer, shared::Shared, stamp::stamp};
use bytes::Bytes;
use cinchona_core::{Deadline, Methods, ServerContext, Verdict};
use cinchona_plumbing::{clock::later, status, whole};
use cinchona_policy::retry::{
    CallThrottling, Decision, Ended, Limits, PACE, Progress, RetryPolicy,
};
use http::{Request, Response};
use http_body_util::Full;
use std::{error::Error, sync::Arc};
use tokio::time::{Instant, Sleep, sleep};
use tonic::body::Body;

/// A [`tower::retry::Policy`] that decides as [`Retry`](crate::Retry) does.
///
/// tower's retry must clone the request before it is sent, so the request's body has to be a
/// [`TowerBody`]: capture above it, release below it.
///
/// ```
/// use cinchona_core::Methods;
/// use cinchona_retry::{RetryPolicy, TowerBody, TowerPolicy};
/// use tonic::{Status, body::Body};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// # let channel = service_fn(|_: http::Request<Body>| async {
/// #     Ok::<_, std::io::Error>(Status::deadline_exceeded("slow").into_http::<Body>())
/// # });
/// let policy = TowerPolicy::new(RetryPolicy::default(), Methods::all_idempotent());
/// let client = ServiceBuilder::new()
///     .map_request(|request| TowerBody::capture(request, 256 * 1024))
///     .retry(policy)
///     .map_request(TowerBody::release)
///     .service(channel);
/// let response = client.oneshot(http::Request::new(Body::empty())).await.unwrap();
/// assert_eq!(response.headers()["grpc-status"], "4");
/// # }
/// ```
///
/// *Its limits, which are tower's:* no ledger; the last failure is returned unchanged, with tonic's
/// codes; the deadline is known only under a `CallDeadlineLayer`, and ends no attempt in flight;
/// error types must implement `std::error::Error`, which `BoxError` does not.
#[derive(Clone, Debug)]
pub struct TowerPolicy {
    policy: RetryPolicy,
    shared: Arc<Shared>,
    progress: Option<Progress>,
}

/// A request body that tower's retry can clone, if it was complete.
#[derive(Debug)]
pub enum TowerBody {
    /// Complete: cloned for each attempt.
    Whole(Bytes),
    /// Still streaming, or over the cap: sent once.
    Once(Body),
}

// === impl TowerPolicy ===

impl TowerPolicy {
    /// Decides by `policy` and `methods`, as [`RetryLayer::new`].
    pub fn new(policy: RetryPolicy, methods: Methods) -> Self {
        let shared = RetryLayer::new(policy, methods).shared;
        Self { policy, shared, progress: None }
    }
}

impl<B, E> tower::retry::Policy<Request<TowerBody>, Response<B>, E> for TowerPolicy
where
    B: http_body::Body,
    E: Error + 'static,
{
    type Future = Sleep;

    fn retry(
        &mut self,
        request: &mut Request<TowerBody>,
        result: &mut Result<Response<B>, E>,
    ) -> Option<Sleep> {
        let now = Instant::now();
        let (verdict, pushback) = match result {
            Ok(head) => (Verdict::of_head(head), status::pushback(head.headers())),
            Err(error) => (Verdict::of_error(error), None),
        };
        let Shared { methods, budget, rng, .. } = &*self.shared;
        let method = request.uri().path();
        if verdict == Verdict::Ok {
            budget.deposit(method, || now);
        }
        let limits = Limits { throttle: &CallThrottling::default(), budget, method };
        let progress = self.progress.get_or_insert_with(|| {
            let deadline = Deadline::handed_on(request).map(|deadline| deadline.0);
            let mut progress = Progress::new(methods.safety_of(request), deadline);
            progress.serves_retry =
                ServerContext::current().is_some_and(|served| served.previous_attempts > 0);
            progress
        });
        let ended = Ended { verdict: verdict.into(), pushback, can_repeat: true, now };
        let wait = match self.policy.decide(ended, progress, limits, &mut rng.draw()) {
            Decision::Stop(_) | Decision::AwaitConnection => return None,
            Decision::Transparent(wait) | Decision::RetryAfter(wait) => wait,
        };
        // At most one attempt per millisecond, as the caller's own timer is about to fire.
        let wait = wait.max(PACE);
        stamp(progress, request.headers_mut(), later(now, wait));
        Some(sleep(wait))
    }

    fn clone_request(&mut self, request: &Request<TowerBody>) -> Option<Request<TowerBody>> {
        let TowerBody::Whole(body) = request.body() else { return None };
        let mut again = Request::new(TowerBody::Whole(body.clone()));
        *again.method_mut() = request.method().clone();
        *again.uri_mut() = request.uri().clone();
        *again.version_mut() = request.version();
        *again.headers_mut() = request.headers().clone();
        *again.extensions_mut() = request.extensions().clone();
        Some(again)
    }
}

// === impl TowerBody ===

impl TowerBody {
    /// Makes the body of `request` cloneable, if it is complete and has at most `cap` bytes.
    pub fn capture(request: Request<Body>, cap: usize) -> Request<Self> {
        match whole(request, cap) {
            Ok((parts, body)) => Request::from_parts(parts, Self::Whole(body)),
            Err(request) => request.map(Self::Once),
        }
    }

    /// Makes `request` one that a tonic channel takes.
    pub fn release(request: Request<Self>) -> Request<Body> {
        request.map(|body| match body {
            Self::Whole(body) => Body::new(Full::new(body)),
            Self::Once(body) => body,
        })
    }
}
