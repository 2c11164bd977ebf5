//! Whatever is in the trailers, twice or not at all: no panic.
#![no_main]

use cinchona_core::Verdict;
use cinchona_plumbing::status;
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|fields: Vec<(u8, &[u8])>| {
    const NAMES: [&str; 6] = [
        "grpc-status",
        "grpc-message",
        "grpc-status-details-bin",
        "grpc-retry-pushback-ms",
        "grpc-previous-rpc-attempts",
        "grpc-timeout",
    ];
    let mut trailers = HeaderMap::new();
    for (name, value) in fields.iter().take(50) {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            let name = NAMES[usize::from(*name) % NAMES.len()];
            trailers.append(HeaderName::from_static(name), value);
        }
    }
    let verdict = Verdict::of_trailers(&trailers);
    _ = (status::from_headers(&trailers), status::pushback(&trailers));
    _ = status::previous_attempts(&trailers);
    status::correct_timeout(&mut trailers);
    assert_eq!(Verdict::of_trailers(&trailers).code(), verdict.code());
});
