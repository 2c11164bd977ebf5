//! Whatever the values, one a line: a wait for one integer of 32 bits that is not negative, and no
//! retry for anything else.
#![no_main]

use cinchona_plumbing::status::{Pushback, pushback};
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use std::time::Duration;

fn expected(values: &[&[u8]]) -> Option<Pushback> {
    let [value] = values else { return (!values.is_empty()).then_some(Pushback::Stop) };
    let digits = value.strip_prefix(b"+").or(value.strip_prefix(b"-")).unwrap_or(value);
    let mut millis = 0_u64;
    for digit in digits {
        millis = match digit {
            b'0'..=b'9' => millis.saturating_mul(10).saturating_add(u64::from(digit - b'0')),
            _ => return Some(Pushback::Stop),
        };
    }
    let is_negative = value.starts_with(b"-") && millis > 0;
    let is_sound = !digits.is_empty() && !is_negative && millis <= i32::MAX as u64;
    Some(if is_sound { Pushback::After(Duration::from_millis(millis)) } else { Pushback::Stop })
}

fuzz_target!(|bytes: &[u8]| {
    let lines = bytes.split(|byte| *byte == b'\n').take(10);
    let values: Vec<&[u8]> = lines.filter(|line| HeaderValue::from_bytes(line).is_ok()).collect();
    let mut headers = HeaderMap::new();
    for value in &values {
        let value = HeaderValue::from_bytes(value).expect("it was one before");
        headers.append("grpc-retry-pushback-ms", value);
    }
    assert_eq!(pushback(&headers), expected(&values));
});
