//! The policy of a breaker: when it opens, for how long, what closes it, and how verdicts count.

use super::{
    limits::{Limits, MOST_FAILURES, Run},
    state::Sample,
    window::{Counts, Window},
};
use crate::{
    Backoff, Code, Evidence, Invalid, Jitter,
    clock::{FOR_EVER, millis},
};
use std::{fmt, time::Duration};

/// When a breaker opens, for how long, and what closes it.
///
/// # Why
///
/// More calls do not help a service that is down, and waiting for their failure does not help the
/// callers.
///
/// # Rule
///
/// | setting | default | from |
/// |---|---|---|
/// | outage: nothing but failures | 20 that last 1.5 s, or 10 that last 6 s | [measured][m] |
/// | failures in a row, however fast | off | |
/// | failure rate, slow-call rate | off | |
/// | the window of the rates | the last 10 s | Hystrix, `rollingStats.timeInMilliseconds` |
/// | calls in the window before a rate means anything | 20 | Hystrix, `requestVolumeThreshold` |
/// | how long it stays open at first | 1 s | the least outage that it opens for |
/// | how long at most; it doubles each time | 5 s | Hystrix, `sleepWindowInMilliseconds` |
/// | jitter on both | ±20 % | gRPC, connection backoff |
/// | probes at a time, successes that close it | 1, 1 | Hystrix |
/// | codes that are failures | see [`with_counted`](Self::with_counted) | |
///
/// # Example
///
/// ```
/// use cinchona_policy::breaker::{BreakerPolicy, Window};
/// use std::time::Duration;
///
/// let policy = BreakerPolicy::default()
///     .with_outage(50, Duration::from_secs(3))?
///     .with_failure_rate(0.5)?
///     .with_slow_calls(Duration::from_secs(2), 0.8)?
///     .with_window(Window::Count(100))?;
/// let refused = policy.with_failure_rate(1.5).unwrap_err();
/// assert_eq!(refused.to_string(), "failure_rate: 1.5 is not allowed; the range is above 0 to 1");
/// # Ok::<_, cinchona_policy::Invalid>(())
/// ```
///
/// # What it does not do
///
/// It sets no time limit: a call that hangs is not a failure until a timeout ends it.
///
/// [m]: https://docs.rs/cinchona-breaker/latest/cinchona_breaker/#measured
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BreakerPolicy {
    run: Option<Run>,
    failure_rate: Option<f64>,
    pub(crate) slow: Option<Slow>,
    pub(crate) window: Window,
    min_calls: u32,
    /// How long it stays open at first.
    pub(crate) open_for: Duration,
    longest: Duration,
    pub(crate) probes: u32,
    pub(crate) successes: u32,
    /// Codes counted instead of those that are evidence against the server.
    counted: Option<Codes>,
}

/// The time from which a call is slow, and the share of slow calls that is too high.
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
#[non_exhaustive]
pub enum Reason {
    /// So many failures in a row.
    Failures,
    /// Too large a share of the calls has failed.
    FailureRate,
    /// Too large a share of the calls was slow.
    SlowCalls,
    /// A probe has failed.
    ProbeFailed,
    /// Enough probes have succeeded.
    ProbeSucceeded,
    /// The time until the next probe has passed.
    Waited,
    /// Somebody has opened or closed it.
    ByHand,
}

/// The limit of the packed half-open state.
pub(crate) const MOST_PROBES: u32 = (1 << 8) - 1;

// === impl BreakerPolicy ===

impl BreakerPolicy {
    /// Opens after this many failures in a row, 1 to 65,535, that last this long, 0 to one day,
    /// from the first to the last; after four times as long, half of them suffice. Default 20 and
    /// 1.5 s.
    ///
    /// *Why:* a call that fails by chance is retried, and succeeds; rejected, it fails. So a
    /// breaker is harmless only while nothing succeeds. Where 3 in 10 calls fail by chance, one in
    /// 29 billion is the 20th failure in a row. And a server that is back within 1.5 s has
    /// restarted, or lost a connection: rejecting calls for longer than that would cost more than
    /// it saves.
    ///
    /// # Errors
    /// When one of them is outside its range.
    pub fn with_outage(self, failures: u32, lasting: Duration) -> Result<Self, Invalid> {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        checked("outage_failures", failures, 1..=MOST_FAILURES, "1 to 65535")?;
        if lasting > DAY {
            return Err(Invalid::new("outage_lasting", format!("{lasting:?}"), "0 to 1 day"));
        }
        let lasting = lasting.as_nanos().div_ceil(1_000_000) as u64;
        Ok(Self { run: Some(Run { failures, lasting }), ..self })
    }

    /// Opens after this many failures in a row, 1 to 65,535, however fast, instead of
    /// [`with_outage`](Self::with_outage); `None`: a run of failures does not open it. Default: an
    /// outage does.
    ///
    /// *Cost:* where 3 in 10 calls fail by chance, 27 in 1,000 are the third failure in a row. It
    /// suits calls that are few, and expensive to wait for.
    ///
    /// # Errors
    /// When it is outside that range.
    pub fn with_consecutive_failures(self, consecutive: Option<u32>) -> Result<Self, Invalid> {
        let value = consecutive.unwrap_or(1);
        checked("consecutive_failures", value, 1..=MOST_FAILURES, "1 to 65535")?;
        Ok(Self { run: consecutive.map(|failures| Run { failures, lasting: 0 }), ..self })
    }

    /// Opens when at least this share of the calls in the window have failed, above 0 to 1.
    /// Default: off.
    ///
    /// Evaluated when a call fails, once there are enough calls.
    ///
    /// # Errors
    /// When it is outside that range.
    pub fn with_failure_rate(self, rate: f64) -> Result<Self, Invalid> {
        Ok(Self { failure_rate: Some(share("failure_rate", rate)?), ..self })
    }

    /// Opens when at least the share `rate` of the calls in the window, above 0 to 1, took `after`
    /// or longer. Default: off.
    ///
    /// A call is timed until the head of its response, or until it fails; a slow probe is a
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

    /// The window of the rates. Default: the last 10 s.
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

    /// The least calls in the window for a rate to count, at least 1. Default 20.
    ///
    /// A window limited to fewer calls counts once it is full.
    ///
    /// # Errors
    /// When it is 0.
    pub fn with_min_calls(self, min_calls: u32) -> Result<Self, Invalid> {
        checked("min_calls", min_calls, 1..=u32::MAX, "at least 1")?;
        Ok(Self { min_calls, ..self })
    }

    /// Stays open for `first`, and twice as long each time it opens again without having closed,
    /// but at most `longest`; each ±20 %. Default 1 s and 5 s. More than 30 years: without end.
    ///
    /// # Errors
    /// When `first` is zero, or `longest` is shorter than that.
    pub fn with_open_for(self, first: Duration, longest: Duration) -> Result<Self, Invalid> {
        if first.is_zero() {
            return Err(Invalid::new("open_for", "0s", "more than 0"));
        }
        if longest < first {
            return Err(Invalid::new(
                "open_for_longest",
                format!("{longest:?}"),
                "at least the first",
            ));
        }
        Ok(Self { open_for: first, longest, ..self })
    }

    /// The most probes in flight while it is half-open, 1 to 255. Default 1.
    ///
    /// A probe ends with the head of its response. If none has arrived for as long as the circuit
    /// stays open at first, one more is admitted.
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

    /// Sets the codes that are failures, instead of the default: evidence against the server
    /// ([`Evidence`]), so `UNAVAILABLE`, `INTERNAL`, `UNKNOWN`, `DATA_LOSS`, and a deadline that
    /// left it enough time.
    ///
    /// Of the other codes, those that are no evidence about the server do not count (`CANCELLED`,
    /// `RESOURCE_EXHAUSTED`), and the rest are successes: the server did answer.
    ///
    /// # Errors
    /// When `OK` is among them.
    pub fn with_counted(
        self,
        codes: impl IntoIterator<Item = impl Into<i32>>,
    ) -> Result<Self, Invalid> {
        let codes = codes.into_iter().map(|code| Code::from_number(code.into()));
        let counted = codes.fold(Codes(0), Codes::and);
        if counted.contains(Code::Ok) {
            return Err(Invalid::new("counted", Code::Ok.name(), "any code but OK"));
        }
        Ok(Self { counted: Some(counted), ..self })
    }

    /// How a call with this evidence counts.
    #[inline]
    pub(crate) fn outcome(&self, evidence: Evidence) -> Sample {
        let is_counted =
            |counted: Codes| evidence.code().is_some_and(|code| counted.contains(code));
        match (self.counted, evidence) {
            (Some(counted), _) if is_counted(counted) => Sample::Failure,
            (_, Evidence::Nothing(_)) => Sample::Ignored,
            (None, Evidence::Bad(_)) => Sample::Failure,
            (_, Evidence::Good(_) | Evidence::Bad(_)) => Sample::Success,
        }
    }

    /// The parameters of the state machine.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            run: self.run,
            probes: self.probes,
            successes: self.successes,
            patience: millis(self.open_for),
        }
    }

    /// Whether a window is needed at all.
    #[inline]
    pub(crate) const fn has_rates(&self) -> bool {
        self.failure_rate.is_some() || self.slow.is_some()
    }

    /// The rate that is too high, and the calls behind it.
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
        let backoff = Backoff::new(self.open_for, 2.0, self.longest.min(FOR_EVER));
        backoff.unwrap_or_default().with_jitter(Jitter::Grpc)
    }
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self {
            run: Some(Run { failures: 20, lasting: 1500 }),
            failure_rate: None,
            slow: None,
            window: Window::Time(Duration::from_secs(10)),
            min_calls: 20,
            open_for: Duration::from_secs(1),
            longest: Duration::from_secs(5),
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
        let codes = Code::ALL.into_iter().filter(|code| self.contains(*code));
        f.debug_set().entries(codes.map(Code::name)).finish()
    }
}

// === impl Reason ===

impl Reason {
    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Failures => "failures in a row",
            Self::FailureRate => "failure rate",
            Self::SlowCalls => "slow calls",
            Self::ProbeFailed => "probe failed",
            Self::ProbeSucceeded => "probes succeeded",
            Self::Waited => "time to probe",
            Self::ByHand => "by hand",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const DAY: Duration = Duration::from_secs(24 * 3600);
    const NS: Duration = Duration::from_nanos(1);

    fn new() -> BreakerPolicy {
        BreakerPolicy::default()
    }

    #[test]
    fn each_setting_takes_the_ends_of_its_range_and_nothing_beyond() {
        for failures in [1, 65_535] {
            assert!(new().with_outage(failures, DAY).is_ok());
            assert!(new().with_consecutive_failures(Some(failures)).is_ok());
        }
        for failures in [0, 65_536] {
            assert!(new().with_outage(failures, DAY).is_err());
            assert!(new().with_consecutive_failures(Some(failures)).is_err());
        }
        assert!(new().with_outage(1, DAY + NS).is_err());
        for number in [1, 255] {
            assert_eq!(new().with_probes(number).unwrap().limits().probes, number);
            assert_eq!(new().with_successes(number).unwrap().limits().successes, number);
        }
        for number in [0, 256] {
            assert!(new().with_probes(number).is_err() && new().with_successes(number).is_err());
        }
        assert!(new().with_min_calls(0).is_err() && new().with_min_calls(1).is_ok());
        for rate in [f64::MIN_POSITIVE, 1.0] {
            assert!(new().with_failure_rate(rate).is_ok());
            assert!(new().with_slow_calls(NS, rate).is_ok());
        }
        for rate in [0.0, -0.5, 1.000_001, f64::NAN, f64::INFINITY] {
            assert!(new().with_failure_rate(rate).is_err());
            assert!(new().with_slow_calls(NS, rate).is_err());
        }
        for window in [Window::Count(0), Window::Count(100_001), Window::Time(DAY)] {
            assert!(new().with_window(window).is_err());
        }
        assert!(new().with_open_for(NS, NS).is_ok() && new().with_open_for(DAY, NS).is_err());
    }

    #[test]
    fn an_outage_lasts_as_many_milliseconds_as_was_said_or_the_next_one() {
        for (lasting, ms) in [(Duration::ZERO, 0), (NS, 1), (Duration::from_secs(2), 2000)] {
            let policy = new().with_outage(7, lasting).unwrap();
            assert_eq!(policy.limits().run, Some(Run { failures: 7, lasting: ms }));
        }
        let policy = new().with_consecutive_failures(None).unwrap();
        assert_eq!(policy.limits().run, None);
    }

    #[test]
    fn what_opens_for_longer_than_thirty_years_opens_for_that() {
        let years = Duration::from_secs(30 * 365 * 24 * 3600);
        let opens =
            |policy: BreakerPolicy| policy.backoff().delay(1000, &mut crate::Rng::seeded(1).draw());
        let for_ever = new().with_open_for(NS, Duration::MAX).unwrap();
        assert_eq!(opens(for_ever), opens(new().with_open_for(NS, years).unwrap()));
        assert!(opens(for_ever) > opens(new().with_open_for(NS, years - DAY).unwrap()));
    }

    #[test]
    fn a_rate_trips_where_it_is_reached_and_either_does() {
        let counts = |calls, failed, slow| Counts { calls, failed, slow };
        let policy = new().with_failure_rate(0.5).unwrap().with_slow_calls(NS, 0.25).unwrap();
        let table = [
            (counts(20, 10, 0), Some((Reason::FailureRate, 10))),
            (counts(20, 9, 5), Some((Reason::SlowCalls, 5))),
            (counts(20, 9, 4), None),
            (counts(19, 19, 19), None),
        ];
        for (counts, tripped) in table {
            assert_eq!(policy.tripped(counts), tripped, "{counts:?}");
        }
        // A window of fewer calls means something once it is full.
        let few = policy.with_window(Window::Count(4)).unwrap();
        assert_eq!(few.tripped(counts(4, 2, 0)), Some((Reason::FailureRate, 2)));
        assert_eq!(few.tripped(counts(3, 3, 0)), None);
        assert_eq!(new().tripped(counts(100, 100, 100)), None);
    }

    #[test]
    fn codes_that_are_named_are_failures_and_no_others_are() {
        use Code::{Cancelled, Internal, NotFound, Ok, Unavailable};
        let named = new().with_counted([NotFound, Unavailable, NotFound]).unwrap();
        let table = [
            (Evidence::Good(NotFound), Sample::Failure),
            (Evidence::Bad(Unavailable), Sample::Failure),
            (Evidence::Bad(Internal), Sample::Success),
            (Evidence::Good(Ok), Sample::Success),
            (Evidence::Nothing(Some(Cancelled)), Sample::Ignored),
            (Evidence::Nothing(Some(Unavailable)), Sample::Failure),
            (Evidence::Nothing(None), Sample::Ignored),
        ];
        for (evidence, sample) in table {
            assert_eq!(named.outcome(evidence), sample, "{evidence:?}");
        }
        assert_eq!(new().outcome(Evidence::Bad(Internal)), Sample::Failure);
        assert!(new().with_counted([Ok]).is_err());
    }

    #[test]
    fn each_reason_has_a_name_of_its_own() {
        use Reason::{
            ByHand, FailureRate, Failures, ProbeFailed, ProbeSucceeded, SlowCalls, Waited,
        };
        let all = [Failures, FailureRate, SlowCalls, ProbeFailed, ProbeSucceeded, Waited, ByHand];
        let names: HashSet<_> = all.iter().map(|reason| reason.name()).collect();
        assert!(names.len() == all.len() && names.iter().all(|name| name.contains(' ')));
    }
}
