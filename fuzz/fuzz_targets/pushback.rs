//! Whatever the values: no panic, and a wait only for one integer of 32 bits that is not negative.
#![no_main]

use cinchona_plumbing::status::{Pushback, pushback};
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|values: Vec<&[u8]>| {
    let mut headers = HeaderMap::new();
    for value in values.iter().take(10) {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append("grpc-retry-pushback-ms", value);
        }
    }
    let number = headers.len();
    match pushback(&headers) {
        None => assert_eq!(number, 0),
        Some(Pushback::After(wait)) => {
            assert!(number == 1 && wait.as_millis() <= i32::MAX as u128);
        }
        Some(Pushback::Stop) => assert!(number > 0),
    }
});
