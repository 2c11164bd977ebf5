//! Whatever a response head says: no panic, and one code.
#![no_main]

use cinchona_core::Verdict;
use cinchona_plumbing::status;
use http::{HeaderValue, Response};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u16, &[u8], &[u8], &[u8])| {
    let (http, code, message, details) = input;
    let mut response = Response::new(tonic::body::Body::empty());
    *response.status_mut() = http::StatusCode::from_u16(http).unwrap_or_default();
    let values = [("grpc-status", code), ("grpc-message", message)];
    for (name, value) in values.into_iter().chain([("grpc-status-details-bin", details)]) {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            response.headers_mut().insert(name, value);
        }
    }
    let verdict = Verdict::of_head(&response);
    _ = status::from_headers(response.headers());
    if verdict != Verdict::Ok {
        assert_eq!(status::of_head(&response).code(), verdict.code());
    }
});
