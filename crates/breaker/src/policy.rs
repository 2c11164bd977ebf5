//! When a breaker opens, for how long, and what closes it: data, and what a verdict counts as.

use crate::{
    state::{Limits, Outcome},
    window::Counts,
};
use cinchona_core::{Backoff, Evidence, Invalid, Jitter, code};
use std::{fmt, time::Duration};
use tonic::Code;

/// When a breaker opens, for how long, and what closes it.
///
/// # Why
///
/// A service that is down is not helped by more calls, and callers are not helped by waiting for
/// what will fail.
///
/// # Rule
///
/// | setting | default | from |
/// |---|---|---|
/// | failures in a row that open it | 3 | our choice |
/// | failure rate, slow-call rate | off | |
/// | the window of the rates | the last 10 s | Hystrix, `rollingStats.timeInMilliseconds` |
/// | calls in the window before a rate means anything | 20 | Hystrix, `requestVolumeThreshold` |
/// | how long it stays open at first | 5 s | Hystrix, `sleepWindowInMilliseconds` |
/// | how long at most; it doubles each time | 120 s | gRPC, connection backoff |
/// | jitter on both | ±20 % | gRPC, connection backoff |
/// | probes at a time, successes that close it | 1, 1 | |
/// | codes that are failures | see [`with_counted`](Self::with_counted) | |
///
/// # Example
///
/// ```
/// use cinchona_breaker::{BreakerPolicy, Window};
/// use std::time::Duration;
///
/// let policy = BreakerPolicy::default()
///     .with_consecutive_failures(None)?
///     .with_failure_rate(0.5)?
///     .with_slow_calls(Duration::from_secs(2), 0.8)?
///     .with_window(Window::Count(100))?;
/// let refused = policy.with_failure_rate(1.5).unwrap_err();
/// assert_eq!(refused.to_string(), "failure_rate: 1.5 is not allowed; the range is above 0 to 1");
/// # Ok::<_, cinchona_core::Invalid>(())
/// ```
///
/// # What it does not do
///
/// It sets no time limit: a call that hangs is no failure until something ends it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BreakerPolicy {
    pub(crate) consecutive: Option<u32>,
    failure_rate: Option<f64>,
    pub(crate) slow: Option<Slow>,
    pub(crate) window: Window,
    min_calls: u32,
    /// How long it stays open at first.
    pub(crate) open_for: Duration,
    longest: Duration,
    pub(crate) probes: u32,
    pub(crate) successes: u32,
    /// Instead of what speaks against the server.
    counted: Option<Codes>,
}

/// Which calls the rates are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// Those that ended within this time, to within 1/64 of it; 10 ms to 1 h.
    Time(Duration),
    /// The last so many; 1 to 100,000. It takes 16 bytes for each failed or slow call among them.
    Count(u32),
}

/// What is slow, and what share of slow calls is too much.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Slow {
    pub(crate) after: Duration,
    rate: f64,
}

/// A set of codes.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Codes(u32);

/// Why a breaker changes its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Consecutive,
    FailureRate,
    SlowCalls,
    ProbeFailed,
    ProbeSucceeded,
    Waited,
    ByHand,
}

/// What the packed state of half-open has room for.
pub(crate) const MOST_PROBES: u32 = (1 << 8) - 1;
/// What the packed state of closed has room for.
const MOST_CONSECUTIVE: u32 = (1 << 24) - 1;

// === impl BreakerPolicy ===

impl BreakerPolicy {
    /// Opens after so many failures in a row, 1 to 16,777,215; none for never. Default 3.
    ///
    /// # Errors
    /// When it is outside that range.
    pub fn with_consecutive_failures(self, consecutive: Option<u32>) -> Result<Self, Invalid> {
        let value = consecutive.unwrap_or(1);
        checked("consecutive_failures", value, 1..=MOST_CONSECUTIVE, "1 to 16777215")?;
        Ok(Self { consecutive, ..self })
    }

    /// Opens when at least this share of the calls in the window have failed, above 0 to 1.
    /// Default: off.
    ///
    /// It is worked out when a call fails, once there are enough calls.
    ///
    /// # Errors
    /// When it is outside that range.
    pub fn with_failure_rate(self, rate: f64) -> Result<Self, Invalid> {
        Ok(Self { failure_rate: Some(share("failure_rate", rate)?), ..self })
    }

    /// Opens when at least the share `rate` of the calls in the window, above 0 to 1, took `after`
    /// or longer. Default: off.
    ///
    /// A call takes until the head of its response, or until it fails; a probe that is slow is a
    /// failure.
    ///
    /// # Errors
    /// When `rate` is outside that range, or `after` is zero.
    pub fn with_slow_calls(self, after: Duration, rate: f64) -> Result<Self, Invalid> {
        if after.is_zero() {
            return Err(Invalid::new("slow_after", "0s", "more than 0"));
        }
        Ok(Self { slow: Some(Slow { after, rate: share("slow_rate", rate)? }), ..self })
    }

    /// Which calls the rates are of. Default: those of the last 10 s.
    ///
    /// # Errors
    /// When the window is outside its range, see [`Window`].
    pub fn with_window(self, window: Window) -> Result<Self, Invalid> {
        match window {
            Window::Time(time) => {
                let range = Duration::from_millis(10)..=Duration::from_secs(3600);
                if !range.contains(&time) {
                    return Err(Invalid::new("window", format!("{time:?}"), "10ms to 1h"));
                }
            }
            Window::Count(calls) => checked("window", calls, 1..=100_000, "1 to 100000 calls")?,
        }
        Ok(Self { window, ..self })
    }

    /// A rate means nothing with fewer calls in the window, at least 1. Default 20.
    ///
    /// A window of fewer calls means something once it is full.
    ///
    /// # Errors
    /// When it is 0.
    pub fn with_min_calls(self, min_calls: u32) -> Result<Self, Invalid> {
        checked("min_calls", min_calls, 1..=u32::MAX, "at least 1")?;
        Ok(Self { min_calls, ..self })
    }

    /// Stays open for `first`, and twice as long each time it opens again without having closed,
    /// but at most `longest`; each ±20 %. Default 5 s and 120 s.
    ///
    /// # Errors
    /// When `first` is zero, or `longest` is shorter than that, or longer than 30 days.
    pub fn with_open_for(self, first: Duration, longest: Duration) -> Result<Self, Invalid> {
        const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);
        if first.is_zero() {
            return Err(Invalid::new("open_for", "0s", "more than 0"));
        }
        if longest < first || longest > MONTH {
            let longest = format!("{longest:?}");
            return Err(Invalid::new("open_for_longest", longest, "the first to 30 days"));
        }
        Ok(Self { open_for: first, longest, ..self })
    }

    /// How many probes may be under way at a time while it is half-open, 1 to 255. Default 1.
    ///
    /// Where all of them have been under way for as long as it stays open at first, one more is
    /// let through: a stream without end must not keep every other call out.
    ///
    /// # Errors
    /// When it is outside that range.
    pub fn with_probes(self, probes: u32) -> Result<Self, Invalid> {
        checked("probes", probes, 1..=MOST_PROBES, "1 to 255")?;
        Ok(Self { probes, ..self })
    }

    /// How many probes must succeed to close it, 1 to 255. Default 1.
    ///
    /// # Errors
    /// When it is outside that range.
    pub fn with_successes(self, successes: u32) -> Result<Self, Invalid> {
        checked("successes", successes, 1..=MOST_PROBES, "1 to 255")?;
        Ok(Self { successes, ..self })
    }

    /// Which codes are failures. Default: whatever speaks against the server ([`Evidence`]), so
    /// `UNAVAILABLE`, `INTERNAL`, `UNKNOWN`, `DATA_LOSS` and a deadline that left it enough time.
    ///
    /// Of the codes that are not named here, those that say nothing of the server do not count at
    /// all (`CANCELLED`, `RESOURCE_EXHAUSTED`), and all others are successes: it did answer.
    ///
    /// # Errors
    /// When `OK` is among them.
    pub fn with_counted(self, codes: impl IntoIterator<Item = Code>) -> Result<Self, Invalid> {
        let counted = codes.into_iter().fold(Codes(0), Codes::and);
        if counted.contains(Code::Ok) {
            return Err(Invalid::new("counted", code::name(Code::Ok), "any code but OK"));
        }
        Ok(Self { counted: Some(counted), ..self })
    }

    /// What a call counts as that says this of the server.
    pub(crate) fn outcome(&self, evidence: Evidence) -> Outcome {
        match (self.counted, evidence) {
            (Some(counted), evidence)
                if evidence.code().is_some_and(|code| counted.contains(code)) =>
            {
                Outcome::Failure
            }
            (_, Evidence::Nothing(_)) => Outcome::Ignored,
            (None, Evidence::Bad(_)) => Outcome::Failure,
            (_, Evidence::Good(_) | Evidence::Bad(_)) => Outcome::Success,
        }
    }

    /// What its state machine needs of it.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            consecutive: self.consecutive,
            probes: self.probes,
            successes: self.successes,
            patience: u64::try_from(self.open_for.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Whether a window is needed at all.
    pub(crate) const fn has_rates(&self) -> bool {
        self.failure_rate.is_some() || self.slow.is_some()
    }

    /// Which rate is too high, and how many calls made it so.
    pub(crate) fn tripped(&self, counts: Counts) -> Option<(Reason, u64)> {
        let enough = match self.window {
            Window::Time(_) => self.min_calls,
            Window::Count(calls) => self.min_calls.min(calls),
        };
        if counts.calls < u64::from(enough) {
            return None;
        }
        let reached = |of: u64, rate: Option<f64>| {
            rate.is_some_and(|rate| of as f64 / counts.calls as f64 >= rate)
        };
        if reached(counts.failed, self.failure_rate) {
            return Some((Reason::FailureRate, counts.failed));
        }
        let slow = reached(counts.slow, self.slow.map(|slow| slow.rate));
        slow.then_some((Reason::SlowCalls, counts.slow))
    }

    /// How long it stays open, by how often it opened without having closed.
    pub(crate) fn backoff(&self) -> Backoff {
        let backoff = Backoff::new(self.open_for, 2.0, self.longest);
        backoff.unwrap_or_default().with_jitter(Jitter::Grpc)
    }
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self {
            consecutive: Some(3),
            failure_rate: None,
            slow: None,
            window: Window::Time(Duration::from_secs(10)),
            min_calls: 20,
            open_for: Duration::from_secs(5),
            longest: Duration::from_secs(120),
            probes: 1,
            successes: 1,
            counted: None,
        }
    }
}

fn share(field: &'static str, rate: f64) -> Result<f64, Invalid> {
    match rate > 0.0 && rate <= 1.0 {
        true => Ok(rate),
        false => Err(Invalid::new(field, rate, "above 0 to 1")),
    }
}

fn checked(
    field: &'static str,
    value: u32,
    range: std::ops::RangeInclusive<u32>,
    allowed: &'static str,
) -> Result<(), Invalid> {
    match range.contains(&value) {
        true => Ok(()),
        false => Err(Invalid::new(field, value, allowed)),
    }
}

// === impl Codes ===

impl Codes {
    const fn and(self, code: Code) -> Self {
        Self(self.0 | 1 << code as u32)
    }

    const fn contains(self, code: Code) -> bool {
        self.0 & 1 << code as u32 != 0
    }
}

impl fmt::Debug for Codes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let codes = code::all().filter(|code| self.contains(*code));
        f.debug_set().entries(codes.map(code::name)).finish()
    }
}

// === impl Reason ===

impl Reason {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Consecutive => "failures in a row",
            Self::FailureRate => "failure rate",
            Self::SlowCalls => "slow calls",
            Self::ProbeFailed => "probe failed",
            Self::ProbeSucceeded => "probes succeeded",
            Self::Waited => "time to probe",
            Self::ByHand => "by hand",
        }
    }
}
