//! The layer sees the same message as the handler.

use super::*;
use crate::{compression::tests::compress, counters::Cells, settings::DedupSettings};
use proptest::prelude::*;

const ENCODINGS: [&str; 3] = ["gzip", "deflate", "zstd"];

/// A request with a compressed message.
fn compressed(encoding: &'static str, key: Option<&str>, id: &str, payload: u8) -> Request<Body> {
    let plain = message(id, payload);
    let body = flagged(1, &compress(encoding, &plain[5..]));
    let mut request = to("/Bank/Pay", key, body);
    request.headers_mut().insert("grpc-encoding", HeaderValue::from_static(encoding));
    request
}

fn flagged(flag: u8, message: &[u8]) -> Bytes {
    let mut body = crate::message::framed(message).to_vec();
    body[0] = flag;
    body.into()
}

// catalogue: S-C3
#[tokio::test(start_paused = true)]
async fn a_request_id_in_a_compressed_message_is_the_key() {
    for encoding in ENCODINGS {
        let (bank, executed) = bank(Duration::ZERO, &[]);
        let layer = dedup();
        let service = layer.layer(bank);
        assert!(!is_replay(&ask(&service, compressed(encoding, None, "m", 0)).await));
        let others = ENCODINGS.map(|other| compressed(other, None, "m", 0));
        let plain = to("/Bank/Pay", None, message("m", 0));
        let with_header = compressed(encoding, Some("h"), "m", 0);
        for same in others.into_iter().chain([plain, with_header]) {
            assert!(is_replay(&ask(&service, same).await), "{encoding}");
        }
        let reused = status(&ask(&service, compressed(encoding, None, "m", 1)).await);
        assert_eq!(reason(&reused), "IDEMPOTENCY_KEY_REUSED", "the fingerprint is of the message");
        assert!(!is_replay(&ask(&service, compressed(encoding, Some("h"), "", 0)).await));
        assert!(is_replay(&ask(&service, to("/Bank/Pay", Some("h"), message("", 0))).await));
        assert_eq!((executed.load(Ordering::Relaxed), layer.counters().unreadable), (2, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn messages_that_cannot_be_read_are_refused_and_counted() {
    let encoded = |encoding: &'static str, flag, message: &[u8]| {
        let mut request = to("/Bank/Pay", Some("k"), flagged(flag, message));
        request.headers_mut().insert("grpc-encoding", HeaderValue::from_static(encoding));
        request
    };
    let bomb = compress("gzip", &vec![0; 1 << 20]);
    let (group, cut) = ([19, 10, 1, b'm'], [10, 9, b'm']);
    for (request, code) in [
        (encoded("snappy", 1, b"x"), Code::Unimplemented),
        (encoded("identity", 1, b"x"), Code::Internal),
        (to("/Bank/Pay", Some("k"), flagged(1, b"x")), Code::Internal),
        (to("/Bank/Pay", Some("k"), flagged(2, b"")), Code::Internal),
        (encoded("gzip", 1, b"no gzip"), Code::Internal),
        (encoded("zstd", 1, b"no zstd"), Code::Internal),
        (encoded("gzip", 1, &bomb), Code::OutOfRange),
        (to("/Bank/Pay", None, flagged(0, &group)), Code::Internal),
        (to("/Bank/Pay", None, flagged(0, &cut)), Code::Internal),
        (to("/Bank/Pay", Some("k"), flagged(0, &cut)), Code::Internal),
        (to("/Bank/Pay", None, Bytes::from_static(&[0, 0, 0, 0, 9, 1])), Code::Internal),
        (to("/Bank/Pay", None, Bytes::from_static(&[0, 0])), Code::Internal),
    ] {
        let (bank, executed) = bank(Duration::ZERO, &[]);
        let layer = settings().with_limits(1 << 16, 1 << 16).layer(MemoryStore::new());
        let refused = ask(&layer.layer(bank), request).await;
        assert_eq!(status(&refused).code(), code, "{:?}", status(&refused));
        let accepted = refused.headers().get("grpc-accept-encoding");
        assert_eq!(accepted.is_some(), code == Code::Unimplemented);
        assert_eq!((executed.load(Ordering::Relaxed), layer.counters().unreadable), (0, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn messages_of_another_codec_have_the_key_of_the_header_or_are_counted() {
    let (bank, executed) = bank(Duration::ZERO, &[]);
    let layer = dedup();
    let service = layer.layer(bank);
    let json = |key| {
        let mut request = to("/Bank/Pay", key, flagged(0, b"{\"request_id\":\"m\"}"));
        let grpc = HeaderValue::from_static("application/grpc+json");
        request.headers_mut().insert("content-type", grpc);
        request
    };
    for (key, replayed) in [(Some("k"), false), (Some("k"), true), (None, false)] {
        assert_eq!(is_replay(&ask(&service, json(key)).await), replayed);
    }
    assert_eq!((executed.load(Ordering::Relaxed), layer.counters().unreadable), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_message_of_just_the_limit_is_within_it() {
    let (bank, _) = bank(Duration::ZERO, &[]);
    let body = message("", 0);
    let limit = body.len() - 5;
    for (limit, code) in [(limit, Code::Ok), (limit - 1, Code::OutOfRange)] {
        let service =
            settings().with_limits(limit, 1000).layer(MemoryStore::new()).layer(bank.clone());
        for request in [to("/Bank/Pay", Some("k"), body.clone()), compressed("zstd", None, "", 0)] {
            let answered = status(&ask(&service, request).await);
            // The compressed form is longer, and the limit applies to it, too.
            assert!(answered.code() == code || answered.code() == Code::OutOfRange);
        }
        assert_eq!(status(&ask(&service, pay("k")).await).code(), code);
    }
}

/// Fields in some order, of which the first may be known; `Request` has only `request_id = 1`.
fn unknown(order: &[u8]) -> Bytes {
    let fields = order.iter().map(|n| vec![n << 3 | 2, 1, b'a' + n]);
    flagged(0, &fields.collect::<Vec<_>>().concat())
}

// catalogue: S-F12
#[tokio::test(start_paused = true)]
async fn the_same_message_in_another_encoding_is_the_same_request() {
    let (bank, executed) = bank(Duration::ZERO, &[]);
    let service = dedup().layer(bank);
    for order in [[2, 3, 4], [4, 3, 2], [3, 4, 2]] {
        let answered = ask(&service, to("/Bank/Pay", Some("k"), unknown(&order))).await;
        assert_eq!(status(&answered).code(), Code::Ok, "{order:?}");
    }
    assert_eq!(executed.load(Ordering::Relaxed), 1);
    let other = ask(&service, to("/Bank/Pay", Some("k"), unknown(&[2, 3, 5]))).await;
    assert_eq!(reason(&status(&other)), "IDEMPOTENCY_KEY_REUSED");
}

#[tokio::test(start_paused = true)]
async fn if_configured_the_key_alone_counts() {
    let mut by_method = PerMethod::new();
    by_method.insert("Bank", "Pay", true).unwrap();
    for (layer, replayed) in [
        (settings().with_key_alone(true).layer(MemoryStore::new()), [true, true]),
        (settings().with_key_alone(by_method).layer(MemoryStore::new()), [true, false]),
        (settings().with_key_alone(false).layer(MemoryStore::new()), [false, false]),
        (dedup(), [false, false]),
    ] {
        let (bank, _) = bank(Duration::ZERO, &[]);
        let service = layer.layer(bank);
        for (path, replayed) in ["/Bank/Pay", "/Bank/Put"].into_iter().zip(replayed) {
            ask(&service, to(path, Some("k"), message("", 0))).await;
            let second = ask(&service, to(path, Some("k"), message("", 1))).await;
            assert_eq!(is_replay(&second), replayed, "{path}");
        }
    }
}

/// Where prost finds the `request_id` of any bytes.
#[derive(Clone, PartialEq, prost::Message)]
struct Handled {
    #[prost(string, tag = "1")]
    request_id: String,
}

fn field() -> impl Strategy<Value = Vec<u8>> {
    let id = "[a-c]{0,2}".prop_map(|id| [&[10, id.len() as u8][..], id.as_bytes()].concat());
    prop_oneof![
        4 => id,
        1 => Just(vec![16, 0x96, 1]),
        1 => Just(vec![26, 2, 10, 1]),
        1 => Just(vec![35, 10, 1, b'z', 36]),
        1 => Just(vec![35, 40, 1]),
        1 => Just(vec![45, 1, 2, 3, 4]),
        1 => Just(vec![49, 1, 2, 3, 4, 5, 6, 7, 8]),
        1 => any::<[u8; 2]>().prop_map(|bytes| bytes.to_vec()),
    ]
}

proptest! {
    #[test]
    fn the_key_is_the_request_id_that_a_handler_would_find(
        fields in prop::collection::vec(field(), 0..5), compression in 0_usize..4,
    ) {
        let plain = fields.concat();
        let mut request = Request::post("/Bank/Pay").body(()).unwrap();
        let body = match ENCODINGS.get(compression) {
            None => flagged(0, &plain),
            Some(encoding) => {
                request.headers_mut().insert("grpc-encoding", HeaderValue::from_static(encoding));
                flagged(1, &compress(encoding, &plain))
            }
        };
        let settings = DedupSettings::new(methods());
        let cells = Cells::default();
        let named = key::name(&settings, &cells, &request, &body);
        match Handled::decode(&*plain) {
            Ok(handled) => {
                let named = named.unwrap().map(|name| name.key);
                let id = handled.request_id;
                let expected = (!id.is_empty()).then(|| key::stored("/Bank/Pay", &id, ""));
                prop_assert_eq!(named, expected);
                prop_assert_eq!(cells.counters(0).unreadable, 0);
            }
            // A handler refuses it as well.
            Err(_) => prop_assert!(named.is_err() || named.is_ok_and(|name| name.is_some())),
        }
    }
}
