//! When to retry: data, and a decision that is told everything it needs.

use crate::backoff::Backoff;
use cinchona_core::{
    Deadline, Invalid, Once, Safety, Stage, Verdict, code,
    status::{self, Pushback},
};
use http::HeaderMap;
use rand::Rng;
use std::{fmt, mem, time::Duration};
use tokio::time::Instant;
use tonic::Code;

/// What is retried, how often, and after how long.
///
/// The default: 3 retries (so 4 attempts) of `DEADLINE_EXCEEDED` alone, after 1 s, 2 s and 4 s
/// plus 0 to 1 s each, of requests up to 256 KiB.
///
/// ```
/// use cinchona_retry::RetryPolicy;
/// use tonic::Code;
///
/// let policy = RetryPolicy::default()
///     .with_max_retries(5)
///     .with_codes([Code::DeadlineExceeded, Code::Unavailable])?;
/// let refused = policy.with_codes([Code::InvalidArgument]).unwrap_err();
/// assert!(refused.to_string().starts_with("codes: INVALID_ARGUMENT is not allowed"));
/// # Ok::<_, cinchona_core::Invalid>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryPolicy {
    max_retries: u32,
    codes: Codes,
    backoff: Backoff,
    pub(crate) buffer: usize,
}

/// A set of codes.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Codes(u32);

/// Why a call was not tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It succeeded.
    Succeeded,
    /// All attempts of the policy were made.
    Exhausted,
    /// The policy does not retry this code.
    NotRetryable,
    /// The call's deadline has passed, or would before the next attempt could start.
    Deadline,
    /// The request is larger than the replay buffer.
    BodyTooLarge,
    /// The request was still being streamed when it was first sent.
    Streaming,
    /// The service may have executed it, and nothing says that it may be executed twice.
    NotIdempotent,
    /// The server asked not to retry, by `grpc-retry-pushback-ms`.
    Pushback,
}

/// What to do after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Try again at once, outside the count: the service has not seen the request.
    Transparent,
    RetryAfter(Duration),
    Stop(Stop),
}

/// What of a call bears on the decision.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    /// Attempts made, the transparent ones left out.
    pub(crate) attempts: u32,
    /// Retries since the server last set the pace.
    pub(crate) backoffs: u32,
    pub(crate) transparent: u32,
    pub(crate) seen_refusal: bool,
    pub(crate) safety: Safety,
    pub(crate) deadline: Option<Instant>,
}

/// Unsent requests go round at once; a bound keeps a broken connector from spinning for ever.
const MAX_TRANSPARENT: u32 = 1000;

// === impl RetryPolicy ===

impl RetryPolicy {
    /// Tries a call at most `1 + max_retries` times; 0 disables retries. Default 3.
    pub const fn with_max_retries(self, max_retries: u32) -> Self {
        Self { max_retries, ..self }
    }

    /// Waits by `backoff` between attempts.
    pub const fn with_backoff(self, backoff: Backoff) -> Self {
        Self { backoff, ..self }
    }

    /// Retries these codes and no others.
    ///
    /// # Errors
    /// When one of them cannot become OK by trying again: `INVALID_ARGUMENT`, `NOT_FOUND`,
    /// `ALREADY_EXISTS`, `PERMISSION_DENIED`, `FAILED_PRECONDITION`, `OUT_OF_RANGE`,
    /// `UNIMPLEMENTED`, `DATA_LOSS`, `UNAUTHENTICATED` or `OK`.
    pub fn with_codes(self, codes: impl IntoIterator<Item = Code>) -> Result<Self, Invalid> {
        let codes = Codes::from_iter(codes);
        match codes
            .iter()
            .find(|code| matches!(Verdict::of_code(*code), Verdict::Refused(_) | Verdict::Ok))
        {
            Some(bad) => Err(Invalid::new("codes", code::name(bad), CODES)),
            None => Ok(Self { codes, ..self }),
        }
    }

    /// Retries these codes, even where that cannot help; `OK` is never retried all the same.
    pub fn with_forced_codes(self, codes: impl IntoIterator<Item = Code>) -> Self {
        Self { codes: Codes::from_iter(codes), ..self }
    }

    /// Keeps requests of at most `bytes` for retries; larger ones get one attempt. Default
    /// 256 KiB, as in gRPC's C++ and Go implementations.
    pub const fn with_buffer(self, bytes: usize) -> Self {
        Self { buffer: bytes, ..self }
    }

    /// How many attempts a call gets at most.
    pub const fn max_attempts(&self) -> u32 {
        self.max_retries.saturating_add(1)
    }

    /// What to do after an attempt that ended with `verdict`, and counts it.
    pub(crate) fn decide(
        &self,
        verdict: Verdict,
        pushback: Option<Pushback>,
        call: &mut Progress,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Decision {
        let stop = Decision::Stop;
        if verdict == Verdict::Ok {
            return stop(Stop::Succeeded);
        }
        if call.deadline.is_some_and(|deadline| deadline <= now) {
            return stop(Stop::Deadline);
        }
        if call.goes_round(verdict) {
            return Decision::Transparent;
        }
        call.attempts += 1;
        if !self.codes.contains(verdict.code()) {
            return stop(Stop::NotRetryable);
        }
        if !matches!(verdict, Verdict::NotProcessed(_)) && !call.safety.allows_repeating() {
            return stop(Stop::NotIdempotent);
        }
        if call.attempts > self.max_retries {
            return stop(Stop::Exhausted);
        }
        let wait = match pushback {
            Some(Pushback::Stop) => return stop(Stop::Pushback),
            Some(Pushback::After(wait)) => {
                call.backoffs = 0;
                wait
            }
            None => {
                call.backoffs += 1;
                self.backoff.delay(call.backoffs, rng)
            }
        };
        // Waiting for an attempt that could not even start is waiting for nothing.
        match call.deadline {
            Some(deadline) if deadline <= now + wait => stop(Stop::Deadline),
            _ => Decision::RetryAfter(wait),
        }
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_retries: 3,
            codes: Codes::from_iter([Code::DeadlineExceeded]),
            backoff: Backoff::default(),
            buffer: 256 * 1024,
        }
    }
}

// === impl Progress ===

impl Progress {
    pub(crate) const fn new(safety: Safety, deadline: Option<Instant>) -> Self {
        let seen_refusal = false;
        Self { attempts: 0, backoffs: 0, transparent: 0, seen_refusal, safety, deadline }
    }

    /// Whether gRFC A6 repeats this by itself, and counts it: without limit what never left the
    /// client, once what the server's library turned away.
    const fn goes_round(&mut self, verdict: Verdict) -> bool {
        match verdict {
            Verdict::NotProcessed(Stage::Unsent) if self.transparent < MAX_TRANSPARENT => {
                self.transparent += 1;
                true
            }
            Verdict::NotProcessed(Stage::Unseen) => !mem::replace(&mut self.seen_refusal, true),
            _ => false,
        }
    }

    /// Tells the server which attempt this is and how long there is.
    pub(crate) fn stamp(&self, headers: &mut HeaderMap, now: Instant) {
        if self.attempts > 0 {
            headers.insert(status::PREVIOUS_ATTEMPTS, self.attempts.into());
        }
        if let Some(deadline) = self.deadline {
            Deadline(deadline).stamp(headers, now);
        }
    }
}

// === impl Codes ===

const CODES: &str = "codes that can become OK by trying again: CANCELLED, UNKNOWN, \
    DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, ABORTED, INTERNAL, UNAVAILABLE \
    (with_forced_codes takes any)";

impl Codes {
    const fn contains(self, code: Code) -> bool {
        self.0 & (1 << code as u32) != 0
    }

    fn iter(self) -> impl Iterator<Item = Code> {
        code::all().filter(move |code| self.contains(*code))
    }
}

impl FromIterator<Code> for Codes {
    fn from_iter<I: IntoIterator<Item = Code>>(codes: I) -> Self {
        Self(codes.into_iter().fold(0, |set, code| set | 1 << code as u32))
    }
}

impl fmt::Debug for Codes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

// === impl Stop ===

impl From<Once> for Stop {
    fn from(once: Once) -> Self {
        match once {
            Once::TooLarge => Self::BodyTooLarge,
            Once::Streaming => Self::Streaming,
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Succeeded => "succeeded",
            Self::Exhausted => "exhausted",
            Self::NotRetryable => "not retryable",
            Self::Deadline => "deadline",
            Self::BodyTooLarge => "body too large",
            Self::Streaming => "request was streamed",
            Self::NotIdempotent => "method not known to be idempotent",
            Self::Pushback => "server pushback",
        })
    }
}
