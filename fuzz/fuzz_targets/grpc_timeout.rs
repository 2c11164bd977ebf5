//! Whatever the value: no panic, and what is written anew is never longer.
#![no_main]

use cinchona_core::Deadline;
use cinchona_plumbing::timeout::{GRPC_TIMEOUT, encode_timeout};
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    let headers = HeaderMap::from_iter([(GRPC_TIMEOUT, value)]);
    let Ok(Some(timeout)) = Deadline::parse_timeout(&headers) else { return };
    let again = HeaderMap::from_iter([(GRPC_TIMEOUT, encode_timeout(timeout))]);
    let again = Deadline::parse_timeout(&again).expect("what is written can be read").expect("it is there");
    assert!(again <= timeout || timeout.is_zero());
});
