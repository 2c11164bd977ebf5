//! Whatever the value: it is read as the grammar says it, and what is written anew is never longer,
//! nor shorter by more than eight digits cannot say.
#![no_main]

use cinchona_core::Deadline;
use cinchona_plumbing::timeout::{GRPC_TIMEOUT, encode_timeout};
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use std::time::Duration;

/// `1*8DIGIT ( "H" / "M" / "S" / "m" / "u" / "n" )`, in nanoseconds.
fn expected(text: &str) -> Option<u128> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let is_sound = (1..=8).contains(&digits.len()) && digits.chars().all(|c| c.is_ascii_digit());
    let nanos = match unit {
        "H" => 3_600_000_000_000,
        "M" => 60_000_000_000,
        "S" => 1_000_000_000,
        "m" => 1_000_000,
        "u" => 1_000,
        "n" => 1,
        _ => return None,
    };
    is_sound.then(|| digits.parse::<u128>().expect("they are digits") * nanos)
}

fn read(value: HeaderValue) -> Option<Duration> {
    let headers = HeaderMap::from_iter([(GRPC_TIMEOUT, value)]);
    Deadline::parse_timeout(&headers).ok().map(|timeout| timeout.expect("it is there"))
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    let timeout = read(value);
    let expected = std::str::from_utf8(bytes).ok().and_then(expected);
    assert_eq!(timeout.map(|timeout| timeout.as_nanos()), expected);
    let Some(timeout) = timeout.filter(|timeout| !timeout.is_zero()) else { return };
    let written = encode_timeout(timeout);
    assert!(written.len() <= 9);
    let again = read(written).expect("what is written can be read");
    assert!(again <= timeout && timeout - again <= timeout / 1_000_000);
});
