//! What a call is called.

use crate::refusal;
use bytes::Bytes;
use cinchona_core::{IDEMPOTENCY_KEY, Methods};
use http::Request;
use tonic::Status;

/// The longest key, in bytes.
const LONGEST: usize = 255;

/// Length and compression flag before a message.
const PREFIX: usize = 5;

/// The key of a call: the `request_id` in its message if that is set, else its header.
///
/// The field comes first, as a caller sets it knowingly, whereas a client layer puts a header on
/// every call.
pub(crate) fn of<'a, B>(
    request: &'a Request<B>,
    body: &'a Bytes,
    methods: &Methods,
) -> Result<Option<&'a str>, Status> {
    let field = methods.request_id_field(request.uri().path());
    if let Some(key) = field.and_then(|number| string_field(body, number)) {
        return checked("request_id", key).map(Some);
    }
    let header = request.headers().get(IDEMPOTENCY_KEY);
    header.map(|key| checked(IDEMPOTENCY_KEY.as_str(), key.as_bytes())).transpose()
}

fn checked<'a>(place: &str, key: &'a [u8]) -> Result<&'a str, Status> {
    let is_sound = (1..=LONGEST).contains(&key.len())
        && key.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
    let key = if is_sound { std::str::from_utf8(key).ok() } else { None };
    key.ok_or_else(|| refusal::malformed_key(place, LONGEST))
}

/// Under what a call is stored. No two calls of different methods, keys or callers have the same:
/// neither a path nor a key contains a zero byte, and whatever a caller contains comes last.
pub(crate) fn stored(path: &str, key: &str, caller: &str) -> Vec<u8> {
    [path, key, caller].join("\0").into_bytes()
}

/// The last value of a string field of the message in `body`, unless it is empty, which means in
/// proto3 that it was not set. `None` as well where the message is compressed or broken.
fn string_field(body: &[u8], number: u32) -> Option<&[u8]> {
    let (0, mut rest) = (*body.first()?, body.get(PREFIX..)?) else { return None };
    let mut found = None;
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        let value = match tag & 7 {
            0 => {
                varint(&mut rest)?;
                None
            }
            1 => take(&mut rest, 8).map(|_| None)?,
            2 => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                Some(take(&mut rest, length)?)
            }
            5 => take(&mut rest, 4).map(|_| None)?,
            _ => return None,
        };
        if tag >> 3 == u64::from(number) && value.is_some() {
            found = value;
        }
    }
    found.filter(|value| !value.is_empty())
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    prost::encoding::decode_varint(rest).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use cinchona_testkit::encode;
    use proptest::prelude::*;
    use prost_types::{Any, FileDescriptorSet};

    fn message(type_url: &str) -> Bytes {
        encode(&Any { type_url: type_url.into(), value: vec![1, 2] })
    }

    #[test]
    fn a_string_field_is_found_wherever_it_stands() {
        assert_eq!(string_field(&message("k1"), 1), Some(&b"k1"[..]));
        assert_eq!(string_field(&message(""), 1), None, "empty is not set");
        assert_eq!(string_field(&message("k1"), 3), None);
        // fixed64 4, varint 5, fixed32 6, then the field, twice.
        let body = [
            &[0, 0, 0, 0, 26, 33, 1, 2, 3, 4, 5, 6, 7, 8, 40, 0x96, 1, 53, 1, 2, 3, 4][..],
            &[10, 1, b'a', 10, 1, b'b'],
        ];
        assert_eq!(string_field(&body.concat(), 1), Some(&b"b"[..]), "the last one wins");
        let mut compressed = message("k1").to_vec();
        compressed[0] = 1;
        assert_eq!(string_field(&compressed, 1), None);
    }

    #[test]
    fn a_key_is_1_to_255_bytes_of_ascii() {
        let longest = "k".repeat(LONGEST);
        for key in ["k", "a b~!", &longest] {
            assert_eq!(checked("here", key.as_bytes()).unwrap(), key);
        }
        for key in ["", "ü", "a\nb", "a\0b", &(longest.clone() + "k")] {
            let refused = checked("here", key.as_bytes()).unwrap_err();
            assert_eq!(refused.code(), tonic::Code::InvalidArgument);
            assert!(refused.message().starts_with("here: "), "{refused}");
        }
    }

    #[test]
    fn a_header_is_the_key_where_the_message_has_none() {
        let methods = Methods::from_file_descriptor_set(&prost::Message::encode_to_vec(
            &FileDescriptorSet::default(),
        ));
        let (methods, body) = (methods.unwrap(), message("k1"));
        let request = Request::builder().header("idempotency-key", "k2");
        let request = request.body(()).unwrap();
        assert_eq!(of(&request, &body, &methods).unwrap(), Some("k2"));
        assert_eq!(of(&Request::new(()), &body, &methods).unwrap(), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_reading_a_field_panic(body in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = string_field(&body, 1);
        }
    }
}
