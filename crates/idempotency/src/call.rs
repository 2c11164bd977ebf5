//! A call that has a key, from its claim to its answer.

use crate::{
    Claim, Execution, Guarantee, InFlight, Settings, Store, Wait,
    counters::Cells,
    key,
    record::{self, Answer},
    refusal,
};
use bytes::Bytes;
use cinchona_core::{BoxError, Inbound, Mode, status};
use http::{Request, Response, request::Parts};
use http_body_util::{BodyExt, Full, Limited};
use std::{
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    thread,
    time::Duration,
};
use tokio::{runtime::Handle, time::timeout};
use tonic::{Code, Status, body::Body};
use tower_service::Service;
use tracing::Instrument;
use xxhash_rust::xxh3::xxh3_128;

/// All that a call needs; the service is ready.
pub(crate) struct Call<S, T> {
    pub(crate) service: S,
    pub(crate) store: T,
    pub(crate) settings: Arc<Settings>,
    pub(crate) cells: Arc<Cells>,
    pub(crate) mode: Mode,
}

/// A claim that is settled whatever happens: where its execution panics or is cut off, by what is
/// right for an outcome that nobody knows.
struct Lease<T: Store> {
    store: T,
    execution: Arc<Execution>,
    outcome: Outcome,
    is_settled: bool,
}

/// What is to be done with a claim.
#[derive(Clone, Debug)]
enum Outcome {
    /// Give this answer from now on.
    Keep(Bytes),
    /// Let it be executed again.
    Release,
}

/// What a claim means for a call.
enum Decision {
    Execute { token: u128, lapsed: bool },
    PassThrough,
    Wait(Wait),
    Answer(Response<Body>),
}

/// A future that goes on by itself when it is dropped before it is ready.
struct Unstoppable<F: Future + Send + 'static> {
    running: Option<Pin<Box<F>>>,
    cells: Arc<Cells>,
}

/// The claim outlasts the execution by this much, so that it is the execution that ends it.
const GRACE: Duration = Duration::from_secs(1);

// === impl Call ===

impl<S, T> Call<S, T>
where
    S: Service<Request<Body>, Response = Response<Body>> + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    T: Store,
{
    pub(crate) async fn answer(
        mut self,
        request: Request<Body>,
    ) -> Result<Response<Body>, S::Error> {
        let (parts, body) = request.into_parts();
        let body = match Limited::new(body, self.settings.request_limit).collect().await {
            Ok(collected) => collected.to_bytes(),
            Err(error) => return Ok(unread(error, self.settings.request_limit).into_http()),
        };
        let key = match key::of(&parts, &body, &self.settings.methods) {
            Ok(key) => key,
            Err(refused) => return Ok(refused.into_http()),
        };
        let path = parts.uri.path();
        let Some(key) = key else {
            if self.settings.required.get(path) == Some(&true) && self.mode == Mode::Enforce {
                return Ok(refusal::missing_key(path).into_http());
            }
            return self.service.call(whole(parts, body)).await;
        };
        let caller = self.settings.caller.as_ref().and_then(|caller| caller(&parts));
        let key = key::stored(path, key, caller.as_deref().unwrap_or_default());
        let fingerprint = xxh3_128(&body);
        self.claim(key, fingerprint, whole(parts, body)).await
    }

    /// Claims the key until that is granted, or there is an answer without.
    async fn claim(
        mut self,
        key: Vec<u8>,
        fingerprint: u128,
        request: Request<Body>,
    ) -> Result<Response<Body>, S::Error> {
        let mut has_waited = false;
        let (token, lapsed) = loop {
            let lease = self.settings.lease + GRACE;
            let claim = self.store.claim(&key, fingerprint, lease).await;
            match self.decide(claim, request.uri().path()) {
                Decision::Execute { token, lapsed } => break (token, lapsed),
                Decision::PassThrough => return self.service.call(request).await,
                Decision::Answer(response) => return Ok(response),
                Decision::Wait(wait) => {
                    if !mem::replace(&mut has_waited, true) {
                        self.cells.joined.count();
                    }
                    wait.over().await;
                }
            }
        };
        let execution = Execution::new(self.store.instance(), key.into_boxed_slice(), token);
        let lease = Lease {
            store: self.store.clone(),
            execution: Arc::new(execution),
            outcome: self.settings.unknown_outcome(),
            is_settled: false,
        };
        if lapsed && self.settings.guarantee == Guarantee::AtMostOnce {
            self.cells.ambiguous.count();
            lease.settle(self.settings.unknown_outcome()).await;
            return Ok(refusal::unknown_outcome().into_http());
        }
        // Whoever gives up does not take those along who wait for the same answer.
        let cells = self.cells.clone();
        Unstoppable { running: Some(Box::pin(self.execute(lease, request))), cells }.await
    }

    fn decide(&self, claim: Result<Claim, BoxError>, path: &str) -> Decision {
        let Self { settings, cells, .. } = self;
        if self.mode == Mode::Shadow && !matches!(claim, Ok(Claim::Granted { .. })) {
            settings.switch.count();
            return Decision::PassThrough;
        }
        let (counted, refused) = match claim {
            Ok(Claim::Granted { token, lapsed }) => return Decision::Execute { token, lapsed },
            Ok(Claim::Done(record)) => {
                cells.replayed.count();
                tracing::debug!(rpc.method = path, "replaying an answer");
                return Decision::Answer(record::replay(record, settings.fragments.get(path)));
            }
            Ok(Claim::Busy(wait)) => match settings.in_flight {
                InFlight::Join => return Decision::Wait(wait),
                InFlight::Reject(pushback) => (&cells.rejected, refusal::in_flight(pushback)),
            },
            Ok(Claim::Mismatch) => (&cells.mismatched, refusal::reused_key()),
            Ok(Claim::Evicted) => (&cells.evicted, refusal::evicted()),
            Err(error) => {
                tracing::warn!(%error, executing = settings.fail_open, "the store failed");
                if settings.fail_open {
                    cells.store_failures.count();
                    return Decision::PassThrough;
                }
                (&cells.store_failures, refusal::store_failed(&error))
            }
        };
        counted.count();
        Decision::Answer(refused.into_http())
    }

    async fn execute(
        mut self,
        lease: Lease<T>,
        request: Request<Body>,
    ) -> Result<Response<Body>, S::Error> {
        self.cells.executed.count();
        let inbound = Inbound::current().unwrap_or_default();
        let handler = async {
            let response = self.service.call(request).await?;
            Ok(Answer::of(response).await)
        };
        let handler = inbound.scope(lease.execution.clone().scope(handler));
        let ended = timeout(self.settings.lease, handler).await;
        let Ok(Ok(Ok(answer))) = ended else {
            self.cells.ambiguous.count();
            lease.settle(self.settings.unknown_outcome()).await;
            return match ended {
                Ok(Err(error)) => Err(error),
                Ok(Ok(Err(broken))) => Ok(broken.into_http()),
                _ => Ok(refusal::unknown_outcome().into_http()),
            };
        };
        let outcome = match answer.code() {
            code if is_refusal_to_begin(code) => Outcome::Release,
            code if is_ambiguous(code) => {
                self.cells.ambiguous.count();
                match self.settings.guarantee {
                    Guarantee::AtMostOnce => Outcome::Keep(answer.record()),
                    Guarantee::AtLeastOnce => Outcome::Release,
                }
            }
            _ => Outcome::Keep(self.settings.bounded(answer.record())),
        };
        lease.settle(outcome).await;
        Ok(answer.response())
    }
}

/// The handler has said that it has not begun, or has undone what it began, by what these codes
/// mean ([status codes]).
///
/// [status codes]: https://github.com/grpc/grpc/blob/master/doc/statuscodes.md
const fn is_refusal_to_begin(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable | Code::Aborted | Code::ResourceExhausted | Code::Unauthenticated
    )
}

/// The handler began, and does not say how far it came.
const fn is_ambiguous(code: Code) -> bool {
    matches!(
        code,
        Code::Internal | Code::Unknown | Code::DataLoss | Code::DeadlineExceeded | Code::Cancelled
    )
}

fn whole(parts: Parts, body: Bytes) -> Request<Body> {
    Request::from_parts(parts, Body::new(Full::new(body)))
}

fn unread(error: BoxError, limit: usize) -> Status {
    if error.is::<http_body_util::LengthLimitError>() {
        // What tonic says of a message over its own limit.
        return Status::out_of_range(format!("the request has more than {limit} bytes"));
    }
    status::of_error(error)
}

// === impl Settings ===

impl Settings {
    fn unknown_outcome(&self) -> Outcome {
        match self.guarantee {
            Guarantee::AtMostOnce => Outcome::Keep(record::of_status(refusal::unknown_outcome())),
            Guarantee::AtLeastOnce => Outcome::Release,
        }
    }

    /// `record`, or the news that it was too large.
    fn bounded(&self, record: Bytes) -> Bytes {
        if record.len() <= self.record_limit {
            return record;
        }
        record::of_status(refusal::too_large(self.record_limit))
    }
}

// === impl Lease ===

impl<T: Store> Lease<T> {
    async fn settle(mut self, outcome: Outcome) {
        if !self.execution.is_answered() {
            self.outcome = outcome.clone();
            outcome.apply(&self.store, &self.execution).await;
        }
        self.is_settled = true;
    }
}

impl<T: Store> Drop for Lease<T> {
    fn drop(&mut self) {
        if self.is_settled || self.execution.is_answered() {
            return;
        }
        // Without a runtime the claim ends with its lease.
        let Ok(runtime) = Handle::try_current() else { return };
        let (store, execution) = (self.store.clone(), self.execution.clone());
        let outcome = self.outcome.clone();
        runtime.spawn(async move { outcome.apply(&store, &execution).await });
    }
}

// === impl Outcome ===

impl Outcome {
    /// Where the store fails the call has been executed all the same: so it has its answer, and
    /// the claim stays until its lease ends.
    async fn apply<T: Store>(self, store: &T, execution: &Execution) {
        let (key, token) = (execution.key(), execution.token());
        let applied = match self {
            Self::Keep(record) => store.finish(key, token, record).await,
            Self::Release => store.release(key, token).await.map(|()| true),
        };
        match applied {
            Ok(true) => {}
            Ok(false) => tracing::warn!("the lease of a call ended before its answer was stored"),
            Err(error) => tracing::warn!(%error, "the answer of a call could not be stored"),
        }
    }
}

// === impl Unstoppable ===

impl<F: Future + Send + 'static> Future for Unstoppable<F>
where
    F::Output: Send,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let Some(running) = &mut self.running else { return Poll::Pending };
        let polled = running.as_mut().poll(cx);
        if polled.is_ready() {
            self.running = None;
        }
        polled
    }
}

impl<F: Future + Send + 'static> Drop for Unstoppable<F> {
    fn drop(&mut self) {
        let Some(running) = self.running.take() else { return };
        // What has panicked cannot go on.
        if !thread::panicking()
            && let Ok(runtime) = Handle::try_current()
        {
            self.cells.abandoned.count();
            tracing::debug!("the caller has gone; its call is executed to the end");
            runtime.spawn(async { drop(running.await) }.in_current_span());
        }
    }
}
