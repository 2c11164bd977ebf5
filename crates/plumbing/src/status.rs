//! Reading and making gRPC statuses, without tonic's panic on malformed details.

mod begun;
mod hop;
mod message;
mod pushback;
mod said;

pub use begun::{is_not_begun, not_begun, take_not_begun};
pub use hop::strip;
pub use pushback::{
    PUSHBACK, Pushback, has_retry_info, push_back, pushback, pushback_of, retry_delay,
};
pub use said::code;

use crate::headers;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::CONTENT_TYPE};
use tonic::{Code, Status, metadata::MetadataMap};

/// The request header that counts the attempts before this one; absent on the first (gRFC A6).
pub const PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");

/// The whole status in `headers`, if they hold `grpc-status`.
///
/// tonic panics if `grpc-status-details-bin` is not base64; here such details are left out. It
/// loses the code if `grpc-message` is not text; here it is kept.
pub fn from_headers(headers: &HeaderMap) -> Option<Status> {
    let has_sound_details =
        headers::get(headers, &Status::GRPC_STATUS_DETAILS).is_none_or(is_base64);
    if has_sound_details
        && headers::get(headers, &Status::GRPC_MESSAGE).is_none_or(message::is_text)
    {
        return Status::from_header_map(headers);
    }
    let mut sound = headers.clone();
    mend_details(&mut sound);
    message::mend(&mut sound);
    Status::from_header_map(&sound)
}

/// For client layers: makes the headers or trailers of a received status safe for the application.
/// Removes `grpc-status-details-bin` if it is not base64, as a tonic client panics when it reads
/// that; makes `grpc-message` text if it is not, as tonic would lose the code; and marks the values
/// that a handler must not pass on ([`strip`]).
pub fn mend(headers: &mut HeaderMap) {
    // A success has nothing more.
    if headers.len() > 1 {
        mend_said(headers, code(headers));
    }
}

/// The same, if their code is known.
pub(crate) fn mend_said(headers: &mut HeaderMap, code: Option<Code>) {
    let Some(code) = code.filter(|_| headers.len() > 1) else { return };
    mend_details(headers);
    message::mend(headers);
    if code != Code::Ok {
        hop::mark(headers);
    }
}

fn mend_details(headers: &mut HeaderMap) {
    if headers::get(headers, &Status::GRPC_STATUS_DETAILS).is_some_and(|value| !is_base64(value)) {
        headers.remove(Status::GRPC_STATUS_DETAILS);
    }
}

/// Whether tonic can decode `value`, by tonic's own decoder.
fn is_base64(value: &HeaderValue) -> bool {
    let headers = HeaderMap::from_iter([(Status::GRPC_STATUS_DETAILS, value.clone())]);
    MetadataMap::from_headers(headers)
        .get_bin(Status::GRPC_STATUS_DETAILS.as_str())
        .is_some_and(|value| value.to_bytes().is_ok())
}

/// Whether the content type is gRPC's: it begins with `application/grpc` ([PROTOCOL-HTTP2]).
///
/// [PROTOCOL-HTTP2]: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#responses
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers::get(headers, &CONTENT_TYPE).is_some_and(is_grpc_type)
}

/// Whether this content type is gRPC's.
pub fn is_grpc_type(kind: &HeaderValue) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    kind.as_bytes().get(..GRPC.len()).is_some_and(|start| start.eq_ignore_ascii_case(GRPC))
}

/// The status of a response that failed before it began: its trailers-only headers, or the status
/// for its HTTP code; values that a handler must not pass on are marked ([`strip`]).
pub fn of_head<B>(response: &http::Response<B>) -> Status {
    let mut status = from_headers(response.headers()).unwrap_or_else(|| {
        let (http, headers) = (response.status(), response.headers());
        let message = if is_grpc(headers) {
            format!("the answer ended without a grpc-status; its HTTP status was {http}")
        } else {
            let kind = headers::get(headers, &CONTENT_TYPE)
                .map(|kind| String::from_utf8_lossy(kind.as_bytes()));
            let kind =
                kind.map_or("none".into(), |kind| kind.chars().take(100).collect::<String>());
            format!("not an answer of gRPC: HTTP status {http}, content type {kind}")
        };
        Status::new(code_of_http(http), message)
    });
    hop::mark(status.metadata_mut().as_mut());
    status
}

/// Whether `grpc-message` is the one by which tonic's own timers end a call.
pub fn says_timeout_expired(headers: &HeaderMap) -> bool {
    headers::get(headers, &Status::GRPC_MESSAGE).is_some_and(|message| {
        matches!(message.as_bytes(), b"Timeout expired" | b"Timeout%20expired")
    })
}

/// Corrects the answer of a tonic server whose timer has fired: `DEADLINE_EXCEEDED`, where tonic
/// uses `CANCELLED`.
pub fn correct_timeout(headers: &mut HeaderMap) {
    if code(headers) == Some(Code::Cancelled) && says_timeout_expired(headers) {
        headers.insert(Status::GRPC_STATUS, HeaderValue::from_static("4"));
    }
}

/// How many attempts preceded the one with these request headers: `grpc-previous-rpc-attempts`
/// (gRFC A6), or 0.
pub fn previous_attempts(headers: &HeaderMap) -> u32 {
    headers::get(headers, &PREVIOUS_ATTEMPTS).map_or(0, count_of_attempts)
}

/// The number in a value of `grpc-previous-rpc-attempts`; 0 if it is invalid.
pub fn count_of_attempts(value: &HeaderValue) -> u32 {
    value.to_str().ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The code that an HTTP status stands for where `grpc-status` is missing
/// ([http-grpc-status-mapping]).
///
/// [http-grpc-status-mapping]: https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md
pub const fn code_of_http(status: StatusCode) -> Code {
    match status.as_u16() {
        400 | 431 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502 | 503 | 504 => Code::Unavailable,
        _ => Code::Unknown,
    }
}

/// The HTTP status for a code, as [google.rpc.Code] maps them, and grpc-gateway and Envoy do it;
/// for `CANCELLED` it is nginx's 499.
///
/// [google.rpc.Code]: https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto
pub fn http_of_code(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or_default(),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
    }
}

/// The code that an RST_STREAM reason stands for ([PROTOCOL-HTTP2]).
///
/// [PROTOCOL-HTTP2]: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#errors
pub const fn code_of_reset(reason: h2::Reason) -> Code {
    match reason {
        h2::Reason::REFUSED_STREAM => Code::Unavailable,
        h2::Reason::CANCEL => Code::Cancelled,
        h2::Reason::ENHANCE_YOUR_CALM => Code::ResourceExhausted,
        h2::Reason::INADEQUATE_SECURITY => Code::PermissionDenied,
        _ => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers(pairs: &[(&'static str, &[u8])]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (http::HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap())
            })
            .collect()
    }

    #[test]
    fn each_code_has_the_http_status_that_google_rpc_code_names() {
        let published =
            [200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401];
        let ours: Vec<_> = crate::code::all().map(|code| http_of_code(code).as_u16()).collect();
        assert_eq!(ours, published);
    }

    #[test]
    fn malformed_details_are_left_out() {
        let headers = headers(&[
            ("grpc-status", b"5"),
            ("grpc-message", b"gone"),
            ("grpc-status-details-bin", b"*not base64*"),
        ]);
        let status = from_headers(&headers).unwrap();
        assert_eq!((status.code(), status.message()), (Code::NotFound, "gone"));
        assert!(status.details().is_empty());
    }

    #[test]
    fn sound_details_are_kept() {
        let headers = headers(&[("grpc-status", b"5"), ("grpc-status-details-bin", b"aGk")]);
        assert_eq!(from_headers(&headers).unwrap().details(), b"hi");
    }

    proptest! {
        #[test]
        fn no_header_value_makes_reading_a_status_panic(
            code in "[ -~]{0,4}", message in "[ -~]{0,20}", details in "[ -~]{0,20}",
            ask in "[ -~]{0,12}",
        ) {
            let headers = headers(&[
                ("grpc-status", code.as_bytes()),
                ("grpc-message", message.as_bytes()),
                ("grpc-status-details-bin", details.as_bytes()),
                ("grpc-retry-pushback-ms", ask.as_bytes()),
            ]);
            prop_assert!(from_headers(&headers).is_some());
            prop_assert!(pushback(&headers).is_some());
        }
    }
}
