//! A server's pushback on retries.

use super::said::code;
use crate::{clock::millis, headers};
pub use cinchona_policy::retry::Pushback;
use http::{HeaderMap, HeaderName, HeaderValue};
use prost::Message;
use std::time::Duration;
use tonic::{
    Code, Status,
    metadata::{BinaryMetadataValue, MetadataMap},
};

/// The header of a pushback (gRFC A6).
pub const PUSHBACK: HeaderName = HeaderName::from_static(NAME);

pub(super) const NAME: &str = "grpc-retry-pushback-ms";

/// The longest value of the header.
const LONGEST: Duration = Duration::from_millis(i32::MAX as u64);

/// Longer details, in bytes of base64, are not parsed. A tonic server sends no header list of more
/// than 16 KiB.
const LARGEST: usize = 64 << 10;

/// The fields of `google.rpc.Status` that matter.
#[derive(Clone, PartialEq, Message)]
struct Details {
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<prost_types::Duration>,
}

/// The pushback of the failure in these headers, or trailers: the header, or else [`retry_delay`].
/// Of a success only the header is read.
pub fn pushback(headers: &HeaderMap) -> Option<Pushback> {
    in_header(headers).or_else(|| {
        let details = headers::get(headers, &Status::GRPC_STATUS_DETAILS)?;
        if code(headers).is_none_or(|code| code == Code::Ok) {
            return None;
        }
        retry_delay(&decoded(details)?).map(Pushback::After)
    })
}

/// As [`pushback`], of a status.
pub fn pushback_of(status: &Status) -> Option<Pushback> {
    let delay = || retry_delay(status.details()).map(Pushback::After);
    in_header(status.metadata().as_ref()).or_else(delay)
}

/// Sets the pushback of a failure: whole milliseconds until the next attempt, at most 2³¹ − 1; or
/// that there must be none.
pub fn push_back(headers: &mut HeaderMap, pushback: Pushback) {
    let value = match pushback {
        Pushback::After(wait) => HeaderValue::from(millis(wait.min(LONGEST))),
        Pushback::Stop => HeaderValue::from_static("-1"),
    };
    headers.insert(PUSHBACK, value);
}

/// The delay of the first `google.rpc.RetryInfo` with a `retry_delay` in these `details`
/// (`grpc-status-details-bin`, decoded). A negative or malformed delay counts as none, and one of
/// over 2³¹ − 1 ms as that.
pub fn retry_delay(details: &[u8]) -> Option<Duration> {
    infos(details).find_map(|info| {
        let delay = info.retry_delay?;
        let (seconds, nanos) =
            (u64::try_from(delay.seconds).ok()?, u32::try_from(delay.nanos).ok()?);
        // protobuf's Duration has less than a second of them.
        (nanos < 1_000_000_000).then(|| Duration::new(seconds, nanos).min(LONGEST))
    })
}

/// Whether there is a `google.rpc.RetryInfo` among these `details`, with a delay or without.
pub fn has_retry_info(details: &[u8]) -> bool {
    infos(details).next().is_some()
}

fn infos(details: &[u8]) -> impl Iterator<Item = RetryInfo> {
    let sound = details.len() <= LARGEST;
    let found = sound.then(|| Details::decode(details).ok()).flatten().unwrap_or_default();
    found.details.into_iter().filter_map(|detail| {
        // The type is what follows the last slash (google.protobuf.Any).
        let name = detail.type_url.rsplit('/').next();
        let is_one = name == Some("google.rpc.RetryInfo");
        is_one.then(|| RetryInfo::decode(&*detail.value).ok()).flatten()
    })
}

fn in_header(headers: &HeaderMap) -> Option<Pushback> {
    let mut values = headers.get_all(PUSHBACK).iter();
    let value = values.next()?;
    let millis = value.to_str().ok().and_then(|text| text.parse::<i32>().ok());
    match (millis.map(u64::try_from), values.next()) {
        (Some(Ok(millis)), None) => Some(Pushback::After(Duration::from_millis(millis))),
        _ => Some(Pushback::Stop),
    }
}

/// By tonic's own decoder, which takes base64 with padding and without.
fn decoded(details: &HeaderValue) -> Option<bytes::Bytes> {
    if details.len() > LARGEST {
        return None;
    }
    let headers = HeaderMap::from_iter([(Status::GRPC_STATUS_DETAILS, details.clone())]);
    let found = MetadataMap::from_headers(headers);
    let name = Status::GRPC_STATUS_DETAILS;
    found.get_bin(name.as_str()).and_then(|value: &BinaryMetadataValue| value.to_bytes().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers(pairs: &[(&'static str, &[u8])]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &[u8])| {
            (http::HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    fn detail(name: &str, value: Vec<u8>) -> prost_types::Any {
        prost_types::Any { type_url: format!("type.googleapis.com/{name}"), value }
    }

    fn info(retry_delay: Option<(i64, i32)>) -> prost_types::Any {
        let delay = |(seconds, nanos)| prost_types::Duration { seconds, nanos };
        let info = RetryInfo { retry_delay: retry_delay.map(delay) };
        detail("google.rpc.RetryInfo", info.encode_to_vec())
    }

    fn failure(details: Vec<prost_types::Any>) -> Status {
        let details = Details { details }.encode_to_vec().into();
        Status::with_details(Code::ResourceExhausted, "full", details)
    }

    /// By both ways, which must agree.
    fn asked(status: Status) -> Option<Pushback> {
        let by_status = pushback_of(&status);
        let head = status.into_http::<()>();
        assert_eq!(pushback(head.headers()), by_status);
        by_status
    }

    fn after(millis: u64) -> Option<Pushback> {
        Some(Pushback::After(Duration::from_millis(millis)))
    }

    #[test]
    fn the_header_is_one_32_bit_integer_or_a_stop() {
        let ask = |value: &[u8]| pushback(&headers(&[(NAME, value)]));
        assert_eq!(pushback(&HeaderMap::new()), None);
        assert_eq!((ask(b"0"), ask(b"250")), (after(0), after(250)));
        for stop in ["-1", "", "xxx", "12abc", "10.5", "1e3", "2147483648", " 7"] {
            assert_eq!(ask(stop.as_bytes()), Some(Pushback::Stop), "{stop:?}");
        }
        let mut twice = headers(&[(NAME, b"10")]);
        twice.append(NAME, HeaderValue::from_static("10"));
        assert_eq!(pushback(&twice), Some(Pushback::Stop));
    }

    #[test]
    fn what_is_pushed_back_is_what_is_read_in_whole_milliseconds_of_31_bits() {
        let read = |pushback| {
            let mut set = headers(&[(NAME, b"1")]);
            push_back(&mut set, pushback);
            (set[NAME].to_str().unwrap().to_owned(), super::pushback(&set))
        };
        for (wait, millis) in [
            (Duration::ZERO, 0),
            (Duration::from_micros(1_999), 1),
            (LONGEST, 2_147_483_647),
            (Duration::MAX, 2_147_483_647),
        ] {
            assert_eq!(read(Pushback::After(wait)), (millis.to_string(), after(millis)));
        }
        assert_eq!(read(Pushback::Stop), ("-1".to_owned(), Some(Pushback::Stop)));
    }

    // catalogue: S-A14
    #[test]
    fn retry_info_is_a_pushback_wherever_it_is_among_the_details() {
        let other = || detail("google.rpc.ErrorInfo", b"\x0a\x01x".to_vec());
        assert_eq!(asked(failure(vec![info(Some((1, 500_000_000)))])), after(1_500));
        assert_eq!(
            asked(failure(vec![other(), info(None), info(Some((2, 0))), other()])),
            after(2_000)
        );
        assert_eq!(asked(failure(vec![info(Some((0, 0)))])), after(0));
        let mut bare = info(Some((3, 0)));
        bare.type_url = "google.rpc.RetryInfo".to_owned();
        assert_eq!(asked(failure(vec![bare])), after(3_000));
        for none in [vec![], vec![other()], vec![info(None)]] {
            assert_eq!(asked(failure(none)), None);
        }
    }

    #[test]
    fn a_delay_that_is_negative_or_malformed_is_none_and_an_absurd_one_saturates() {
        for none in [(-1, 0), (0, -1), (1, -1), (i64::MIN, 0), (0, 1_000_000_000), (0, i32::MAX)] {
            assert_eq!(asked(failure(vec![info(Some(none))])), None, "{none:?}");
            let next = failure(vec![info(Some(none)), info(Some((4, 0)))]);
            assert_eq!(asked(next), after(4_000), "{none:?}");
        }
        for absurd in [(i64::MAX, 999_999_999), (315_576_000_000, 0), (2_147_484, 0)] {
            assert_eq!(asked(failure(vec![info(Some(absurd))])), Some(Pushback::After(LONGEST)));
        }
    }

    #[test]
    fn the_header_wins_over_the_details() {
        for (value, expected) in [("-1", Some(Pushback::Stop)), ("7", after(7))] {
            let mut status = failure(vec![info(Some((9, 0)))]);
            status.metadata_mut().insert(NAME, value.parse().unwrap());
            assert_eq!(asked(status), expected);
        }
    }

    #[test]
    fn only_the_details_of_a_failure_of_some_size_are_looked_into() {
        let details = Details { details: vec![info(Some((9, 0)))] }.encode_to_vec();
        let success = Status::with_details(Code::Ok, "", details.into()).into_http::<()>();
        assert_eq!(pushback(success.headers()), None);
        let filler = || detail("x", vec![0; LARGEST]);
        assert_eq!(asked(failure(vec![info(Some((9, 0))), filler()])), None);
        assert!(has_retry_info(failure(vec![info(None)]).details()));
        assert!(!has_retry_info(failure(vec![detail("x", vec![])]).details()));
    }

    #[test]
    fn details_are_read_with_and_without_padding() {
        let tail = info(Some((5, 0)));
        for filler in 0..3 {
            let mut status =
                failure(vec![detail("x", vec![0; filler]), tail.clone()]).into_http::<()>();
            let value = status.headers()[Status::GRPC_STATUS_DETAILS].to_str().unwrap().to_owned();
            let padded = format!("{value:=<width$}", width = value.len().next_multiple_of(4));
            let padded = HeaderValue::from_str(&padded).unwrap();
            status.headers_mut().insert(Status::GRPC_STATUS_DETAILS, padded);
            assert_eq!(pushback(status.headers()), after(5_000), "{filler}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_of_details_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let status = Status::with_details(Code::Unavailable, "", bytes.clone().into());
            let of_status = pushback_of(&status);
            prop_assert_eq!(pushback(status.into_http::<()>().headers()), of_status);
            has_retry_info(&bytes);
        }

        #[test]
        fn no_value_of_the_header_panics(value in "[ -~]{0,60}", code in "[0-9]{1,2}") {
            pushback(&headers(&[
                ("grpc-status", code.as_bytes()),
                ("grpc-status-details-bin", value.as_bytes()),
            ]));
        }

        #[test]
        fn every_delay_is_kept_to_the_nanosecond_up_to_the_longest(
            seconds in 0..2_147_483_i64, nanos in 0..1_000_000_000_i32,
        ) {
            let expected = Duration::new(seconds as u64, nanos as u32);
            let asked = asked(failure(vec![info(Some((seconds, nanos)))]));
            prop_assert_eq!(asked, Some(Pushback::After(expected)));
        }

        #[test]
        fn a_damaged_info_is_read_or_not_and_never_panics(
            at in 0..80_usize, to in any::<u8>(), seconds in any::<i64>(), nanos in any::<i32>(),
        ) {
            let details = Details { details: vec![info(Some((seconds, nanos)))] };
            let mut bytes = details.encode_to_vec();
            let at = at % bytes.len();
            bytes[at] = to;
            let delay = retry_delay(&bytes);
            prop_assert!(delay.is_none_or(|delay| delay <= LONGEST));
        }
    }
}
