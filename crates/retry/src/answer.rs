//! How a call ends: the response or the failure for its caller, and the trailers, which count too.

use crate::{
    call::{AttemptResult, Call, RunningAttempt},
    ledger::Ledger,
};
use cinchona_core::{BoxError, Verdict};
use cinchona_plumbing::{Next, Polled, ResponseBody, Seen, Watcher, begins, status};
use cinchona_policy::retry::Stop;
use http::Response;
use std::pin::Pin;
use tokio::time::Instant;
use tonic::Code;

/// Makes the trailers of a call that is not judged safe for the application.
struct Mends;

/// The response of a call that is not judged.
pub(crate) fn unjudged(mut head: Response<ResponseBody>) -> Response<ResponseBody> {
    status::mend(head.headers_mut());
    head.map(|body| body.watched(Mends))
}

// === impl Call ===

impl Call {
    /// Ends the call for this reason, with the result of this attempt.
    pub(crate) fn finish(
        self: Box<Self>,
        result: AttemptResult,
        stop: Stop,
        attempt: RunningAttempt,
    ) -> AttemptResult {
        match result {
            Ok(response) if stop == Stop::Succeeded => Ok(self.succeed(response, attempt)),
            result => Err(self.fail(result, stop)),
        }
    }

    /// The response for the caller, with the ledger if there is something to tell.
    fn succeed(
        mut self: Box<Self>,
        mut response: Response<ResponseBody>,
        attempt: RunningAttempt,
    ) -> Response<ResponseBody> {
        self.replay.settle(attempt.request_number);
        // Its line is the one that the trailers change.
        self.record = attempt.record;
        if !self.is_plain() {
            response.extensions_mut().insert(self.ledger(Stop::Succeeded));
        }
        if begins(&response) {
            response.body_mut().watch_boxed(Box::into_pin(self));
            return response;
        }
        status::mend(response.headers_mut());
        match status::code(response.headers()) {
            Some(code) => self.count(Verdict::of_code(code), Instant::now()),
            None => response.body_mut().watch_boxed(Box::into_pin(self)),
        }
        response
    }

    /// The failure for the caller, with the ledger.
    pub(crate) fn fail(self: Box<Self>, result: AttemptResult, stop: Stop) -> BoxError {
        let status = match result {
            Ok(response) => status::of_head(&response),
            Err(error) => Verdict::status_of(error),
        };
        tracing::debug!(rpc.method = self.path(), ?stop, "giving up");
        self.ledger(stop).close(status, self.shared.explained).into()
    }

    /// The attempts that have ended, and why there was not another.
    fn ledger(&self, stopped: Stop) -> Ledger {
        Ledger::new(self.record.ended_attempts(), self.began, stopped)
    }

    /// The attempt whose response the caller has got has ended so: records that, and counts it for
    /// the throttle and the budget. A failure counts like one before the response, whether it is in
    /// the trailers, a reset or a lost connection.
    fn count(&self, verdict: Verdict, now: Instant) {
        self.record.ended(verdict, now);
        match verdict {
            Verdict::Ok => {
                self.throttle.succeeded();
                self.shared.budget.deposit(self.path(), || now);
            }
            Verdict::Local(_) => {}
            failed => {
                let failed = cinchona_policy::Verdict::from(failed);
                if self.policy.listed().contains(failed.code()) {
                    self.throttle.failed();
                }
            }
        }
    }
}

/// Counts the status in the trailers. The body is unchanged, except for status details at which
/// tonic would panic.
impl Watcher for Call {
    fn sees_data(&self) -> bool {
        false
    }

    fn sees(self: Pin<&mut Self>, polled: &mut Polled, seen: &mut Seen) -> Next {
        let call = self.get_mut();
        let verdict = match polled {
            Some(Ok(frame)) => {
                let Some(trailers) = frame.trailers_mut() else { return Next::Watch };
                seen.mend(trailers);
                Verdict::of_code(seen.code(trailers).unwrap_or(Code::Unknown))
            }
            Some(Err(error)) => match call.replay.failure() {
                Some(own) => {
                    let local = Verdict::Local(own.code());
                    *error = own;
                    local
                }
                None => Verdict::of_error(error),
            },
            None => Verdict::MaybeProcessed(Code::Unknown),
        };
        call.count(verdict, seen.now());
        Next::Over
    }
}

// === impl Mends ===

impl Watcher for Mends {
    fn sees_data(&self) -> bool {
        false
    }

    fn sees(self: Pin<&mut Self>, polled: &mut Polled, seen: &mut Seen) -> Next {
        if let Some(Ok(frame)) = polled
            && let Some(trailers) = frame.trailers_mut()
        {
            seen.mend(trailers);
        }
        Next::Watch
    }
}
