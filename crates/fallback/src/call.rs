//! One call that may be given a second answer, and which it is given.

use crate::{
    answer::{Read, Reading, Source},
    body::FallbackBody,
    cache::Key,
    shared::{Alternate, Shared},
};
use bytes::Bytes;
use cinchona_core::{BoxError, Deadline, Mode, Replay, Verdict, status};
use http::{Request, Response, Uri, request::Parts};
use http_body_util::Full;
use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
};
use tokio::time::Instant;
use tonic::{Code, body::Body};
use tower::ServiceExt;

pub(crate) type Outcome<B> = Result<Response<FallbackBody<B>>, BoxError>;
pub(crate) type Asking = Pin<Box<dyn Future<Output = Option<Response<Body>>> + Send>>;

/// Not `Debug`: it holds credentials.
pub(crate) struct Call {
    shared: Arc<Shared>,
    uri: Uri,
    mode: Mode,
    deadline: Option<Deadline>,
    key: Option<Key>,
    again: Option<Request<Bytes>>,
}

/// What comes after a step of the call.
pub(crate) enum Next<B> {
    Read(Reading<B>),
    /// Ask the alternate; if it has no answer either, the call failed like this.
    Ask(Asking, Code, Outcome<B>),
    End(Outcome<B>),
}

/// How much of a request is kept for an alternate, and compared with others: as much as gRPC keeps
/// for retries (gRFC A6).
const MOST_REQUEST: usize = 256 << 10;

// === impl Call ===

impl Call {
    /// The call, if it may be given a second answer, and its request as good as new.
    pub(crate) fn begin(
        request: Request<Body>,
        shared: &Arc<Shared>,
    ) -> (Option<Self>, Request<Body>) {
        let mode = shared.switch.mode();
        if mode == Mode::Off || !shared.covers(request.uri().path()) {
            return (None, request);
        }
        let mut call = Self {
            shared: Arc::clone(shared),
            uri: request.uri().clone(),
            mode,
            deadline: Deadline::of(&request, Instant::now()).ok().flatten(),
            key: None,
            again: None,
        };
        if shared.store.is_none() && shared.alternate.is_none() {
            return (Some(call), request);
        }
        match Replay::whole(request, MOST_REQUEST) {
            Ok((parts, message)) => {
                call.key = shared.store.as_ref().map(|_| shared.key(&parts, &message));
                call.again = shared.alternate.as_ref().map(|_| again(&parts, &message));
                (Some(call), Request::from_parts(parts, Body::new(Full::new(message))))
            }
            // There is nothing but the default for a request that is not known in full.
            Err(request) => (Some(call), request),
        }
    }

    /// The service below has answered, or failed.
    pub(crate) fn begun<B>(&mut self, outcome: Result<Response<B>, BoxError>) -> Next<B>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        match outcome.map(|response| Reading::of(response, self.shared.max_answer)) {
            Ok(Ok(reading)) => Next::Read(reading),
            Ok(Err(response)) => {
                let verdict = Verdict::of_head(&response);
                self.judge(verdict, Ok(response.map(FallbackBody::passed)))
            }
            Err(error) => self.judge(Verdict::of_error(&*error), Err(error)),
        }
    }

    /// The answer of the service below was read.
    pub(crate) fn read<B>(&mut self, read: Read<B>) -> Next<B> {
        let Some(verdict) = read.verdict() else { return Next::End(Ok(read.into_response())) };
        if verdict == Verdict::Ok
            && let (Some(store), Some(answer)) = (&self.shared.store, read.to_answer())
            && let Some(key) = self.key.take()
        {
            store.keep(key, answer, Instant::now());
        }
        self.judge(verdict, Ok(read.into_response()))
    }

    fn judge<B>(&mut self, verdict: Verdict, outcome: Outcome<B>) -> Next<B> {
        match verdict {
            Verdict::Ok | Verdict::Refused(_) => {
                self.shared.degraded.leave(self.uri.path());
                Next::End(outcome)
            }
            // Nobody waits for an answer.
            Verdict::MaybeProcessed(Code::Cancelled) => Next::End(outcome),
            failed => self.fail(failed.code(), outcome),
        }
    }

    fn fail<B>(&mut self, code: Code, outcome: Outcome<B>) -> Next<B> {
        let now = Instant::now();
        let in_time = self.deadline.is_none_or(|deadline| !deadline.has_passed(now));
        let again = self.again.take().filter(|_| in_time);
        if self.mode == Mode::Shadow {
            if again.is_some() || self.kept::<B>(now).is_some() {
                self.shared.switch.count();
            }
            return Next::End(outcome);
        }
        match (&self.shared.alternate, again) {
            (Some(alternate), Some(mut request)) => {
                if let Some(deadline) = self.deadline {
                    deadline.stamp(request.headers_mut(), now);
                }
                let asking = ask(alternate.clone(), request, self.shared.max_answer);
                Next::Ask(Box::pin(asking), code, outcome)
            }
            _ => Next::End(self.without_alternate(code, outcome)),
        }
    }

    /// The alternate has answered, if it has.
    pub(crate) fn asked<B>(
        &self,
        answer: Option<Response<Body>>,
        code: Code,
        failed: Outcome<B>,
    ) -> Outcome<B> {
        let Some(mut response) = answer else { return self.without_alternate(code, failed) };
        Source::Alternate.mark(response.headers_mut());
        self.gives(Source::Alternate, code);
        Ok(instead_of(failed, response.map(FallbackBody::alternate)))
    }

    /// The last good answer, else the default, else the failure as it is.
    fn without_alternate<B>(&self, code: Code, failed: Outcome<B>) -> Outcome<B> {
        let Some((source, response)) = self.kept(Instant::now()) else {
            self.shared.counters.cells().none.count();
            return failed;
        };
        self.gives(source, code);
        Ok(instead_of(failed, response))
    }

    fn kept<B>(&self, now: Instant) -> Option<(Source, Response<FallbackBody<B>>)> {
        let shared = &self.shared;
        let cached = shared.store.as_ref().zip(self.key.as_ref());
        if let Some((answer, age)) = cached.and_then(|(store, key)| store.find(key, now)) {
            let source = Source::Cached { age };
            return Some((source, answer.play(source)));
        }
        let default = shared.defaults.get(self.uri.path())?;
        Some((Source::Default, default.play(Source::Default)))
    }

    fn gives(&self, source: Source, failed: Code) {
        let cells = self.shared.counters.cells();
        match source {
            Source::Alternate => cells.served_alternate.count(),
            Source::Cached { .. } => cells.served_cached.count(),
            Source::Default => cells.served_default.count(),
        }
        self.shared.degraded.enter(self.uri.path(), source, failed);
    }
}

/// The answer, with the failure that it stands in for.
fn instead_of<B>(
    failed: Outcome<B>,
    mut answer: Response<FallbackBody<B>>,
) -> Response<FallbackBody<B>> {
    let status = match failed {
        Ok(head) if status::code(head.headers()).is_some() => Some(status::of_head(&head)),
        Ok(_) => None,
        Err(error) => Some(status::of_error(error)),
    };
    status.map(|status| answer.extensions_mut().insert(status));
    answer
}

fn again(parts: &Parts, message: &Bytes) -> Request<Bytes> {
    Request::from_parts(parts.clone(), message.clone())
}

/// The answer of the alternate, if it has a good one: what it refuses, it may just not know.
async fn ask(
    alternate: Alternate,
    request: Request<Bytes>,
    max_answer: usize,
) -> Option<Response<Body>> {
    let request = request.map(|message| Body::new(Full::new(message)));
    let response = alternate.oneshot(request).await.ok()?;
    let mut reading = Reading::of(response, max_answer).ok()?;
    let read = poll_fn(|cx| reading.poll(cx)).await?;
    let good = read.verdict().is_none_or(|verdict| verdict == Verdict::Ok);
    good.then(|| read.into_response().map(Body::new))
}
