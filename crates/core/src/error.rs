//! Errors: boxed between layers, and examined along their `source()` chain.

use crate::Stage;
use http::{Uri, uri::PathAndQuery};
use std::{borrow::Cow, error::Error, fmt, sync::OnceLock, time::Duration};
use tonic::{Code, Status};

/// Any error, as tower's layers pass it on.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// A layer of the client could not send a call, or refused to: it was not processed. Its `source()`
/// is the `UNAVAILABLE` status.
///
/// ```
/// use cinchona_core::Rejected;
/// use std::time::Duration;
///
/// let unsent = Rejected::new("circuit breaker is open", Some(Duration::from_secs(3)));
/// let status = tonic::Status::from_error(unsent.into());
/// assert_eq!(status.code(), tonic::Code::Unavailable);
/// assert_eq!(status.message(), "circuit breaker is open; worth trying again in 3.0s");
/// ```
#[derive(Debug)]
pub struct Rejected {
    message: Cow<'static, str>,
    retry_after: Option<Duration>,
    stage: Stage,
    code: Code,
    /// The method that was called, if known.
    method: Option<PathAndQuery>,
    // Created on demand: refusing a call must cost next to nothing.
    status: OnceLock<Status>,
}

// === impl Rejected ===

impl Rejected {
    /// Why it was not sent, and when a retry is worthwhile, if known.
    pub fn new(message: impl Into<Cow<'static, str>>, retry_after: Option<Duration>) -> Self {
        let (message, stage) = (message.into(), Stage::NoConnection);
        let (code, status) = (Code::Unavailable, OnceLock::new());
        Self { message, retry_after, stage, code, method: None, status }
    }

    /// There was a connection, and the request has not left the client: it can be sent again
    /// immediately, on another.
    pub fn lost(message: impl Into<Cow<'static, str>>) -> Self {
        Self { stage: Stage::NotWritten, ..Self::new(message, None) }
    }

    /// Every server that could take this call is at capacity: `RESOURCE_EXHAUSTED`, and not to be
    /// retried, which would add load.
    pub fn exhausted(message: impl Into<Cow<'static, str>>) -> Self {
        Self { code: Code::ResourceExhausted, ..Self::new(message, None) }
    }

    /// None of several endpoints admits this call, each for its reason; the soonest retry time
    /// counts.
    pub fn of_all(all: Vec<Self>) -> Self {
        let is_exhausted = all.iter().all(|unsent| unsent.code == Code::ResourceExhausted);
        if is_exhausted && !all.is_empty() {
            let all: Vec<_> = all.iter().map(|unsent| &*unsent.message).collect();
            return Self::exhausted(format!("all are at capacity: {}", all.join(", ")));
        }
        let soonest = |unsent: &Self| unsent.retry_after.unwrap_or(Duration::MAX);
        let soonest = all.into_iter().min_by_key(soonest);
        soonest.unwrap_or_else(|| Self::new("there is nowhere to send it", None))
    }

    /// The same, for a call of the method at `uri`, with which its messages begin.
    #[must_use]
    pub fn of_call(self, uri: &Uri) -> Self {
        let is_one = |path: &&PathAndQuery| path.path().len() > 1;
        Self { method: uri.path_and_query().filter(is_one).cloned(), ..self }
    }

    /// `UNAVAILABLE`, or `RESOURCE_EXHAUSTED`.
    pub const fn code(&self) -> Code {
        self.code
    }

    /// How far the call got.
    pub const fn stage(&self) -> Stage {
        self.stage
    }

    /// When a retry is worthwhile.
    pub const fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(method) = &self.method {
            write!(f, "{}: ", method.path())?;
        }
        f.write_str(&self.message)?;
        match self.retry_after {
            Some(wait) => write!(f, "; worth trying again in {wait:.1?}"),
            None => Ok(()),
        }
    }
}

impl Error for Rejected {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.status.get_or_init(|| Status::new(self.code, self.to_string())))
    }
}
