//! What went wrong, in the words of HTTP: `application/problem+json` ([RFC 9457]).
//!
//! [RFC 9457]: https://www.rfc-editor.org/rfc/rfc9457

use super::headers::as_headers;
use axum::{
    Json,
    response::{IntoResponse, Response},
};
use cinchona_plumbing::{
    code,
    status::{self, Pushback},
};
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use serde::Serialize;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// A failure as it is answered.
#[derive(Debug)]
pub(crate) struct Problem {
    http: u16,
    headers: HeaderMap,
    said: Said,
}

/// The members of the JSON. There is no `type`, which means `about:blank`: then `title` is the
/// phrase of the status, and what happened is in `code` and `reason`.
#[derive(Debug, Serialize)]
struct Said {
    title: &'static str,
    status: u16,
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
    /// gRPC's name of it; none where no call was made of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    /// For programs, where the server gives one (`google.rpc.ErrorInfo`).
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// nginx's code, which google.rpc.Code takes for `CANCELLED`.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// The status of HTTP for one of gRPC, as [google.rpc.Code] maps them and grpc-gateway and Envoy
/// do it.
///
/// [google.rpc.Code]: https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto
pub const fn http_status(code: Code) -> u16 {
    match code {
        Code::Ok => 200,
        Code::Cancelled => CLIENT_CLOSED_REQUEST,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::Unauthenticated => 401,
        Code::PermissionDenied => 403,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        Code::ResourceExhausted => 429,
        Code::Unknown | Code::Internal | Code::DataLoss => 500,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        Code::DeadlineExceeded => 504,
    }
}

// === impl Problem ===

impl Problem {
    /// A request of which no call can be made.
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self::of(status.as_u16(), None, detail.into())
    }

    /// A field that is not as it must be.
    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Status::invalid_argument(detail).into()
    }

    fn of(http: u16, code: Option<Code>, detail: String) -> Self {
        let phrase = StatusCode::from_u16(http).ok().and_then(|status| status.canonical_reason());
        let title = phrase.unwrap_or("Client Closed Request");
        let said = Said { title, status: http, detail, code: code.map(code::name), reason: None };
        Self { http, headers: HeaderMap::new(), said }
    }
}

impl From<Status> for Problem {
    fn from(status: Status) -> Self {
        let code = status.code();
        let mut problem = Self::of(http_status(code), Some(code), status.message().to_owned());
        problem.said.reason = status.get_details_error_info().map(|info| info.reason);
        if let Some(Pushback::After(wait)) = status::pushback_of(&status) {
            problem.headers.insert(RETRY_AFTER, seconds(wait));
        }
        problem.headers.extend(as_headers(status.metadata().clone()));
        problem
    }
}

/// Whole seconds, as `Retry-After` has no other, and never too early.
fn seconds(wait: Duration) -> HeaderValue {
    let whole = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    whole.into()
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { http, headers, said } = self;
        let mut response = Json(said).into_response();
        // Every number above is one of HTTP.
        *response.status_mut() = StatusCode::from_u16(http).unwrap_or_default();
        response.headers_mut().extend(headers);
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_the_status_that_google_rpc_code_names() {
        let published =
            [200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401];
        let ours: Vec<_> = code::all().map(http_status).collect();
        assert_eq!(ours, published);
    }

    #[test]
    fn a_pushback_is_rounded_up_to_whole_seconds() {
        for (millis, whole) in [(0, "0"), (1, "1"), (1000, "1"), (1001, "2")] {
            assert_eq!(seconds(Duration::from_millis(millis)), whole);
        }
    }
}
