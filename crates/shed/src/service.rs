//! The service that sheds.

use crate::{
    Criticality,
    arrival::{Arrival, deadline},
    entry::{Entered, Entering, Upload},
    places::{Place, Until},
    shared::Shared,
};
use bytes::Bytes;
use cinchona_core::{BoxError, MethodKind, Mode, ServerContext};
use cinchona_plumbing::{Paths, ResponseBody, clock::Passing};
use cinchona_policy::concurrency::Entry;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tonic::server::NamedService;
use tower_service::Service;

/// Refuses calls beyond the capacity of the service.
#[derive(Clone, Debug)]
pub struct Shed<S> {
    pub(crate) inner: S,
    pub(crate) around: Arc<Around>,
}

/// The state shared by the services around one other.
#[derive(Debug)]
pub(crate) struct Around {
    pub(crate) shared: Arc<Shared>,
    pub(crate) kinds: Paths<MethodKind>,
}

pin_project! {
    /// The future of a [`Shed`] call.
    pub struct ResponseFuture<S, B, F> {
        #[pin]
        entering: Entering<S, B, F>,
        // The counter of its refusal; `None` if it was admitted immediately.
        refusing: Option<Arc<Shared>>,
    }
}

// === impl Shed ===

impl<S, B, ResBody> Service<Request<B>> for Shed<S>
where
    S: Service<Request<B>, Response = Response<ResBody>> + Clone,
    B: 'static,
    ResBody: Body<Data = Bytes> + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody>;
    type Error = S::Error;
    type Future = ResponseFuture<S, B, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let Self { inner, around } = self;
        let Around { shared, kinds } = &**around;
        let mode = shared.switch.mode();
        // A layer that is off does not inspect calls.
        if mode == Mode::Off {
            return ResponseFuture::unlimited(inner, request);
        }
        let known = ServerContext::find(&request).copied().unwrap_or_default();
        let kind = known.kind.or_else(|| MethodKind::of(&request, kinds));
        let Some(place) = shared.place(request.uri().path(), kind) else {
            return ResponseFuture::unlimited(inner, request);
        };
        let _passing = place.limiter.is_measured().then(Passing::begin);
        match shared.look(&mut request, (kind, known), &place, mode) {
            Arrival::Whole => {
                let Place { limiter, until } = place;
                match limiter.enter(|| Criticality::of(request.headers())) {
                    // The usual case first: the request is moved once.
                    Entry::Admitted(permit) if until.is_sure() => {
                        let permit = Box::new(permit);
                        ResponseFuture {
                            entering: Entering::calling(inner.call(request), permit, until),
                            refusing: None,
                        }
                    }
                    entry => enter(shared, inner, request, (entry, until), mode),
                }
            }
            Arrival::Coming(coming) => {
                let place = (place.limiter.clone(), place.until);
                let (patience, shadow) = (shared.patience(kind, mode), shared.shadow(mode));
                let upload = Upload { coming, patience, shadow };
                let entering = Entering::coming(upload, place, inner, request);
                ResponseFuture { entering, refusing: Some(shared.clone()) }
            }
            Arrival::Partly(held) => {
                let entering = Entering::arriving(held, place.until, inner, request);
                ResponseFuture { entering, refusing: Some(shared.clone()) }
            }
        }
    }
}

/// For a request that is complete, and may have to wait or be refused.
fn enter<S, B>(
    shared: &Arc<Shared>,
    inner: &mut S,
    request: Request<B>,
    (entry, until): (Entry, Until),
    mode: Mode,
) -> ResponseFuture<S, B, S::Future>
where
    S: Service<Request<B>> + Clone,
{
    if mode == Mode::Shadow {
        let entering = Entering::shadow(entry, until, inner, request, &shared.switch);
        return ResponseFuture { entering, refusing: None };
    }
    let deadline = deadline(&request);
    let entering = Entering::new(entry, until, inner, request, deadline);
    ResponseFuture { entering, refusing: Some(shared.clone()) }
}

impl<S: NamedService> NamedService for Shed<S> {
    const NAME: &'static str = S::NAME;
}

// === impl ResponseFuture ===

impl<S, B> ResponseFuture<S, B, S::Future>
where
    S: Service<Request<B>> + Clone,
{
    fn unlimited(service: &mut S, request: Request<B>) -> Self {
        Self { entering: Entering::unlimited(service, request), refusing: None }
    }
}

impl<S, B, ResBody> Future for ResponseFuture<S, B, S::Future>
where
    S: Service<Request<B>, Response = Response<ResBody>>,
    ResBody: Body<Data = Bytes> + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    type Output = Result<Response<ResponseBody>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match (ready!(this.entering.poll(cx)), this.refusing) {
            (Entered::Answered(answered), _) => Poll::Ready(answered),
            (Entered::TurnedAway(criticality), Some(shared)) => {
                Poll::Ready(Ok(shared.refusal(criticality)))
            }
            (Entered::Late, Some(shared)) => Poll::Ready(Ok(shared.lateness())),
            // An admitted call is not refused.
            (_, None) => Poll::Pending,
        }
    }
}

impl<S, B, F> fmt::Debug for ResponseFuture<S, B, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
