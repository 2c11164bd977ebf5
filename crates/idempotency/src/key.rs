//! The key of a call, and the fingerprint of its request.

use crate::{
    compression::{Compressed, ENCODINGS},
    counters::Cells,
    message::{Message, framed, is_protobuf},
    refusal,
    settings::DedupSettings,
};
use cinchona_core::IDEMPOTENCY_KEY;
use http::Request;
use std::borrow::Cow;
use tonic::Status;
use xxhash_rust::xxh3::xxh3_128;

/// The longest key, in bytes.
const LONGEST: usize = 255;

/// The key in the store, and the fingerprint that distinguishes requests under one key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) key: Vec<u8>,
    pub(crate) fingerprint: u128,
}

/// The key of the request with this `body`, if any: the `request_id` in its message if set, else
/// its header. A message that cannot be read is refused, or counted.
///
/// The field takes precedence, as the caller sets it deliberately, whereas a client layer sets a
/// header on every call.
pub(crate) fn name<B>(
    settings: &DedupSettings,
    cells: &Cells,
    request: &Request<B>,
    body: &[u8],
) -> Result<Option<Name>, Status> {
    let (path, headers) = (request.uri().path(), request.headers());
    let header = headers.get(IDEMPOTENCY_KEY);
    let has_field = settings.methods.request_id_field(path).is_some();
    if header.is_none() && !has_field {
        return Ok(None);
    }
    let unreadable = |why| {
        cells.unreadable.count();
        unreadable(why, settings.request_limit)
    };
    let message = Message::of(headers, body, settings.request_limit).map_err(unreadable)?;
    let is_protobuf = is_protobuf(headers);
    let field = match &message {
        Message::Whole(message) if is_protobuf => {
            let id = settings.methods.request_id(path, message);
            id.map_err(|_| unreadable(Compressed::Broken))?
        }
        Message::Unframed if has_field => return Err(unreadable(Compressed::Broken)),
        _ => None,
    };
    let key = match (field, header) {
        (Some(key), _) => checked("request_id", key)?,
        (None, Some(key)) => checked(IDEMPOTENCY_KEY.as_str(), key.as_bytes())?,
        (None, None) => {
            if !is_protobuf {
                cells.unreadable.count();
            }
            return Ok(None);
        }
    };
    let caller = settings.callers.of(headers, request.extensions())?;
    let fingerprint = match &message {
        _ if settings.key_alone.get(path) == Some(&true) => 0,
        Message::Whole(message) => {
            let form = match is_protobuf {
                true => settings.methods.canonical_request(path, message),
                false => Cow::Borrowed(&**message),
            };
            match (message, form) {
                // Usually it is in the body unchanged.
                (Cow::Borrowed(_), Cow::Borrowed(_)) => xxh3_128(body),
                (_, form) => xxh3_128(&framed(&form)),
            }
        }
        _ => xxh3_128(body),
    };
    Ok(Some(Name { key: stored(path, key, caller), fingerprint }))
}

/// gRPC's status for messages that cannot be read ([compression]).
///
/// [compression]: https://github.com/grpc/grpc/blob/master/doc/compression.md
fn unreadable(why: Compressed, limit: usize) -> Status {
    match why {
        Compressed::Unknown => refusal::unknown_compression(ENCODINGS),
        Compressed::Unsaid => refusal::unreadable("it is compressed, and does not say by what"),
        Compressed::Broken => refusal::unreadable("it is broken"),
        Compressed::TooLarge => refusal::request_too_large(limit),
    }
}

fn checked<'a>(place: &str, key: &'a [u8]) -> Result<&'a str, Status> {
    let is_sound = (1..=LONGEST).contains(&key.len())
        && key.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
    let key = if is_sound { std::str::from_utf8(key).ok() } else { None };
    key.ok_or_else(|| refusal::malformed_key(place, LONGEST))
}

/// The key in the store. No two calls of different methods, keys or callers have the same one:
/// neither a path nor a key contains a zero byte, and the caller comes last.
pub(crate) fn stored(path: &str, key: &str, caller: impl AsRef<[u8]>) -> Vec<u8> {
    [path.as_bytes(), key.as_bytes(), caller.as_ref()].join(&0)
}

/// The caller in the key made by [`stored`].
pub(crate) fn caller_of(key: &[u8]) -> &[u8] {
    key.splitn(3, |byte| *byte == 0).nth(2).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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

    /// It is for the handler to say so.
    #[test]
    fn a_message_that_cannot_be_read_is_refused_only_where_it_may_have_a_request_id() {
        let settings = DedupSettings::new(crate::tests::methods());
        let of = |path: &str| {
            let request = Request::post(path).header(IDEMPOTENCY_KEY, "k").body(()).unwrap();
            name(&settings, &Cells::default(), &request, &[0, 0])
        };
        assert_eq!(of("/Bank/Pay").unwrap_err().code(), tonic::Code::Internal);
        let Name { key, fingerprint } = of("/Other/Call").unwrap().unwrap();
        assert_eq!((&key[..14], fingerprint), (&b"/Other/Call\0k\0"[..], xxh3_128(&[0, 0])));
    }

    proptest! {
        #[test]
        fn the_caller_is_found_in_the_key_whatever_it_is(
            key in "[ -~]{1,20}", caller in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let stored = stored("/Bank/Pay", &key, &caller);
            prop_assert_eq!(caller_of(&stored), &caller);
        }
    }
}
