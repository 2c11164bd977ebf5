//! A call that has a key, from its claim to its answer.

use crate::{
    Claim, Execution, Guarantee, InFlight, Settings, Store, Wait,
    counters::Cells,
    key,
    lease::{Lease, Outcome, Tokens, Unstoppable},
    record::{self, Answer},
    refusal,
};
use bytes::Bytes;
use cinchona_core::{BoxError, Inbound, Mode, status};
use http::{Request, Response, request::Parts};
use http_body_util::{BodyExt, Full, Limited};
use std::{mem, sync::Arc};
use tokio::time::timeout;
use tonic::{Code, Status, body::Body};
use tower_service::Service;
use xxhash_rust::xxh3::xxh3_128;

/// All that a call needs; the service is ready.
pub(crate) struct Call<S, T> {
    pub(crate) service: S,
    pub(crate) store: T,
    pub(crate) settings: Arc<Settings>,
    pub(crate) cells: Arc<Cells>,
    pub(crate) tokens: Tokens,
    pub(crate) mode: Mode,
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
        let token = self.tokens.next();
        let execution = Execution::new(self.store.instance(), key.into_boxed_slice(), token);
        let mut lease = Lease::new(self.store.clone(), execution);
        let mut has_waited = false;
        let lapsed = loop {
            let claim = lease.claim(fingerprint, &self.settings).await;
            match self.decide(claim, &request) {
                Decision::Execute { lapsed } => break lapsed,
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
        if lapsed && self.settings.guarantee == Guarantee::AtMostOnce {
            self.cells.ambiguous.count();
            lease.settle(self.settings.unknown_outcome()).await;
            return Ok(refusal::unknown_outcome().into_http());
        }
        // Whoever gives up does not take those along who wait for the same answer.
        let cells = self.cells.clone();
        Unstoppable::new(self.execute(lease, request), cells).await
    }

    fn decide(&self, claim: Result<Claim, BoxError>, request: &Request<Body>) -> Decision {
        let Self { settings, cells, .. } = self;
        let path = request.uri().path();
        if self.mode == Mode::Shadow && !matches!(claim, Ok(Claim::Granted { .. })) {
            settings.switch.count();
            return Decision::PassThrough;
        }
        let (counted, refused) = match claim {
            Ok(Claim::Granted { lapsed }) => return Decision::Execute { lapsed },
            Ok(Claim::Done(record)) => {
                cells.replayed.count();
                tracing::debug!(rpc.method = path, "replaying an answer");
                return Decision::Answer(record::replay(
                    record,
                    settings.fragments.get(path).map(Vec::as_slice),
                ));
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
    pub(crate) fn unknown_outcome(&self) -> Outcome {
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
