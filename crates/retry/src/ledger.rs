//! The attempts of a call, and why there was not another.

use cinchona_core::{Attempt as Line, AttemptKind, Verdict};
use cinchona_plumbing::{cause::find_cause, code};
use cinchona_policy::retry::Stop;
use std::{error::Error, fmt, sync::Arc, time::Duration};
use tokio::time::Instant;
use tonic::Status;

/// The attempts of one call and why they stopped.
///
/// A call that fails carries it as the source of its status ([`Ledger::of`]); a call that succeeded
/// after a retry, in the response's extensions. If the layer is
/// [`explained`](crate::RetrySettings::explained), a call whose first attempt succeeded has it
/// there too, and a failure in its details as well, for readers in any language
/// ([`proto/ledger.proto`](https://github.com/cinchona-rs/cinchona/blob/main/proto/ledger.proto)).
#[derive(Clone, Debug)]
pub struct Ledger {
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) stopped: Stop,
    pub(crate) cause: Option<Arc<Status>>,
}

/// One attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// Why it was made.
    pub kind: AttemptKind,
    /// The verdict on its outcome; `verdict.code()` is its code.
    pub verdict: Verdict,
    /// When it began, relative to the call.
    pub began: Duration,
    /// How long it took.
    pub duration: Duration,
    /// How long the call then waited before the next attempt; zero after the last.
    pub wait: Duration,
    /// Host and port of its server, if a balancer has recorded it.
    pub endpoint: Option<Arc<str>>,
}

// === impl Ledger ===

impl Ledger {
    /// The lines of a call's record whose attempts have ended.
    pub(crate) fn new(lines: Vec<Line>, began: Instant, stopped: Stop) -> Self {
        let attempts = lines.into_iter().filter_map(|line| Attempt::of(line, began)).collect();
        Self { attempts, stopped, cause: None }
    }

    /// The ledger that a failed call's status carries.
    ///
    /// `None` if the call did not pass through a [`Retry`](crate::Retry), or did not end in it: a
    /// failure after the response had begun is not a failed attempt.
    pub fn of(status: &Status) -> Option<&Self> {
        find_cause(status)
    }

    /// Every attempt, in the order in which they ended, the transparent ones included.
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
        for (n, attempt) in self.attempts.iter().enumerate() {
            let Attempt { kind, verdict, duration, wait, endpoint, .. } = attempt;
            write!(f, "\n  #{}", n + 1)?;
            if let AttemptKind::Transparent | AttemptKind::Hedge = kind {
                write!(f, " ({kind})")?;
            }
            write!(f, " {} after {duration:.1?}", code::name(verdict.code()))?;
            if let Some(endpoint) = endpoint {
                write!(f, " from {endpoint}")?;
            }
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

// === impl Attempt ===

impl Attempt {
    fn of(line: Line, call_began: Instant) -> Option<Self> {
        let (verdict, ended) = (line.verdict?, line.ended?);
        Some(Self {
            kind: line.kind,
            verdict,
            began: line.began.saturating_duration_since(call_began),
            duration: ended.saturating_duration_since(line.began),
            wait: line.wait,
            endpoint: line.endpoint,
        })
    }
}
