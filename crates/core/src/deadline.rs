//! The instant at which a call must have ended, and its form on the wire.

use crate::{Call, Invalid, clock, headers};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::{error::Error, fmt, time::Duration};
use tokio::time::Instant;
use tonic::Status;

/// The header that tells the peer how long the caller is going to wait.
pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The instant at which the whole call must have ended. A caller may put one into the extensions of
/// a request; layers hand it on in the record of the [`Call`].
///
/// On the wire a deadline is the time that remains (`grpc-timeout`), so that the clocks of two
/// machines need not agree; within a process it is an instant, so that waiting is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(pub Instant);

/// A timer of this client ended a call or an attempt; its `source()` is the
/// `DEADLINE_EXCEEDED` status.
#[derive(Debug)]
pub struct Elapsed(Status);

// === impl Deadline ===

impl Deadline {
    /// The deadline that a layer further out has handed on ([`Call::deadline`]), or that is in the
    /// request's extensions, or else the one that `grpc-timeout` gives it if
    /// the call begins `now`; none where that is [for ever](Self::within).
    ///
    /// # Errors
    /// [`Invalid`] when `grpc-timeout` is malformed.
    pub fn of<B>(request: &http::Request<B>, now: Instant) -> Result<Option<Self>, Invalid> {
        if let Some(deadline) = Self::handed_on(request) {
            return Ok(Some(deadline));
        }
        Ok(parse_timeout(request.headers())?.and_then(|timeout| Self::within(timeout, now)))
    }

    /// The deadline that a layer further out has handed on, or that the caller has put into the
    /// request's extensions.
    pub fn handed_on<B>(request: &http::Request<B>) -> Option<Self> {
        let of_call = Call::find(request).and_then(Call::deadline);
        of_call.or_else(|| request.extensions().get().copied())
    }

    /// `timeout` from `now`; `None` where that is ten years or more, such as `Duration::MAX`: for
    /// ever.
    pub fn within(timeout: Duration, now: Instant) -> Option<Self> {
        const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
        (timeout < FOR_EVER).then(|| Self::after(timeout, now))
    }

    /// `timeout` from `now`; a timeout too long for the clock is 30 years.
    pub fn after(timeout: Duration, now: Instant) -> Self {
        Self(clock::later(now, timeout))
    }

    /// What remains at `now`; zero once it has passed.
    pub fn remaining(self, now: Instant) -> Duration {
        self.0.saturating_duration_since(now)
    }

    /// Whether there is nothing left at `now`.
    pub fn has_passed(self, now: Instant) -> bool {
        self.0 <= now
    }

    /// Writes what remains at `now` to `grpc-timeout`.
    pub fn stamp(self, headers: &mut HeaderMap, now: Instant) {
        headers::set(headers, &GRPC_TIMEOUT, encode_timeout(self.remaining(now)));
    }
}

/// Whether an attempt that is given up after `waited` is given up because of its `timeout`. Two
/// clock readings and the header's rounding lie between its timer and this, so a millisecond is
/// allowed for.
pub fn is_why(timeout: Duration, waited: Duration) -> bool {
    timeout <= waited.saturating_add(SLACK)
}

/// What may lie between two readings of the clock for one timer.
pub(crate) const SLACK: Duration = Duration::from_millis(1);

/// Takes off `grpc-timeout`, if it is there, what a request has `waited` since it was told: the
/// server is to be told what is left when the request is sent.
pub fn take_off(headers: &mut HeaderMap, waited: Duration) {
    if let Ok(Some(told)) = parse_timeout(headers) {
        headers::set(headers, &GRPC_TIMEOUT, encode_timeout(told.saturating_sub(waited)));
    }
}

/// Reads `grpc-timeout`: 1 to 8 digits and a unit, one of `H M S m u n`.
///
/// ```
/// use cinchona_core::deadline::parse_timeout;
/// use http::HeaderMap;
/// use std::time::Duration;
///
/// let mut headers = HeaderMap::new();
/// assert_eq!(parse_timeout(&headers), Ok(None));
/// headers.insert("grpc-timeout", "250m".parse().unwrap());
/// assert_eq!(parse_timeout(&headers), Ok(Some(Duration::from_millis(250))));
/// headers.insert("grpc-timeout", "2 s".parse().unwrap());
/// assert!(parse_timeout(&headers).is_err());
/// ```
///
/// # Errors
/// [`Invalid`] when the value has any other form.
pub fn parse_timeout(headers: &HeaderMap) -> Result<Option<Duration>, Invalid> {
    let Some(value) = headers::get(headers, &GRPC_TIMEOUT) else { return Ok(None) };
    let refuse = || {
        let value = String::from_utf8_lossy(value.as_bytes());
        Invalid::new("grpc-timeout", value, "1 to 8 digits and one of H, M, S, m, u, n")
    };
    let Some((unit, digits)) = value.as_bytes().split_last() else { return Err(refuse()) };
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(refuse());
    }
    let amount = digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    let timeout = match unit {
        b'H' => Duration::from_secs(amount * 3600),
        b'M' => Duration::from_secs(amount * 60),
        b'S' => Duration::from_secs(amount),
        b'm' => Duration::from_millis(amount),
        b'u' => Duration::from_micros(amount),
        b'n' => Duration::from_nanos(amount),
        _ => return Err(refuse()),
    };
    Ok(Some(timeout))
}

/// `timeout` in the finest unit that takes at most 8 digits, rounded down so that the peer never
/// works for longer than the caller waits; at least `1n`, as zero is not a legal value.
pub fn encode_timeout(timeout: Duration) -> HeaderValue {
    const MOST: u64 = 99_999_999;
    const UNITS: [(u64, u8); 5] = [
        (1, b'n'),
        (1_000, b'u'),
        (1_000_000, b'm'),
        (1_000_000_000, b'S'),
        (60_000_000_000, b'M'),
    ];
    let nanos = clock::nanos(timeout).max(1);
    let fits = |(size, _): &(u64, u8)| nanos < (MOST + 1).saturating_mul(*size);
    match UNITS.into_iter().find(fits) {
        Some((size, unit)) => digits_and_unit(nanos / size, unit),
        // More than 190 years, which `nanos` cannot hold in full.
        None => digits_and_unit((timeout.as_secs() / 3600).min(MOST), b'H'),
    }
}

/// Formats by hand: this is written for every attempt.
fn digits_and_unit(mut amount: u64, unit: u8) -> HeaderValue {
    let mut text = [unit; 9];
    let mut start = text.len() - 1;
    loop {
        start -= 1;
        text[start] = b'0' + (amount % 10) as u8;
        amount /= 10;
        if amount == 0 || start == 0 {
            break;
        }
    }
    HeaderValue::from_bytes(&text[start..]).unwrap_or_else(|_| HeaderValue::from_static("1n"))
}

// === impl Elapsed ===

impl Elapsed {
    /// Ends a call with `DEADLINE_EXCEEDED` and `message`.
    pub fn new(message: impl Into<String>) -> Self {
        Self(Status::deadline_exceeded(message))
    }
}

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.message())
    }
}

impl Error for Elapsed {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Option<Duration>, Invalid> {
        parse_timeout(&HeaderMap::from_iter([(GRPC_TIMEOUT, text.parse().unwrap())]))
    }

    #[test]
    fn every_unit_is_read() {
        let nanos = |text| parse(text).unwrap().unwrap().as_nanos();
        assert_eq!(nanos("00000001n"), 1);
        assert_eq!(nanos("10u"), 10_000);
        assert_eq!(nanos("00000010m"), 10_000_000);
        assert_eq!(nanos("1234S"), 1_234_000_000_000);
        assert_eq!(nanos("00000001M"), 60_000_000_000);
        assert_eq!(nanos("99999999H"), 99_999_999 * 3_600_000_000_000);
        assert_eq!(nanos("0S"), 0);
    }

    #[test]
    fn ten_years_are_for_ever() {
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
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains("1 to 8 digits"), "{error}");
        }
    }

    #[test]
    fn the_finest_unit_of_eight_digits_is_written() {
        let text = |nanos| encode_timeout(Duration::from_nanos(nanos));
        assert_eq!(text(0), "1n");
        assert_eq!(text(99_999_999), "99999999n");
        assert_eq!(text(123_456_789), "123456u");
        assert_eq!(text(500_000_000), "500000u");
        assert_eq!(text(3_600_000_000_000), "3600000m");
        assert_eq!(encode_timeout(Duration::MAX), "99999999H");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_never_longer(nanos in 1..u64::MAX) {
            let timeout = Duration::from_nanos(nanos);
            let headers = HeaderMap::from_iter([(GRPC_TIMEOUT, encode_timeout(timeout))]);
            let read = parse_timeout(&headers).unwrap().unwrap();
            prop_assert!(read <= timeout);
            prop_assert!(read.as_secs_f64() >= timeout.as_secs_f64() * 0.999_998);
        }

        #[test]
        fn no_value_makes_parsing_panic(text in "[ -~]{0,12}") {
            let _ = parse(&text);
        }
    }
}
