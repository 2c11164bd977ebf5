//! Whatever the body of a request: no panic, and a message that can be read is written so that it
//! is read again as the same.
#![no_main]

use lab::pb::{BinaryOperation, CounterRequest};
use libfuzzer_sys::fuzz_target;
use serde::{Serialize, de::DeserializeOwned};

fuzz_target!(|body: &[u8]| {
    check::<BinaryOperation>(body);
    check::<CounterRequest>(body);
});

fn check<T: DeserializeOwned + Serialize>(body: &[u8]) {
    let Ok(message) = serde_json::from_slice::<T>(body) else { return };
    let written = serde_json::to_vec(&message).expect("a message can be written");
    let again: T = serde_json::from_slice(&written).expect("what is written can be read");
    assert_eq!(serde_json::to_vec(&again).expect("a message can be written"), written);
}
