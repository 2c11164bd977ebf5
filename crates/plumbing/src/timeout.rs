//! The form of a deadline on the wire: `grpc-timeout`.

use crate::{clock, headers};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::time::Duration;

/// The header with the time that the caller is going to wait.
pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Whether an attempt that is abandoned after `waited` ran into its `timeout`. Two clock readings
/// and the header's rounding lie between its timer and this, so a millisecond is tolerated.
pub fn is_why(timeout: Duration, waited: Duration) -> bool {
    timeout <= waited.saturating_add(SLACK)
}

/// The tolerance between two readings of the clock for one timer.
pub const SLACK: Duration = Duration::from_millis(1);

/// Subtracts from `grpc-timeout`, if present, the time that a request has `waited` since it was
/// written: the header holds the remaining time when the request is sent.
pub fn take_off(headers: &mut HeaderMap, waited: Duration) {
    if let Ok(Some(sent)) = parse_timeout(headers) {
        headers::set(headers, &GRPC_TIMEOUT, encode_timeout(sent.saturating_sub(waited)));
    }
}

/// Reads `grpc-timeout`: 1 to 8 digits and a unit, one of `H M S m u n`.
///
/// ```
/// use cinchona_plumbing::timeout::parse_timeout;
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
/// The value, if it has any other form.
pub fn parse_timeout(headers: &HeaderMap) -> Result<Option<Duration>, &HeaderValue> {
    headers::get(headers, &GRPC_TIMEOUT).map(read_timeout).transpose()
}

/// Reads the value of `grpc-timeout`.
///
/// # Errors
/// The value, if it has another form.
pub fn read_timeout(value: &HeaderValue) -> Result<Duration, &HeaderValue> {
    let Some((unit, digits)) = value.as_bytes().split_last() else { return Err(value) };
    if !(1..=8).contains(&digits.len()) {
        return Err(value);
    }
    let mut amount = 0;
    for digit in digits {
        match digit.wrapping_sub(b'0') {
            digit @ 0..=9 => amount = amount * 10 + u64::from(digit),
            _ => return Err(value),
        }
    }
    Ok(match unit {
        b'H' => Duration::from_secs(amount * 3600),
        b'M' => Duration::from_secs(amount * 60),
        b'S' => Duration::from_secs(amount),
        b'm' => Duration::from_millis(amount),
        b'u' => Duration::from_micros(amount),
        b'n' => Duration::from_nanos(amount),
        _ => return Err(value),
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Option<Duration>, HeaderValue> {
        let headers = HeaderMap::from_iter([(GRPC_TIMEOUT, text.parse().unwrap())]);
        parse_timeout(&headers).map_err(Clone::clone)
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
