//! Whatever the message: the `request_id` that is found is the one that protobuf reads, and the one
//! form of a message is one, and says the same.
#![no_main]

use calculator::pb::{
    AppendRequest, BinaryOperation, CounterRequest, DeleteRequest, IncrementRequest,
    SetValueRequest, WithdrawRequest,
};
use cinchona_core::Methods;
use libfuzzer_sys::fuzz_target;
use prost::Message;
use std::sync::LazyLock;

static METHODS: LazyLock<Methods> = LazyLock::new(calculator::methods);

fuzz_target!(|message: &[u8]| {
    let named = [
        check("Calculator/IncrementCounter", message, |it: &CounterRequest| &it.request_id),
        check("Store/SetValue", message, |it: &SetValueRequest| &it.request_id),
        check("Store/Delete", message, |it: &DeleteRequest| &it.request_id),
        check("Store/Increment", message, |it: &IncrementRequest| &it.request_id),
        check("Store/Append", message, |it: &AppendRequest| &it.request_id),
        check("Store/Withdraw", message, |it: &WithdrawRequest| &it.request_id),
    ];
    assert_eq!(named, [true; 6], "each of these methods has a request_id");
    assert!(!check("Calculator/Add", message, |_: &BinaryOperation| ""));
});

/// Whether requests to the method have an id.
fn check<T: Message + Default + PartialEq>(
    method: &str,
    message: &[u8],
    id: fn(&T) -> &str,
) -> bool {
    let path = format!("/calculator.{method}");
    let found = METHODS.request_id(&path, message);
    let canonical = METHODS.canonical_request(&path, message);
    assert_eq!(METHODS.canonical_request(&path, &canonical), canonical);
    // What protobuf cannot read, nobody executes.
    if let Ok(read) = T::decode(message) {
        let id = Some(id(&read).as_bytes()).filter(|id| !id.is_empty());
        assert_eq!(found.expect("it can be read"), id);
        // Bit by bit: not a number may be among them.
        let again = T::decode(&*canonical).expect("the one form can be read");
        assert_eq!(again.encode_to_vec(), read.encode_to_vec());
    }
    METHODS.request_id_field(&path).is_some()
}
