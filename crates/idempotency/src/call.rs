//! A call with a key, from its claim to its answer.

use crate::{
    Claim, Execution, Store, Wait,
    authorize::head,
    key::{self, Name},
    lease::{Begun, Lease, Outcome},
    record::{self, Answer, Unread},
    refusal,
    settings::DedupSettings,
    shared::Shared,
};
use bytes::Bytes;
use cinchona_core::{BoxError, DOMAIN, Deadline, Mode, ServerContext};
use cinchona_plumbing::{
    Misplaced, PREFIX, Seldom,
    clock::later,
    continued,
    timeout::{GRPC_TIMEOUT, encode_timeout},
};
use cinchona_policy::{
    Code as Said,
    dedup::{self, Next, Reach, Refused, Rules},
};
use http::{Request, Response};
use http_body_util::Full;
use std::{
    mem,
    sync::{Arc, LazyLock},
    time::Duration,
};
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Status, body::Body};
use tower_service::Service;

static FAILED: LazyLock<Seldom> =
    LazyLock::new(|| Seldom::new(|more| tracing::warn!(more, "the store failed, for more calls")));

static TWICE: LazyLock<Misplaced> = LazyLock::new(Misplaced::default);

const AGAIN: &str = "a call passes two layers that recognise its key, and would wait for itself: \
    the inner one leaves it alone, and can be left out";

/// All that a call needs; the service is ready. The request is stored here rather than passed to
/// each step, so that the future holds it once.
pub(crate) struct Call<S, T> {
    pub(crate) service: S,
    pub(crate) request: Request<Body>,
    pub(crate) shared: Arc<Shared<T>>,
    pub(crate) mode: Mode,
    pub(crate) begun: Begun,
}

/// How a call proceeds after a claim.
enum Decision {
    Execute,
    /// An earlier execution ended without a result.
    Unknown,
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
        let (mut has_waited, mut may_know) = (false, false);
        loop {
            let claim = lease.claim(fingerprint).await;
            let is_answer = matches!(&claim, Ok(claim) if !matches!(claim, Claim::Granted { .. }));
            if is_answer
                && !mem::replace(&mut may_know, true)
                && let Err(denied) = self.authorized().await
            {
                return Ok(denied.into_http());
            }
            match self.decide(claim) {
                Decision::Execute => break,
                Decision::Unknown => {
                    self.shared.cells.ambiguous.count();
                    lease.settle(Outcome::Unknown).await;
                    return Ok(refusal::unknown_outcome().into_http());
                }
                Decision::PassThrough => return self.through().await,
                Decision::Answer(response) => return Ok(response),
                Decision::Wait(wait) => {
                    if !mem::replace(&mut has_waited, true) {
                        self.shared.cells.joined.count();
                    }
                    wait.over().await;
                }
            }
        }
        // In shadow a call ends with its caller, as without the layer.
        if self.mode == Mode::Enforce {
            self.begun.set();
        }
        self.execute(&mut lease).await
    }

    /// Reads the request; returns its claim, if it has a key, and its fingerprint. In shadow a
    /// request that would be refused is passed on unchanged.
    async fn named(&mut self) -> Result<Option<(Lease<T>, u128)>, Status> {
        let Shared { settings, store, tokens, cells, .. } = &*self.shared;
        let mut body = mem::take(self.request.body_mut());
        let limit = settings.request_limit.saturating_add(PREFIX);
        let named = match record::read(&mut body, limit).await {
            Ok((body, _)) => {
                let named = key::name(settings, cells, &self.request, &body);
                *self.request.body_mut() = Body::new(Full::new(body));
                named.and_then(|named| self.admitted(named))
            }
            Err(Unread::Failed(status)) => return Err(status),
            Err(Unread::TooLarge(read)) => {
                cells.unreadable.count();
                *self.request.body_mut() = continued(read, body);
                Err(refusal::request_too_large(settings.request_limit))
            }
        };
        match named {
            Err(_) if self.mode == Mode::Shadow => {
                self.shared.switch.count();
                Ok(None)
            }
            Ok(Some(Name { key, .. })) if Execution::is_of(&key) => {
                TWICE.warn(self.request.uri().path(), AGAIN);
                Ok(None)
            }
            named => Ok(named?.map(|Name { key, fingerprint }| {
                let execution = Execution::new(store.instance(), key.into(), tokens.next());
                // One that is malformed was refused further out, or is left to the service.
                let deadline = Deadline::of(&self.request, Instant::now()).ok().flatten();
                (Lease::new(self.shared.clone(), execution, deadline), fingerprint)
            })),
        }
    }

    /// Whether a call of this method is inspected.
    fn admitted(&self, named: Option<Name>) -> Result<Option<Name>, Status> {
        let (settings, path) = (&self.shared.settings, self.request.uri().path());
        if named.is_none() {
            let is_required = settings.required.get(path) == Some(&true);
            return if is_required { Err(refusal::missing_key(path)) } else { Ok(None) };
        }
        let earlier = self.request.headers().get(DOMAIN);
        if earlier.is_some() && earlier != self.shared.domain {
            return Err(refusal::other_domain());
        }
        Ok(named)
    }

    /// Checks whether the caller may receive an earlier answer.
    async fn authorized(&mut self) -> Result<(), Status> {
        let Shared { settings, cells, .. } = &*self.shared;
        match &settings.authorize {
            Some(authorize) if self.mode == Mode::Enforce => {
                let asked = authorize.ask(head(&self.request));
                asked.await.inspect_err(|_| _ = cells.denied.count())
            }
            _ => Ok(()),
        }
    }

    /// Passes the request to the service.
    fn through(&mut self) -> S::Future {
        self.service.call(mem::take(&mut self.request))
    }

    fn decide(&self, claim: Result<Claim, BoxError>) -> Decision {
        let Shared { settings, cells, .. } = &*self.shared;
        let path = self.request.uri().path();
        let rules = Rules {
            enforces: self.mode != Mode::Shadow,
            in_flight: settings.in_flight,
            guarantee: settings.guarantee,
            fails_open: settings.fail_open,
        };
        let (counted, refused) = match dedup::follow(claim, rules) {
            Next::Execute => return Decision::Execute,
            Next::Observe => {
                self.shared.switch.count();
                return Decision::Execute;
            }
            Next::Unknown => return Decision::Unknown,
            Next::Wait(wait) => return Decision::Wait(wait),
            Next::Pass => {
                self.shared.switch.count();
                return Decision::PassThrough;
            }
            Next::Replay(record) => {
                cells.replayed.count();
                tracing::debug!(rpc.method = path, "replaying an answer");
                let fragment = settings.fragments.get(path).map(Vec::as_slice);
                let accepted = self.request.headers().get("grpc-accept-encoding");
                return Decision::Answer(record::replay(record, fragment, accepted));
            }
            Next::Refuse(Refused::InFlight(wait)) => (&cells.rejected, refusal::in_flight(wait)),
            Next::Refuse(Refused::Mismatch) => (&cells.mismatched, refusal::reused_key()),
            Next::Refuse(Refused::Evicted) => (&cells.refused_evicted, refusal::evicted()),
            Next::Refuse(Refused::Full) => (&cells.refused_full, refusal::full()),
            Next::Failed { error, passes } => {
                if FAILED.is_due(Instant::now()) {
                    tracing::warn!(%error, executing = passes, "the store failed");
                }
                if passes {
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
        let Self { service, request, shared, begun, mode } = self;
        let Shared { settings, cells, .. } = &**shared;
        cells.executed.count();
        let now = Instant::now();
        let (time, inbound) = match mode {
            Mode::Enforce => {
                let time = lease.time(now);
                (time, give_time(request, time, now))
            }
            // The caller's deadline, and nothing else, ends what is only counted.
            _ => (Duration::MAX, ServerContext::current().unwrap_or_default()),
        };
        // In one expression, so that the future does not hold its parts twice.
        let ended = timeout_at(
            later(now, time),
            inbound.scope(lease.execution.clone().scope(async {
                let response = service.call(mem::take(request)).await?;
                Ok(Answer::of(response).await)
            })),
        )
        .await;
        if begun.is_abandoned() {
            cells.abandoned.count();
        }
        let Ok(Ok(Ok(mut answer))) = ended else {
            cells.ambiguous.count();
            lease.settle(Outcome::Unknown).await;
            return match ended {
                Ok(Err(error)) => Err(error),
                Ok(Ok(Err(broken))) => Ok(broken.into_http()),
                _ => Ok(refusal::unknown_outcome().into_http()),
            };
        };
        let reach = reach(&mut answer, settings, *mode);
        if reach == Reach::Unknown {
            cells.ambiguous.count();
        }
        let outcome = match reach.is_kept(settings.guarantee) {
            // What was cut off before its status is no answer to give again.
            _ if answer.code().is_none() => Outcome::Unknown,
            true => Outcome::Keep(bounded(answer.record(), settings.record_limit)),
            false => Outcome::Release,
        };
        lease.settle(outcome).await;
        Ok(answer.response())
    }
}

/// How far the handler got, according to its answer.
fn reach(answer: &mut Answer, settings: &DedupSettings, mode: Mode) -> Reach {
    let code = answer.code().unwrap_or(Code::Unknown);
    if code == Code::Ok {
        return Reach::Ended;
    }
    // The mark is for this layer; in shadow it stays, as all of the answer does.
    let is_marked = match mode {
        Mode::Enforce => answer.take_not_begun(),
        _ => answer.is_not_begun(),
    };
    match is_marked || settings.released.contains(&code) {
        true => Reach::NotBegun,
        false => dedup::reach(Said::from_number(code as i32)),
    }
}

/// Replaces the caller's deadline by the `time` of the lease, as the caller may give up while the
/// handler goes on: in all places where a handler or a layer may look for its deadline.
fn give_time(request: &mut Request<Body>, time: Duration, now: Instant) -> ServerContext {
    let deadline = Deadline::within(time, now);
    if let Some(own) = request.extensions_mut().get_mut::<Deadline>() {
        match deadline {
            Some(deadline) => *own = deadline,
            None => _ = request.extensions_mut().remove::<Deadline>(),
        }
    }
    if request.headers().contains_key(GRPC_TIMEOUT) {
        match deadline {
            Some(_) => _ = request.headers_mut().insert(GRPC_TIMEOUT, encode_timeout(time)),
            None => _ = request.headers_mut().remove(GRPC_TIMEOUT),
        }
    }
    let mut context = ServerContext::current().unwrap_or_default();
    if let Some(record) = request.extensions_mut().get_mut::<ServerContext>() {
        record.deadline = deadline;
        record.begins(now);
    }
    context.deadline = deadline;
    context
}

/// `record`, or a record that the answer was too large.
fn bounded(record: Bytes, limit: usize) -> Bytes {
    if record.len() <= limit { record } else { record::of_status(refusal::too_large(limit)) }
}
