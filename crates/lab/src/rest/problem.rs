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
    http: StatusCode,
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

// === impl Problem ===

impl Problem {
    /// A request of which no call can be made.
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self::of(status, None, detail.into())
    }

    /// A field that is not as it must be.
    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Status::invalid_argument(detail).into()
    }

    fn of(http: StatusCode, code: Option<Code>, detail: String) -> Self {
        let title = http.canonical_reason().unwrap_or("Client Closed Request");
        let said =
            Said { title, status: http.as_u16(), detail, code: code.map(code::name), reason: None };
        Self { http, headers: HeaderMap::new(), said }
    }
}

impl From<Status> for Problem {
    fn from(status: Status) -> Self {
        let code = status.code();
        let mut problem =
            Self::of(status::http_of_code(code), Some(code), status.message().to_owned());
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
        *response.status_mut() = http;
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
    fn a_pushback_is_rounded_up_to_whole_seconds() {
        for (millis, whole) in [(0, "0"), (1, "1"), (1000, "1"), (1001, "2")] {
            assert_eq!(seconds(Duration::from_millis(millis)), whole);
        }
    }
}
