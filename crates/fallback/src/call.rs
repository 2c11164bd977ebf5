//! One call that may be given a second answer, and its choice.

use crate::{
    answer::{Effect, Read, Reading, Source},
    cache::{Store, Turn},
    key::{Key, forbids_keeping},
    shared::{Alternate, Shared},
};
use bytes::Bytes;
use cinchona_core::{BoxError, Call as Record, Deadline, Mode, Verdict};
use cinchona_plumbing::{ResponseBody, status, whole};
use http::{HeaderMap, Request, Response, StatusCode, Uri, request::Parts};
use http_body_util::{BodyExt, Full};
use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, OnceLock},
};
use tokio::time::Instant;
use tonic::{Code, Status, body::Body};
use tower::ServiceExt;

pub(crate) type Outcome = Result<Response<ResponseBody>, BoxError>;
pub(crate) type Asking = Pin<Box<dyn Future<Output = Asked> + Send>>;

/// The answer of the alternate.
pub(crate) enum Asked {
    Good(Response<Body>),
    /// It refuses this caller.
    Denied,
    /// It has failed, or may lack the data.
    Nothing,
}

/// Not `Debug`: it contains credentials.
pub(crate) struct Call {
    shared: Arc<Shared>,
    uri: Uri,
    mode: Mode,
    deadline: Option<Deadline>,
    turn: Option<Turn>,
    key: Option<Key>,
    /// The caller wants no cached answer, and none kept (`cache-control`).
    is_past_cache: bool,
    again: Option<Request<Bytes>>,
    /// The error of the request's body, if it was not complete immediately.
    failure: Option<Arc<OnceLock<Status>>>,
}

/// The next step of the call.
pub(crate) enum Next {
    Read(Reading),
    /// Call the alternate; if it has no answer either, the call failed with this.
    Ask(Asking, Code, Outcome),
    End(Outcome),
}

/// How much of a request is kept for an alternate, and compared with others: as much as gRPC
/// buffers for retries (gRFC A6).
const MOST_REQUEST: usize = 256 << 10;

// === impl Call ===

impl Call {
    /// The call, if it may be given a second answer, and its request, unchanged. `service`
    /// identifies the service among those that the layer was applied to.
    pub(crate) fn begin(
        request: Request<Body>,
        shared: &Arc<Shared>,
        service: u64,
    ) -> (Option<Box<Self>>, Request<Body>) {
        let mode = shared.switch.mode();
        if mode == Mode::Off || !shared.covers(request.uri().path()) {
            return (None, request);
        }
        let store = shared.store();
        let mut call = Box::new(Self {
            shared: Arc::clone(shared),
            uri: request.uri().clone(),
            mode,
            deadline: None,
            turn: None,
            key: None,
            is_past_cache: forbids_keeping(request.headers()),
            again: None,
            failure: None,
        });
        call.deadline = Deadline::of(&request, Instant::now()).ok().flatten();
        call.turn = store.map(Store::begin);
        match whole(request, MOST_REQUEST) {
            Ok((parts, message)) => {
                call.key = store.and_then(|_| shared.key(service, &parts, &message));
                call.again = shared.alternate.as_ref().map(|_| again(&parts, &message));
                (Some(call), Request::from_parts(parts, Body::new(Full::new(message))))
            }
            // For a request that is not known in full there is only the default.
            Err(request) => {
                let failure = Arc::clone(call.failure.get_or_insert_default());
                (Some(call), request.map(|body| noting(body, failure)))
            }
        }
    }

    /// The service below has answered, or failed.
    pub(crate) fn begun<B>(&mut self, outcome: Result<Response<B>, BoxError>) -> Next
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        match outcome.map(|response| Reading::of(response, self.shared.max_answer)) {
            Ok(Ok(reading)) => Next::Read(reading),
            Ok(Err(response)) => {
                let verdict = of_head(&response);
                self.apply(Effect::of(verdict, response.headers()));
                self.judge(verdict, Ok(*response))
            }
            Err(error) => {
                let verdict = Verdict::of_error(&*error);
                self.apply(Effect::of(verdict, &HeaderMap::new()));
                self.judge(verdict, Err(error))
            }
        }
    }

    /// The answer of the service below was read.
    pub(crate) fn read(&mut self, read: Read) -> Next {
        let verdict = read.verdict();
        if self.key.is_some() {
            self.apply(read.effect(verdict));
        }
        match verdict {
            Some(verdict) => self.judge(verdict, Ok(read.into_response())),
            None => Next::End(Ok(read.into_response())),
        }
    }

    /// Applies the effect of a newer answer on the kept one.
    fn apply(&mut self, effect: Effect) {
        let effect = match effect {
            // The outcome is not kept, but may replace the kept answer.
            Effect::Replace(_) if self.is_past_cache => Effect::Outdate,
            effect => effect,
        };
        if !matches!(effect, Effect::Nothing)
            && let (Some(store), Some(turn)) = (self.shared.store(), self.turn)
            && let Some(key) = self.key.take()
        {
            store.apply(effect, key, turn, Instant::now());
        }
    }

    fn judge(&mut self, verdict: Verdict, outcome: Outcome) -> Next {
        let failure = self.failure.as_deref().and_then(OnceLock::get);
        if verdict != Verdict::Ok
            && let Some(failure) = failure
        {
            // The error of the body is the cause, not how the server or HTTP/2 reported it.
            return Next::End(Err(failure.clone().into()));
        }
        match verdict {
            Verdict::Ok | Verdict::Refused(_) => {
                self.shared.degraded.leave(self.uri.path());
                Next::End(outcome)
            }
            // No caller waits for an answer, or no service could have given one.
            Verdict::MaybeProcessed(Code::Cancelled) | Verdict::Local(_) => Next::End(outcome),
            failed => self.fail(failed.code(), outcome),
        }
    }

    fn fail(&mut self, code: Code, outcome: Outcome) -> Next {
        let now = Instant::now();
        let in_time = self.deadline.is_none_or(|deadline| !deadline.has_passed(now));
        let again = self.again.take().filter(|_| in_time);
        if self.mode == Mode::Shadow {
            if again.is_some() || self.kept(now).is_some() {
                self.shared.switch.count();
            }
            return Next::End(outcome);
        }
        match (&self.shared.alternate, again) {
            (Some(alternate), Some(mut request)) => {
                // The alternate may be a client with its own record of this call: with the same
                // deadline.
                request.extensions_mut().remove::<Record>();
                if let Some(deadline) = self.deadline {
                    deadline.stamp(request.headers_mut(), now);
                    request.extensions_mut().insert(deadline);
                }
                let asking = ask(alternate.clone(), request, self.shared.max_answer);
                Next::Ask(Box::pin(asking), code, outcome)
            }
            _ => Next::End(self.without_alternate(code, outcome)),
        }
    }

    /// The alternate has answered, or failed.
    pub(crate) fn asked(&mut self, asked: Asked, code: Code, failed: Outcome) -> Outcome {
        if matches!(asked, Asked::Denied) {
            self.apply(Effect::TakeBack);
        }
        let Asked::Good(mut response) = asked else { return self.without_alternate(code, failed) };
        Source::Alternate.mark(response.headers_mut());
        self.gives(Source::Alternate, code);
        Ok(instead_of(failed, response.map(ResponseBody::of)))
    }

    /// The last good answer, else the default, else the failure unchanged.
    fn without_alternate(&self, code: Code, failed: Outcome) -> Outcome {
        let Some((source, response)) = self.kept(Instant::now()) else {
            self.shared.counters.cells().none.count();
            return failed;
        };
        self.gives(source, code);
        Ok(instead_of(failed, response))
    }

    fn kept(&self, now: Instant) -> Option<(Source, Response<ResponseBody>)> {
        let shared = &self.shared;
        let cached = shared.store().zip(self.key.as_ref()).filter(|_| !self.is_past_cache);
        if let Some((answer, age)) = cached.and_then(|(store, key)| store.find(key, now)) {
            let source = Source::Cached { age };
            return Some((source, answer.play(source)));
        }
        let default = shared.defaults.get(self.uri.path())?;
        Some((Source::Default, default.play(Source::Default)))
    }

    fn gives(&self, source: Source, failed: Code) {
        let cells = self.shared.counters.cells();
        let served = match source {
            Source::Alternate => &cells.served_alternate,
            Source::Cached { .. } => &cells.served_cached,
            Source::Default => &cells.served_default,
        };
        served.count();
        self.shared.degraded.enter(self.uri.path(), source, failed);
    }
}

/// The answer, with the failure that it replaces.
fn instead_of(failed: Outcome, mut answer: Response<ResponseBody>) -> Response<ResponseBody> {
    let status = match failed {
        Ok(head) if status::code(head.headers()).is_some() => Some(status::of_head(&head)),
        Ok(_) => None,
        Err(error) => Some(Verdict::status_of(error)),
    };
    status.map(|status| answer.extensions_mut().insert(status));
    answer
}

fn again(parts: &Parts, message: &Bytes) -> Request<Bytes> {
    Request::from_parts(parts.clone(), message.clone())
}

/// `body`, and its error.
fn noting(body: Body, failure: Arc<OnceLock<Status>>) -> Body {
    Body::new(body.map_err(move |status| {
        failure.get_or_init(|| status.clone());
        status
    }))
}

/// The answer of the alternate, if it is good: after a refusal, it may just lack the data. But if
/// it refuses the caller, the kept answer is not for this caller either.
async fn ask(alternate: Alternate, request: Request<Bytes>, max_answer: usize) -> Asked {
    let request = request.map(|message| Body::new(Full::new(message)));
    let Ok(response) = alternate.oneshot(request).await else { return Asked::Nothing };
    let mut reading = match Reading::of(response, max_answer) {
        Ok(reading) => reading,
        Err(response) => return Asked::without_answer(of_head(&response)),
    };
    let Some(read) = poll_fn(|cx| reading.poll(cx)).await else { return Asked::Nothing };
    match read.verdict() {
        None | Some(Verdict::Ok) => Asked::Good(read.into_response().map(Body::new)),
        Some(verdict) => Asked::without_answer(verdict),
    }
}

/// The verdict on a head. Without `grpc-status` it is a proxy's, which may refuse a caller (401,
/// 403) but knows no methods: its 404 means that it has no route to the service.
fn of_head<B: http_body::Body>(response: &Response<B>) -> Verdict {
    let is_lost =
        response.status() == StatusCode::NOT_FOUND && status::code(response.headers()).is_none();
    match Verdict::of_head(response) {
        Verdict::Refused(code) if is_lost => Verdict::MaybeProcessed(code),
        verdict => verdict,
    }
}

// === impl Asked ===

impl Asked {
    const fn without_answer(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Refused(Code::PermissionDenied | Code::Unauthenticated) => Self::Denied,
            _ => Self::Nothing,
        }
    }
}
