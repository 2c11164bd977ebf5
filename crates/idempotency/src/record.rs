//! An answer that is kept and replayed.

use crate::message::{Message as Framed, framed};
use bytes::{BufMut, Bytes, BytesMut};
use cinchona_plumbing::{first_message, status};
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header::CONTENT_TYPE, response::Parts,
};
use http_body_util::{BodyExt, Full};
use prost::Message;
use std::{convert::Infallible, future::ready};
use tonic::{Code, Status, body::Body};

/// The response header that marks a replayed answer.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// A stored response. What every OK response has is left out: its content type, and trailers with
/// OK and nothing else.
#[derive(Clone, PartialEq, prost::Message)]
struct Record {
    #[prost(message, repeated, tag = "1")]
    headers: Vec<Header>,
    #[prost(bytes = "bytes", tag = "2")]
    body: Bytes,
    #[prost(message, repeated, tag = "3")]
    trailers: Vec<Header>,
    /// The HTTP status, if it is not 200.
    #[prost(uint32, tag = "4")]
    http: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Header {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

/// A response read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    head: Parts,
    body: Bytes,
    trailers: Option<HeaderMap>,
}

/// Why a body was not read to its end.
#[derive(Debug)]
pub(crate) enum Unread {
    Failed(Status),
    /// This much was read, and there is more.
    TooLarge(Bytes),
}

const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
/// The longest decompressed message of this server's own.
const LONGEST: usize = 64 << 20;
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const OK: HeaderValue = HeaderValue::from_static("0");

/// The record of an OK answer with `message`.
pub fn of_message(message: &impl Message) -> Bytes {
    let record = Record { body: framed(&message.encode_to_vec()), ..Record::default() };
    record.encode_to_vec().into()
}

/// The record of a `status`.
pub(crate) fn of_status(status: Status) -> Bytes {
    let (head, _) = status.into_http::<()>().into_parts();
    Answer { head, body: Bytes::new(), trailers: None }.record()
}

/// The answer in `record`, with `fragment` appended to its message, and marked as replayed; for a
/// caller that accepts these compressions.
pub(crate) fn replay(
    record: Bytes,
    fragment: Option<&[u8]>,
    accepted: Option<&HeaderValue>,
) -> Response<Body> {
    let read = Record::decode(record).ok().and_then(|record| Some((http(record.http)?, record)));
    let Some((http, Record { headers, mut body, trailers, .. })) = read else {
        return Status::data_loss("the record of the first answer cannot be read").into_http();
    };
    let (mut head, ()) = Response::new(()).into_parts();
    let mut headers = map(headers);
    if let Some(encoding) = headers.get(GRPC_ENCODING)
        && (fragment.is_some() || !accepts(accepted, encoding))
        && let Ok(Framed::Whole(message)) = Framed::of(&headers, &body, LONGEST)
    {
        body = framed(&message);
        headers.remove(GRPC_ENCODING);
    }
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    let trailers = match http {
        StatusCode::OK => {
            headers.entry(CONTENT_TYPE).or_insert(GRPC);
            (!headers.contains_key(Status::GRPC_STATUS)).then(|| {
                let mut trailers = map(trailers);
                trailers.entry(Status::GRPC_STATUS).or_insert(OK);
                trailers
            })
        }
        // The status of a failure of HTTP is its own.
        _ => Some(map(trailers)).filter(|trailers| !trailers.is_empty()),
    };
    let body = match fragment {
        Some(fragment) => appended(&body, fragment).unwrap_or(body),
        None => body,
    };
    (head.status, head.headers) = (http, headers);
    Answer { head, body, trailers }.response()
}

fn http(number: u32) -> Option<StatusCode> {
    match number {
        0 => Some(StatusCode::OK),
        number => StatusCode::from_u16(number.try_into().ok()?).ok(),
    }
}

/// `body` with `fragment` appended to its message, if it has one message, uncompressed: of a
/// repeated scalar field the last value counts ([protobuf's encoding]).
///
/// [protobuf's encoding]: https://protobuf.dev/programming-guides/encoding/#last-one-wins
fn appended(body: &[u8], fragment: &[u8]) -> Option<Bytes> {
    let Some((0, message, [])) = first_message(body) else { return None };
    let longer = u32::try_from(message.len() + fragment.len()).ok()?;
    let mut whole = BytesMut::with_capacity(body.len() + fragment.len());
    whole.put_u8(0);
    whole.put_u32(longer);
    whole.put_slice(message);
    whole.put_slice(fragment);
    Some(whole.freeze())
}

fn accepts(accepted: Option<&HeaderValue>, encoding: &HeaderValue) -> bool {
    let accepted = accepted.map(HeaderValue::as_bytes).unwrap_or_default();
    accepted.split(|byte| *byte == b',').any(|one| one.trim_ascii() == encoding.as_bytes())
}

fn map(headers: Vec<Header>) -> HeaderMap {
    let pair = |Header { name, value }: Header| {
        Some((name.parse::<HeaderName>().ok()?, HeaderValue::from_maybe_shared(value).ok()?))
    };
    let mut map = HeaderMap::with_capacity(headers.len() + 2);
    for (name, value) in headers.into_iter().filter_map(pair) {
        map.append(name, value);
    }
    map
}

fn list<'a>(headers: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>) -> Vec<Header> {
    let header = |(name, value): (&HeaderName, &HeaderValue)| Header {
        name: name.as_str().to_owned(),
        value: Bytes::copy_from_slice(value.as_bytes()),
    };
    headers.map(header).collect()
}

/// Reads `body` to its end: its data, which is usually in one piece, and its trailers.
pub(crate) async fn read(
    body: &mut Body,
    limit: usize,
) -> Result<(Bytes, Option<HeaderMap>), Unread> {
    let (mut whole, mut more, mut trailers) = (Bytes::new(), BytesMut::new(), None);
    while let Some(frame) = body.frame().await {
        match frame.map_err(Unread::Failed)?.into_data() {
            Ok(data) if whole.is_empty() => whole = data,
            Ok(data) => {
                if more.is_empty() {
                    more.extend_from_slice(&whole);
                }
                more.extend_from_slice(&data);
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
        if whole.len().max(more.len()) > limit {
            return Err(Unread::TooLarge(if more.is_empty() { whole } else { more.freeze() }));
        }
    }
    Ok((if more.is_empty() { whole } else { more.freeze() }, trailers))
}

// === impl Answer ===

impl Answer {
    /// Reads `response` to its end; without hop-by-hop headers, which a record must not keep.
    pub(crate) async fn of(response: Response<Body>) -> Result<Self, Status> {
        let (mut head, mut body) = response.into_parts();
        let (body, mut trailers) = match read(&mut body, usize::MAX).await {
            Ok(read) => read,
            Err(Unread::Failed(status)) => return Err(status),
            Err(Unread::TooLarge(_)) => return Err(Status::internal("there is no end to it")),
        };
        status::strip(trailers.as_mut().unwrap_or(&mut head.headers));
        Ok(Self { head, body, trailers })
    }

    /// The status of the call: from the trailers, from the headers of a trailers-only response, or
    /// of a failure of HTTP. `None` for an answer that was cut off before its status.
    pub(crate) fn code(&self) -> Option<Code> {
        let trailers = self.trailers.as_ref().unwrap_or(&self.head.headers);
        let of_http = || match self.head.status {
            StatusCode::OK => None,
            failed => Some(status::code_of_http(failed)),
        };
        status::code(trailers).or_else(of_http)
    }

    /// Whether a failure is marked as without an effect; removes the mark.
    pub(crate) fn take_not_begun(&mut self) -> bool {
        status::take_not_begun(self.trailers.as_mut().unwrap_or(&mut self.head.headers))
    }

    /// Whether it is marked so; the mark stays.
    pub(crate) fn is_not_begun(&self) -> bool {
        status::is_not_begun(self.trailers.as_ref().unwrap_or(&self.head.headers))
    }

    pub(crate) fn record(&self) -> Bytes {
        let is_ok = self.head.status == StatusCode::OK;
        let own = self.head.headers.iter();
        let own = own.filter(|pair| !is_ok || *pair != (&CONTENT_TYPE, &GRPC));
        let own_trailers = self.trailers.iter().flatten();
        let own_trailers =
            own_trailers.filter(|pair| !is_ok || *pair != (&Status::GRPC_STATUS, &OK));
        let (headers, trailers) = (list(own), list(own_trailers));
        let http = if is_ok { 0 } else { self.head.status.as_u16().into() };
        Record { headers, body: self.body.clone(), trailers, http }.encode_to_vec().into()
    }

    pub(crate) fn response(self) -> Response<Body> {
        let body = match self.trailers {
            None if self.body.is_empty() => Body::empty(),
            trailers => {
                let end = ready(trailers.map(Ok::<_, Infallible>));
                Body::new(Full::new(self.body).with_trailers(end))
            }
        };
        Response::from_parts(self.head, body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compression::tests::compress;
    use proptest::prelude::*;

    fn answered(headers: HeaderMap, body: Bytes, trailers: Option<HeaderMap>) -> Answer {
        let (mut head, ()) = Response::new(()).into_parts();
        head.headers = headers;
        Answer { head, body, trailers }
    }

    async fn replayed(record: Bytes, fragment: Option<&[u8]>) -> Answer {
        Answer::of(replay(record, fragment, None)).await.unwrap()
    }

    #[tokio::test]
    async fn a_message_is_replayed_like_a_first_answer_and_marked() {
        let answer = replayed(of_message(&7_u32), None).await;
        assert_eq!(answer.head.headers["content-type"], "application/grpc");
        assert_eq!(answer.head.headers["idempotent-replayed"], "true");
        assert_eq!(&answer.body[..], [0, 0, 0, 0, 2, 8, 7]);
        assert_eq!(answer.trailers.as_ref().unwrap()["grpc-status"], "0");
        assert_eq!(answer.code(), Some(Code::Ok));
    }

    #[tokio::test]
    async fn a_status_is_replayed_with_message_details_and_metadata() {
        let mut status = Status::with_details(Code::OutOfRange, "too much", "why".into());
        status.metadata_mut().insert("x-limit", "7".parse().unwrap());
        let answer = replayed(of_status(status), None).await;
        assert!(answer.body.is_empty() && answer.trailers.is_none());
        let status = Status::from_header_map(&answer.head.headers).unwrap();
        assert_eq!((status.code(), status.message()), (Code::OutOfRange, "too much"));
        assert_eq!(
            (status.details(), answer.head.headers["x-limit"].as_bytes()),
            (&b"why"[..], &b"7"[..])
        );
    }

    #[tokio::test]
    async fn a_fragment_is_merged_into_one_plain_message_and_into_nothing_else() {
        // value = 7, then value = 9 and string 2 = "x".
        let fragment = [8, 9, 18, 1, b'x'];
        let answer = replayed(of_message(&7_u32), Some(&fragment)).await;
        assert_eq!(&answer.body[..], [0, 0, 0, 0, 7, 8, 7, 8, 9, 18, 1, b'x']);
        let compressed = Bytes::from_static(&[1, 0, 0, 0, 1, 7]);
        let two = Bytes::from_static(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        for other in [compressed, two, Bytes::new(), Bytes::from_static(&[0, 0])] {
            assert_eq!(appended(&other, &fragment), None, "{other:?}");
        }
    }

    #[tokio::test]
    async fn a_replayed_compressed_answer_is_readable_by_its_receiver() {
        for encoding in ["gzip", "deflate", "zstd"] {
            let plain = [8, 7];
            let mut body = framed(&compress(encoding, &plain)).to_vec();
            body[0] = 1;
            let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, GRPC)]);
            headers.insert(GRPC_ENCODING, encoding.parse().unwrap());
            let trailers = HeaderMap::from_iter([(Status::GRPC_STATUS, OK)]);
            let first = answered(headers, body.into(), Some(trailers));
            let record = first.record();
            let given = async |fragment, accepted: Option<&str>| {
                let accepted = accepted.map(|accepted| accepted.parse().unwrap());
                let answer = replay(record.clone(), fragment, accepted.as_ref());
                Answer::of(answer).await.unwrap()
            };
            let same = given(None, Some("identity, gzip,deflate, zstd")).await;
            assert_eq!(same.body, first.body);
            assert_eq!(same.head.headers[GRPC_ENCODING], encoding);
            for accepted in [None, Some("identity"), Some("br")] {
                let other = given(None, accepted).await;
                assert_eq!(other.body, framed(&plain), "{encoding} {accepted:?}");
                assert!(!other.head.headers.contains_key(GRPC_ENCODING));
            }
            let with_more = given(Some(&[16, 1]), Some(encoding)).await;
            assert_eq!(with_more.body, framed(&[8, 7, 16, 1]), "{encoding}");
        }
    }

    #[tokio::test]
    async fn a_failure_of_http_is_replayed_as_one() {
        for (http, kind) in [(503, None), (401, Some("text/html")), (404, Some("application/grpc"))]
        {
            let mut first = Response::new(Body::new(Full::new(Bytes::from_static(b"no"))));
            *first.status_mut() = StatusCode::from_u16(http).unwrap();
            kind.map(|kind| {
                first.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind))
            });
            let first = Answer::of(first).await.unwrap();
            let second = replayed(first.record(), None).await;
            assert_eq!(second.head.status, http);
            assert_eq!(second.head.headers.get(CONTENT_TYPE), first.head.headers.get(CONTENT_TYPE));
            assert_eq!((&second.body[..], &second.trailers), (&b"no"[..], &None));
            assert_eq!(second.code(), Some(status::code_of_http(first.head.status)));
        }
        let trailers = HeaderMap::from_iter([(Status::GRPC_STATUS, OK)]);
        let mut odd = answered(HeaderMap::new(), Bytes::new(), Some(trailers));
        odd.head.status = StatusCode::BAD_GATEWAY;
        assert_eq!(replayed(odd.record(), None).await.trailers, odd.trailers);
    }

    /// A trailers-only response has its status in its one HEADERS frame, and no DATA
    /// ([PROTOCOL-HTTP2]).
    ///
    /// [PROTOCOL-HTTP2]: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
    #[tokio::test]
    async fn a_replayed_status_has_no_body_at_all_and_a_message_without_trailers_keeps_its_own() {
        use http_body::Body as _;
        let refused = replay(of_status(Status::not_found("no")), None, None);
        assert!(refused.body().is_end_stream());
        let headers = HeaderMap::from_iter([(Status::GRPC_STATUS, OK)]);
        let odd = answered(headers, framed(&[8, 7]), None);
        let answer = replayed(odd.record(), None).await;
        assert_eq!((answer.body, answer.trailers), (framed(&[8, 7]), None));
    }

    #[tokio::test]
    async fn a_body_is_read_to_its_end_in_however_many_parts_it_comes_and_up_to_the_limit() {
        let parts = |parts: &[&'static str]| {
            let frames: Vec<_> = parts
                .iter()
                .map(|part| {
                    Ok::<_, Status>(http_body::Frame::data(Bytes::from_static(part.as_bytes())))
                })
                .collect();
            Body::new(http_body_util::StreamBody::new(futures_util::stream::iter(frames)))
        };
        for all in [&["", "one", "two", "", "three"][..], &["one", "twothree"], &["onetwothree"]] {
            let (whole, trailers) = read(&mut parts(all), 11).await.unwrap();
            assert_eq!((&whole[..], trailers), (&b"onetwothree"[..], None), "{all:?}");
            let refused = read(&mut parts(all), 10).await;
            let Err(Unread::TooLarge(read)) = refused else { panic!("{refused:?}") };
            assert_eq!(&read[..], b"onetwothree", "what follows is not read");
        }
    }

    #[tokio::test]
    async fn an_invalid_record_answers_data_loss() {
        let answer = replayed(Bytes::from_static(b"\xff\xff"), None).await;
        assert_eq!(answer.code(), Some(Code::DataLoss));
    }

    fn headers() -> impl Strategy<Value = HeaderMap> {
        let name = "[a-z][a-z0-9-]{0,12}".prop_map(|name| name.parse::<HeaderName>().unwrap());
        let value = "[ -~]{0,20}".prop_map(|value| HeaderValue::from_str(&value).unwrap());
        prop::collection::vec((name, value), 0..6).prop_map(|pairs| {
            let mut map = HeaderMap::new();
            for (name, value) in pairs {
                map.append(name, value);
            }
            map
        })
    }

    proptest! {
        #[test]
        fn every_answer_is_replayed_byte_for_byte(
            headers in headers(), trailers in headers(), code in 0_u8..17,
            body in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let mut trailers = trailers;
            trailers.insert(Status::GRPC_STATUS, code.to_string().parse().unwrap());
            let mut first = answered(headers, body.into(), Some(trailers));
            first.head.headers.remove(Status::GRPC_STATUS);
            first.head.headers.insert(CONTENT_TYPE, GRPC);
            let record = first.record();
            let second = tokio_test::block_on(replayed(record, None));
            first.head.headers.insert(REPLAYED, HeaderValue::from_static("true"));
            prop_assert_eq!(first.head.headers, second.head.headers);
            prop_assert_eq!(first.body, second.body);
            prop_assert_eq!(first.trailers, second.trailers);
        }
    }
}
