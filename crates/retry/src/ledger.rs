//! What happened to a call: every attempt, and why there was not another.

use crate::policy::Stop;
use cinchona_core::{Verdict, code, error::find_cause};
use std::{error::Error, fmt, sync::Arc, time::Duration};
use tonic::{Code, Status};

/// The attempts of one call and why they stopped.
///
/// A call that fails carries it as the source of its status ([`Ledger::of`]); a call that
/// succeeded after a retry, in the response's extensions.
#[derive(Clone, Debug)]
pub struct Ledger {
    attempts: Vec<Attempt>,
    stopped: Stop,
    cause: Option<Arc<Status>>,
}

/// One attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// What its outcome meant; `verdict.code()` is its code.
    pub verdict: Verdict,
    /// How long it took.
    pub duration: Duration,
    /// How long the call then waited before the next attempt; zero after the last.
    pub wait: Duration,
}

// === impl Ledger ===

impl Ledger {
    pub(crate) const fn new() -> Self {
        Self { attempts: Vec::new(), stopped: Stop::Succeeded, cause: None }
    }

    pub(crate) fn push(&mut self, verdict: Verdict, duration: Duration) {
        self.attempts.push(Attempt { verdict, duration, wait: Duration::ZERO });
    }

    pub(crate) fn last_code(&self) -> Option<Code> {
        self.attempts.last().map(|last| last.verdict.code())
    }

    pub(crate) fn waits(&mut self, wait: Duration) {
        if let Some(last) = self.attempts.last_mut() {
            last.wait = wait;
        }
    }

    /// `status`, with the story of the call as its source and its own source below that.
    pub(crate) fn close(mut self, stopped: Stop, cause: Status) -> Status {
        let mut status = Status::with_details_and_metadata(
            cause.code(),
            cause.message(),
            cause.details().to_vec().into(),
            cause.metadata().clone(),
        );
        self.stopped = stopped;
        self.cause = Some(Arc::new(cause));
        status.set_source(Arc::new(self));
        status
    }

    /// The ledger that a failed call's status carries.
    ///
    /// `None` where the call did not pass through a [`Retry`](crate::Retry), or did not end in
    /// it: a failure after the response had begun is not a failed attempt.
    pub fn of(status: &Status) -> Option<&Self> {
        find_cause(status)
    }

    /// Every attempt, in order, the transparent ones included.
    pub fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }

    /// Why there was not another.
    pub const fn stopped(&self) -> Stop {
        self.stopped
    }
}

impl fmt::Display for Ledger {
    /// One line for the call, one for each attempt.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.attempts.len() == 1 { "" } else { "s" };
        write!(f, "{} attempt{plural}, stopped: {}", self.attempts.len(), self.stopped)?;
        for (n, Attempt { verdict, duration, wait }) in self.attempts.iter().enumerate() {
            write!(f, "\n  #{} {} after {:.1?}", n + 1, code::name(verdict.code()), duration)?;
            if let Verdict::NotProcessed(stage) = verdict {
                write!(f, ", {stage}")?;
            }
            if !wait.is_zero() {
                write!(f, ", waited {wait:.1?}")?;
            }
        }
        Ok(())
    }
}

impl Error for Ledger {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}
