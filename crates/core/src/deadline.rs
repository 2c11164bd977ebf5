//! The instant at which a call must have ended, and its form on the wire.

use crate::Invalid;
use cinchona_plumbing::{
    clock, headers,
    timeout::{self, GRPC_TIMEOUT, encode_timeout},
};
use http::{HeaderMap, HeaderValue};
use std::time::Duration;
use tokio::time::Instant;

/// The instant at which the whole call must have ended. A caller may put one into the extensions of
/// a request; layers pass it on in the record of the [`Call`](crate::Call).
///
/// On the wire a deadline is the remaining time (`grpc-timeout`), so that the clocks of two
/// machines need not agree; within a process it is an instant, so that waiting is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(pub Instant);

// === impl Deadline ===

impl Deadline {
    /// Reads `grpc-timeout`: 1 to 8 digits and a unit, one of `H M S m u n`.
    ///
    /// ```
    /// use cinchona_core::Deadline;
    /// use http::HeaderMap;
    /// use std::time::Duration;
    ///
    /// let mut headers = HeaderMap::new();
    /// assert_eq!(Deadline::parse_timeout(&headers), Ok(None));
    /// headers.insert("grpc-timeout", "250m".parse().unwrap());
    /// assert_eq!(Deadline::parse_timeout(&headers), Ok(Some(Duration::from_millis(250))));
    /// headers.insert("grpc-timeout", "2 s".parse().unwrap());
    /// assert!(Deadline::parse_timeout(&headers).is_err());
    /// ```
    ///
    /// # Errors
    /// [`Invalid`] when the value has any other form.
    pub fn parse_timeout(headers: &HeaderMap) -> Result<Option<Duration>, Invalid> {
        timeout::parse_timeout(headers).map_err(malformed)
    }

    /// Reads one value of `grpc-timeout`, like [`parse_timeout`](Self::parse_timeout).
    ///
    /// # Errors
    /// [`Invalid`] when the value has any other form.
    pub fn read_timeout(value: &HeaderValue) -> Result<Duration, Invalid> {
        timeout::read_timeout(value).map_err(malformed)
    }

    /// `timeout` from `now`; `None` if that is ten years or more, such as `Duration::MAX`: no
    /// deadline.
    pub fn within(timeout: Duration, now: Instant) -> Option<Self> {
        const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
        (timeout < FOR_EVER).then(|| Self::after(timeout, now))
    }

    /// `timeout` from `now`; a timeout too long for the clock is 30 years.
    pub fn after(timeout: Duration, now: Instant) -> Self {
        Self(clock::later(now, timeout))
    }

    /// The remaining time at `now`; zero once it has passed.
    pub fn remaining(self, now: Instant) -> Duration {
        self.0.saturating_duration_since(now)
    }

    /// Whether no time is left at `now`.
    pub fn has_passed(self, now: Instant) -> bool {
        self.0 <= now
    }

    /// Writes the remaining time at `now` to `grpc-timeout`.
    pub fn stamp(self, headers: &mut HeaderMap, now: Instant) {
        headers::set(headers, &GRPC_TIMEOUT, encode_timeout(self.remaining(now)));
    }
}

fn malformed(value: &HeaderValue) -> Invalid {
    let value = String::from_utf8_lossy(value.as_bytes());
    Invalid::new("grpc-timeout", value, "1 to 8 digits and one of H, M, S, m, u, n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_years_are_no_deadline() {
        let now = Instant::now();
        let asked =
            |value| http::Request::builder().header("grpc-timeout", value).body(()).unwrap();
        assert_eq!(Deadline::of(&asked("99999999H"), now), Ok(None));
        assert_eq!(Deadline::within(Duration::MAX, now), None);
        for seconds in [0, 1, 9 * 365 * 24 * 3600] {
            let timeout = Duration::from_secs(seconds);
            assert_eq!(Deadline::within(timeout, now).unwrap().remaining(now), timeout);
        }
    }

    #[test]
    fn other_forms_are_refused_with_the_value_and_the_rule() {
        for text in ["", "S", "-1S", "1234x", "1234s", "1234", "9a1S", "000000000S", "1 S"] {
            let headers = HeaderMap::from_iter([(GRPC_TIMEOUT, text.parse().unwrap())]);
            let error = Deadline::parse_timeout(&headers).unwrap_err().to_string();
            assert!(error.contains("1 to 8 digits"), "{error}");
        }
    }

    #[test]
    fn one_nanosecond_less_than_ten_years_is_a_deadline() {
        let (now, years) = (Instant::now(), Duration::from_secs(10 * 365 * 24 * 3600));
        assert_eq!(Deadline::within(years, now), None);
        assert!(Deadline::within(years - Duration::from_nanos(1), now).is_some());
    }

    #[test]
    fn at_its_instant_and_later_no_time_is_left() {
        let (now, ms) = (Instant::now(), Duration::from_millis(1));
        let deadline = Deadline::after(7 * ms, now);
        let passed = [6, 7, 8].map(|after| deadline.has_passed(now + after * ms));
        assert_eq!(passed, [false, true, true]);
        let left = [6, 7, 8].map(|after| {
            let mut headers = HeaderMap::new();
            deadline.stamp(&mut headers, now + after * ms);
            Deadline::read_timeout(&headers[GRPC_TIMEOUT]).unwrap()
        });
        // No time at all is not sent: the least there is.
        let least = Duration::from_nanos(1);
        assert_eq!(left, [ms, least, least]);
        assert!(Deadline::read_timeout(&"7".parse().unwrap()).is_err());
    }
}
