//! Whatever is in the trailers, a line each of which the first byte says the name, twice or not at
//! all: the first code holds, what is mended is sound and stays, and only tonic's own timer changes
//! a code.
#![no_main]

use cinchona_core::Verdict;
use cinchona_plumbing::status;
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use tonic::{Code, Status};

const NAMES: [&str; 6] = [
    "grpc-status",
    "grpc-message",
    "grpc-status-details-bin",
    "grpc-retry-pushback-ms",
    "grpc-previous-rpc-attempts",
    "grpc-timeout",
];

fn read(bytes: &[u8]) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n').take(50) {
        let Some((name, value)) = line.split_first() else { continue };
        if let Ok(value) = HeaderValue::from_bytes(value) {
            let name = NAMES[usize::from(*name) % NAMES.len()];
            trailers.append(HeaderName::from_static(name), value);
        }
    }
    trailers
}

fuzz_target!(|bytes: &[u8]| {
    let mut trailers = read(bytes);
    let code = status::code(&trailers);
    assert_eq!(Verdict::of_trailers(&trailers).code(), code.unwrap_or(Code::Unknown));
    assert_eq!(status::from_headers(&trailers).map(|status| status.code()), code);
    let first = trailers.get("grpc-previous-rpc-attempts").and_then(|value| value.to_str().ok());
    let expected = first.and_then(|text| text.parse().ok()).unwrap_or(0_u32);
    assert_eq!(status::previous_attempts(&trailers), expected);

    status::mend(&mut trailers);
    let mended = trailers.clone();
    status::mend(&mut trailers);
    assert_eq!(trailers, mended);
    // tonic panics where details are not base64.
    let read = Status::from_header_map(&trailers).map(|status| status.code());
    assert_eq!(read, code, "what is mended has the code it had");

    let is_timer = code == Some(Code::Cancelled) && status::says_timeout_expired(&trailers);
    status::correct_timeout(&mut trailers);
    let corrected = if is_timer { Some(Code::DeadlineExceeded) } else { code };
    assert_eq!(status::code(&trailers), corrected);
});
