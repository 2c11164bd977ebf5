//! Whatever a response head says, a line each for its HTTP status, `grpc-status`, `grpc-message`,
//! its details and its pushback: one code, the one that gRPC says, and one pushback, by headers and
//! by status.
#![no_main]

use cinchona_core::Verdict;
use cinchona_plumbing::status;
use http::{HeaderValue, Response};
use libfuzzer_sys::fuzz_target;
use tonic::Code;

const NAMES: [&str; 4] =
    ["grpc-status", "grpc-message", "grpc-status-details-bin", "grpc-retry-pushback-ms"];

/// doc/http-grpc-status-mapping.md, and for a `grpc-status` the numbers of doc/statuscodes.md.
fn expected(http: u16, code: Option<&[u8]>) -> Code {
    match (code, http) {
        (Some(code), _) => {
            let is_it = |known: &i32| known.to_string().as_bytes() == code;
            (0..=16).find(is_it).map_or(Code::Unknown, Code::from_i32)
        }
        (None, 400 | 431) => Code::Internal,
        (None, 401) => Code::Unauthenticated,
        (None, 403) => Code::PermissionDenied,
        (None, 404) => Code::Unimplemented,
        (None, 429 | 502 | 503 | 504) => Code::Unavailable,
        (None, _) => Code::Unknown,
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut lines = bytes.splitn(5, |byte| *byte == b'\n');
    let http = lines.next().and_then(|line| std::str::from_utf8(line).ok()?.parse().ok());
    let mut response = Response::new(tonic::body::Body::empty());
    *response.status_mut() =
        http.and_then(|http| http::StatusCode::from_u16(http).ok()).unwrap_or_default();
    for (name, value) in NAMES.into_iter().zip(lines) {
        // No value at all where the line is a dash.
        if let Some(value) = HeaderValue::from_bytes(value).ok().filter(|value| value != "-") {
            response.headers_mut().insert(name, value);
        }
    }
    let code = response.headers().get("grpc-status").map(HeaderValue::as_bytes);
    let expected = expected(response.status().as_u16(), code);
    let (verdict, whole) = (Verdict::of_head(&response), status::of_head(&response));
    assert_eq!((verdict.code(), whole.code()), (expected, expected));
    assert_eq!(status::from_headers(response.headers()).is_some(), code.is_some());
    if code.is_some() && expected != Code::Ok {
        assert_eq!(status::pushback(response.headers()), status::pushback_of(&whole));
    }
});
