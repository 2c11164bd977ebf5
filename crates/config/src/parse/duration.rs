//! Durations in proto3 JSON.

use serde_json::Value;
use std::time::Duration;

/// The range of a `google.protobuf.Duration`, 10 000 years.
const MOST_SECONDS: u64 = 315_576_000_000;

const DECIMALS: usize = 9;

/// A string such as `"1.5s"`: digits, up to nine decimals, and an `s`. A negative one is refused,
/// since no field of a service config may be negative.
pub(super) fn parse(value: &Value) -> Option<Duration> {
    let text = value.as_str()?.strip_suffix('s')?;
    let (is_negative, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let (seconds, nanos) = match text.split_once('.') {
        Some((seconds, decimals)) => (digits(seconds)?, nanos(decimals)?),
        None => (digits(text)?, 0),
    };
    let duration = Duration::new(seconds, nanos);
    let is_in_range = duration <= Duration::from_secs(MOST_SECONDS);
    (is_in_range && (!is_negative || duration.is_zero())).then_some(duration)
}

fn nanos(decimals: &str) -> Option<u32> {
    if decimals.len() > DECIMALS {
        return None;
    }
    u32::try_from(digits(&format!("{decimals:0<DECIMALS$}"))?).ok().filter(|_| !decimals.is_empty())
}

/// `str::parse` would take a `+` as well.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Duration> {
        parse(&Value::from(text))
    }

    #[test]
    fn a_duration_keeps_every_nanosecond() {
        for (text, seconds, nanos) in [
            ("0s", 0, 0),
            ("-0s", 0, 0),
            ("-0.000s", 0, 0),
            ("1s", 1, 0),
            ("007.5s", 7, 500_000_000),
            ("1.000000001s", 1, 1),
            ("0.0000001s", 0, 100),
            ("0.999999999s", 0, 999_999_999),
            ("00000000000000000000000000002s", 2, 0),
            ("315576000000s", 315_576_000_000, 0),
            ("315576000000.000s", 315_576_000_000, 0),
        ] {
            assert_eq!(read(text), Some(Duration::new(seconds, nanos)), "{text}");
        }
    }

    #[test]
    fn what_is_not_digits_with_at_most_nine_decimals_and_an_s_is_no_duration() {
        for text in [
            "",
            "s",
            "-s",
            ".s",
            "1",
            "1.5",
            ".5s",
            "1.s",
            "+1s",
            "--1s",
            "1.+5s",
            "1.-5s",
            " 1s",
            "1 s",
            "1s ",
            "1S",
            "1ss",
            "1ms",
            "1m",
            "1e3s",
            "1,5s",
            "1.5.5s",
            "0x1s",
            "१s",
            "1.0000000000s",
            "1.é00000000s",
            "-1s",
            "-0.000000001s",
            "inf s",
            "NaNs",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        for value in [Value::from(1), Value::from(1.5), Value::Bool(true), Value::from(vec!["1s"])]
        {
            assert_eq!(parse(&value), None, "{value}");
        }
    }

    #[test]
    fn a_duration_beyond_10_000_years_is_refused() {
        for text in [
            "315576000001s",
            "315576000000.000000001s",
            "18446744073709551615.999999999s",
            "18446744073709551616s",
            "99999999999999999999999999999999s",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
