//! A call that has a key, from its claim to its answer.

use crate::{
    Claim, Execution, Guarantee, InFlight, Shared, Store, Wait, key,
    lease::{Begun, Lease, Outcome},
    record::{self, Answer},
    refusal,
};
use bytes::Bytes;
use cinchona_core::{BoxError, DOMAIN, Inbound, Mode};
use http::{Request, Response};
use http_body_util::Full;
use std::{mem, sync::Arc};
use tokio::time::timeout;
use tonic::{Code, Status, body::Body};
use tower_service::Service;
use xxhash_rust::xxh3::xxh3_128;

/// All that a call needs; the service is ready. The request is here rather than among the arguments
/// of each step, so that the future holds it once.
pub(crate) struct Call<S, T> {
    pub(crate) service: S,
    pub(crate) request: Request<Body>,
    pub(crate) shared: Arc<Shared<T>>,
    pub(crate) mode: Mode,
    pub(crate) begun: Begun,
}

/// What a claim means for a call.
enum Decision {
    Execute { lapsed: bool },
    PassThrough,
    Wait(Wait),
    Answer(Response<Body>),
}

// === impl Call ===

impl<S, T> Call<S, T>
where
    S: Service<Request<Body>, Response = Response<Body>> + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    T: Store,
{
    pub(crate) async fn answer(mut self) -> Result<Response<Body>, S::Error> {
        self.run().await
    }

    /// By reference, so that the future holds the call once.
    async fn run(&mut self) -> Result<Response<Body>, S::Error> {
        let (mut lease, fingerprint) = match self.named().await {
            Ok(Some(named)) => named,
            Ok(None) => return self.through().await,
            Err(refused) => return Ok(refused.into_http()),
        };
        let mut has_waited = false;
        let lapsed = loop {
            let claim = lease.claim(fingerprint).await;
            match self.decide(claim) {
                Decision::Execute { lapsed } => break lapsed,
                Decision::PassThrough => return self.through().await,
                Decision::Answer(response) => return Ok(response),
                Decision::Wait(wait) => {
                    if !mem::replace(&mut has_waited, true) {
                        self.shared.cells.joined.count();
                    }
                    wait.over().await;
                }
            }
        };
        if lapsed && self.shared.settings.guarantee == Guarantee::AtMostOnce {
            self.shared.cells.ambiguous.count();
            lease.settle(Outcome::Unknown).await;
            return Ok(refusal::unknown_outcome().into_http());
        }
        self.begun.set();
        self.execute(&mut lease).await
    }

    /// Reads the request; what is to be claimed for it, if it has a key, and its fingerprint.
    async fn named(&mut self) -> Result<Option<(Lease<T>, u128)>, Status> {
        let Shared { settings, store, tokens, .. } = &*self.shared;
        let body = mem::take(self.request.body_mut());
        let (body, _) = record::read(body, settings.request_limit).await?;
        let path = self.request.uri().path();
        let Some(key) = key::of(&self.request, &body, &settings.methods)? else {
            if settings.required.get(path) == Some(&true) && self.mode == Mode::Enforce {
                return Err(refusal::missing_key(path));
            }
            *self.request.body_mut() = Body::new(Full::new(body));
            return Ok(None);
        };
        let earlier = self.request.headers().get(DOMAIN);
        if earlier.is_some() && earlier != settings.domain.as_ref() && self.mode == Mode::Enforce {
            return Err(refusal::other_domain());
        }
        let caller = settings
            .caller
            .as_ref()
            .and_then(|caller| caller(self.request.headers(), self.request.extensions()));
        let key = key::stored(path, key, caller.as_deref().unwrap_or_default());
        let execution = Execution::new(store.instance(), key.into(), tokens.next());
        let fingerprint = xxh3_128(&body);
        *self.request.body_mut() = Body::new(Full::new(body));
        Ok(Some((Lease::new(self.shared.clone(), execution), fingerprint)))
    }

    /// Hands the request to the service.
    fn through(&mut self) -> S::Future {
        self.service.call(mem::take(&mut self.request))
    }

    fn decide(&self, claim: Result<Claim, BoxError>) -> Decision {
        let Shared { settings, cells, .. } = &*self.shared;
        let path = self.request.uri().path();
        if self.mode == Mode::Shadow && !matches!(claim, Ok(Claim::Granted { .. })) {
            settings.switch.count();
            return Decision::PassThrough;
        }
        let (counted, refused) = match claim {
            Ok(Claim::Granted { lapsed }) => return Decision::Execute { lapsed },
            Ok(Claim::Done(record)) => {
                cells.replayed.count();
                tracing::debug!(rpc.method = path, "replaying an answer");
                let fragment = settings.fragments.get(path).map(Vec::as_slice);
                return Decision::Answer(record::replay(record, fragment));
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
                (&cells.store_failures, refusal::store_failed())
            }
        };
        counted.count();
        Decision::Answer(refused.into_http())
    }

    async fn execute(&mut self, lease: &mut Lease<T>) -> Result<Response<Body>, S::Error> {
        let Self { service, request, shared, begun, .. } = self;
        let Shared { settings, cells, .. } = &**shared;
        cells.executed.count();
        let inbound = Inbound::current().unwrap_or_default();
        // In one expression, so that the future does not hold its parts twice.
        let ended = timeout(
            settings.lease,
            inbound.scope(lease.execution.clone().scope(async {
                let response = service.call(mem::take(request)).await?;
                Ok(Answer::of(response).await)
            })),
        )
        .await;
        if begun.is_abandoned() {
            cells.abandoned.count();
        }
        let Ok(Ok(Ok(answer))) = ended else {
            cells.ambiguous.count();
            lease.settle(Outcome::Unknown).await;
            return match ended {
                Ok(Err(error)) => Err(error),
                Ok(Ok(Err(broken))) => Ok(broken.into_http()),
                _ => Ok(refusal::unknown_outcome().into_http()),
            };
        };
        let outcome = match answer.code() {
            code if is_refusal_to_begin(code) => Outcome::Release,
            code if is_ambiguous(code) => {
                cells.ambiguous.count();
                match settings.guarantee {
                    Guarantee::AtMostOnce => Outcome::Keep(answer.record()),
                    Guarantee::AtLeastOnce => Outcome::Release,
                }
            }
            _ => Outcome::Keep(bounded(answer.record(), settings.record_limit)),
        };
        lease.settle(outcome).await;
        Ok(answer.response())
    }
}

/// `record`, or the news that it was too large.
fn bounded(record: Bytes, limit: usize) -> Bytes {
    if record.len() <= limit { record } else { record::of_status(refusal::too_large(limit)) }
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
