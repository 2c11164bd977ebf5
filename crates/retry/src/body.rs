//! The response's body, whose trailers count too.

use crate::call::Call;
use cinchona_core::Verdict;
use cinchona_plumbing::{Next, Polled, Seen, Watcher};
use std::pin::Pin;
use tokio::time::Instant;
use tonic::Code;

/// Makes the trailers of a call that is not judged safe for the application.
pub(crate) struct Mends;

/// Passes the status in the trailers to the throttle and the budget. The body is unchanged, except
/// for status details at which tonic would panic.
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
                    *error = own;
                    return Next::Over;
                }
                None => Verdict::of_error(error),
            },
            None => Verdict::MaybeProcessed(Code::Unknown),
        };
        call.ended(verdict, || seen.now());
        Next::Over
    }
}

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

// === impl Call ===

impl Call {
    /// The committed attempt has ended so. A failure counts as one before the commit does, in
    /// trailers, by a reset or by a lost connection.
    pub(crate) fn ended(&self, verdict: Verdict, now: impl FnOnce() -> Instant) {
        match verdict {
            Verdict::Ok => {
                self.throttle.succeeded();
                let budget = &self.shared.budget;
                budget.deposit(self.path(), now);
            }
            Verdict::Local(_) => {}
            failed => self.has_failed(failed.into()),
        }
    }

    fn has_failed(&self, verdict: cinchona_policy::Verdict) {
        if self.policy.listed().contains(verdict.code()) {
            self.throttle.failed();
        }
    }
}
