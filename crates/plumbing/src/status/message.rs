//! The message of a received status.

use crate::headers;
use http::{HeaderMap, HeaderValue};
use tonic::{Code, Status};

/// Makes `grpc-message` readable for tonic: if it is not UTF-8 after decoding, tonic replaces the
/// whole status by `UNKNOWN`. The code must not be lost for that ([PROTOCOL-HTTP2]: invalid values
/// must not be discarded), so invalid bytes become U+FFFD.
///
/// [PROTOCOL-HTTP2]: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#responses
pub(super) fn mend(headers: &mut HeaderMap) {
    let sent = headers::get(headers, &Status::GRPC_MESSAGE).filter(|sent| !is_text(sent));
    let Some(sent) = sent.map(|sent| decoded(sent.as_bytes())) else { return };
    let status = Status::new(Code::Unknown, String::from_utf8_lossy(&sent));
    let mut sound = HeaderMap::new();
    if status.add_header(&mut sound).is_ok()
        && let Some(message) = sound.remove(Status::GRPC_MESSAGE)
    {
        headers.insert(Status::GRPC_MESSAGE, message);
    }
}

/// Whether tonic can read it.
pub(super) fn is_text(message: &HeaderValue) -> bool {
    let bytes = message.as_bytes();
    let is_plain = bytes.iter().all(|byte| byte.is_ascii() && *byte != b'%');
    is_plain || str::from_utf8(&decoded(bytes)).is_ok()
}

/// Percent-decodes; malformed escapes are kept.
fn decoded(mut rest: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let mut out = Vec::with_capacity(rest.len());
    while let [first, after @ ..] = rest {
        let encoded = match rest {
            [b'%', high, low, ..] => digit(*high).zip(digit(*low)),
            _ => None,
        };
        let (byte, left) = match encoded {
            Some((high, low)) => (high << 4 | low, &after[2..]),
            None => (*first, after),
        };
        out.push(byte);
        rest = left;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{from_headers, mend as mend_all};

    fn failure(message: &[u8]) -> HeaderMap {
        let message = HeaderValue::from_bytes(message).unwrap();
        let code = HeaderValue::from_static("8");
        HeaderMap::from_iter([(Status::GRPC_STATUS, code), (Status::GRPC_MESSAGE, message)])
    }

    #[test]
    fn an_invalid_message_does_not_lose_the_code() {
        for (sent, read) in [
            (&b"full"[..], "full"),
            (b"100%", "100%"),
            (b"%E2%82%ac %2", "\u{20ac} %2"),
            (b"f%FFll", "f\u{fffd}ll"),
            (b"f\xffll %41", "f\u{fffd}ll A"),
            (b"%E2%82", "\u{fffd}"),
        ] {
            let mut headers = failure(sent);
            let status = from_headers(&headers).unwrap();
            assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, read));
            mend_all(&mut headers);
            let status = Status::from_header_map(&headers).unwrap();
            assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, read));
        }
    }
}
