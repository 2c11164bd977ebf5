//! The message of a request, as its handler sees it.

use crate::compression::{Compressed, decompress};
use bytes::{BufMut, Bytes, BytesMut};
use cinchona_plumbing::{PREFIX, first_message};
use http::{HeaderMap, header::CONTENT_TYPE};
use std::borrow::Cow;

/// The content of the body of a unary request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    /// The first message, without its prefix, which is the one that the handler receives.
    Whole(Cow<'a, [u8]>),
    /// No message at all.
    Nothing,
    /// Bytes without a complete message.
    Unframed,
}

// === impl Message ===

impl<'a> Message<'a> {
    /// Reads the body of a request; a message may have `limit` bytes.
    pub(crate) fn of(
        headers: &HeaderMap,
        body: &'a [u8],
        limit: usize,
    ) -> Result<Self, Compressed> {
        if body.is_empty() {
            return Ok(Self::Nothing);
        }
        match first_message(body) {
            None => Ok(Self::Unframed),
            Some((0, message, _)) => Ok(Self::Whole(Cow::Borrowed(message))),
            Some((1, message, _)) => {
                let encoding = headers.get("grpc-encoding").map(|value| value.as_bytes());
                Ok(Self::Whole(Cow::Owned(decompress(encoding, message, limit)?)))
            }
            Some(_) => Err(Compressed::Broken),
        }
    }
}

/// `message` with the prefix of an uncompressed one.
pub(crate) fn framed(message: &[u8]) -> Bytes {
    let mut body = BytesMut::with_capacity(PREFIX + message.len());
    body.put_u8(0);
    body.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    body.put_slice(message);
    body.freeze()
}

/// Whether the messages of a request are protobuf, which is the default.
pub(crate) fn is_protobuf(headers: &HeaderMap) -> bool {
    let Some(content_type) = headers.get(CONTENT_TYPE) else { return true };
    let kind = content_type.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    match kind.iter().position(|byte| *byte == b'+') {
        Some(plus) => kind[plus + 1..].trim_ascii().eq_ignore_ascii_case(b"proto"),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compression::tests::compress;

    fn frame(flag: u8, message: &[u8]) -> Vec<u8> {
        let mut body = framed(message).to_vec();
        body[0] = flag;
        body
    }

    #[test]
    fn the_message_is_what_the_handler_is_given() {
        let mut headers = HeaderMap::new();
        let whole = |bytes: &'static [u8]| Ok(Message::Whole(Cow::Borrowed(bytes)));
        let two = [framed(b"ab"), framed(b"c")].concat();
        for (body, expected) in [
            (framed(b"ab").to_vec(), whole(b"ab")),
            (framed(b"").to_vec(), whole(b"")),
            (two, whole(b"ab")),
            (Vec::new(), Ok(Message::Nothing)),
            (vec![0, 0, 0], Ok(Message::Unframed)),
            (vec![0, 0, 0, 0, 2, 1], Ok(Message::Unframed)),
            (frame(2, b"ab"), Err(Compressed::Broken)),
            (frame(1, b"ab"), Err(Compressed::Unsaid)),
        ] {
            assert_eq!(Message::of(&headers, &body, 100), expected, "{body:?}");
        }
        for encoding in ["gzip", "deflate", "zstd"] {
            headers.insert("grpc-encoding", encoding.parse().unwrap());
            let body = frame(1, &compress(encoding, b"ab"));
            assert_eq!(Message::of(&headers, &body, 2), whole(b"ab"));
            assert_eq!(Message::of(&headers, &body, 1), Err(Compressed::TooLarge));
            assert_eq!(Message::of(&headers, &framed(b"ab"), 2), whole(b"ab"), "flag 0");
        }
    }

    #[test]
    fn a_message_declared_as_another_codec_is_not_protobuf() {
        for (content_type, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc+proto; charset=utf-8", true),
            ("application/grpc;x=a+b", true),
            ("application/grpc+json", false),
            ("application/grpc+thrift", false),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, content_type.parse().unwrap())]);
            assert_eq!(is_protobuf(&headers), expected, "{content_type}");
        }
        assert!(is_protobuf(&HeaderMap::new()));
    }
}
