//! What made up for the attempts that failed.

use cinchona::{
    core::{Stage, Verdict},
    retry::{Attempt, AttemptKind, Ledger},
};
use serde::Serialize;
use std::{fmt, ops::AddAssign};
use tonic::{Extensions, Status};

/// Attempts that a server failed, by what hid them from the caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Recovery {
    /// The same server has answered another attempt.
    pub retry: u64,
    /// Another server has.
    pub failover: u64,
    /// An attempt beside it has.
    pub hedge: u64,
    /// None has, and there was a second answer.
    pub fallback: u64,
    /// Nothing: the call has failed.
    pub surfaced: u64,
}

// === impl Recovery ===

impl Recovery {
    /// What made up for the failed attempts of a call with this outcome.
    ///
    /// An attempt that never left the client is no failure of a server, and is not counted.
    pub fn of(outcome: Result<&Extensions, &Status>) -> Self {
        let mut recovery = Self::default();
        match outcome {
            Ok(extensions) => {
                if let Some(ledger) = extensions.get() {
                    recovery.count(ledger);
                } else if let Some(failed) = extensions.get() {
                    recovery.fallback = failures(failed);
                }
            }
            Err(failed) => recovery.surfaced = failures(failed),
        }
        recovery
    }

    /// Their number.
    pub const fn all(&self) -> u64 {
        let Self { retry, failover, hedge, fallback, surfaced } = *self;
        retry + failover + hedge + fallback + surfaced
    }

    /// Those of a call that has succeeded by one of its attempts.
    fn count(&mut self, ledger: &Ledger) {
        let good = ledger.attempts().iter().find(|attempt| attempt.verdict == Verdict::Ok);
        let Some(good) = good else { return };
        for failed in ledger.attempts().iter().filter(|attempt| is_failure(attempt)) {
            *match good.kind {
                AttemptKind::Hedge => &mut self.hedge,
                _ if good.endpoint != failed.endpoint => &mut self.failover,
                _ => &mut self.retry,
            } += 1;
        }
    }
}

impl AddAssign for Recovery {
    fn add_assign(&mut self, other: Self) {
        self.retry += other.retry;
        self.failover += other.failover;
        self.hedge += other.hedge;
        self.fallback += other.fallback;
        self.surfaced += other.surfaced;
    }
}

impl fmt::Display for Recovery {
    /// All of them, and what they are made of.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { retry, failover, hedge, fallback, surfaced } = self;
        let all = self.all();
        write!(f, "{all}, of which recovered by retry {retry}, by failover {failover}, by hedge ")?;
        write!(f, "{hedge}, by fallback {fallback}; surfaced {surfaced}")
    }
}

/// The number of failed attempts of a failed call; 1 without a ledger.
fn failures(status: &Status) -> u64 {
    let failures = |ledger: &Ledger| ledger.attempts().iter().filter(|one| is_failure(one)).count();
    Ledger::of(status).map_or(1, |ledger| failures(ledger) as u64)
}

fn is_failure(attempt: &Attempt) -> bool {
    !matches!(
        attempt.verdict,
        Verdict::Ok | Verdict::NotProcessed(Stage::NoConnection | Stage::NotWritten)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use cinchona::{
        core::{Methods, Rejected},
        retry::{RetryLayer, RetryPolicy},
    };
    use tonic::{Code, body::Body};
    use tower::{Layer, ServiceExt, service_fn};

    /// The outcome of a call whose attempts end like this.
    async fn failed(attempt: fn() -> Rejected) -> Status {
        let policy = RetryPolicy::default().with_codes([Code::Unavailable]).unwrap();
        let layer = RetryLayer::new(policy, Methods::all_idempotent());
        let client = layer.layer(service_fn(move |_: http::Request<Body>| async move {
            Err::<http::Response<Body>, _>(attempt())
        }));
        Status::from_error(client.oneshot(http::Request::new(Body::empty())).await.unwrap_err())
    }

    #[tokio::test(start_paused = true)]
    async fn what_never_left_the_client_is_no_failure_of_a_server() {
        let status = failed(|| Rejected::new("no connection", None)).await;
        assert!(Ledger::of(&status).unwrap().attempts().len() > 1);
        assert_eq!(Recovery::of(Err(&status)), Recovery::default());
    }

    #[test]
    fn a_failure_without_a_ledger_is_one_that_has_surfaced() {
        let recovery = Recovery::of(Err(&Status::unavailable("")));
        assert_eq!((recovery.surfaced, recovery.all()), (1, 1));
        assert_eq!(Recovery::of(Ok(&Extensions::default())), Recovery::default());
    }
}
