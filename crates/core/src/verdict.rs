//! What the outcome of one attempt means, decided once for every policy.
//!
//! A status code alone misleads in tonic: a lost connection is `UNKNOWN`, a panic in the handler
//! and a request that never left the client are both `CANCELLED`, an expired timer is `CANCELLED`
//! too.
//! So [`Verdict`] reads the error's `source()` chain first and the code second.

mod status;

use crate::{Rejected, Stage};
use cinchona_plumbing::{
    Elapsed,
    cause::{chain, find_cause},
    status as wire,
};
use http::{HeaderMap, StatusCode};
use http_body::Body;
use std::{error::Error, io};
use tonic::Code;

/// What the outcome of one attempt means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// The call succeeded, or a response has begun that is not an error.
    Ok,
    /// The application answered with a code that a repetition would only get again.
    Refused(Code),
    /// The request provably never reached the service: safe to repeat whatever the method.
    NotProcessed(Stage),
    /// The service may have executed the request: safe to repeat only if the method is.
    MaybeProcessed(Code),
    /// A timer of this client ended the attempt; the service may still be executing it.
    Deadline,
    /// This client itself failed: the request's body failed, or the client's own HTTP/2 library
    /// reset the stream. It is no evidence about the server, and a repetition would end the same
    /// way.
    Local(Code),
}

// === impl Verdict ===

impl Verdict {
    /// The verdict on a response head or on an error.
    pub fn of<B, E>(outcome: &Result<http::Response<B>, E>) -> Self
    where
        B: Body,
        E: AsRef<dyn Error + Send + Sync>,
    {
        match outcome {
            Ok(response) => Self::of_head(response),
            Err(error) => Self::of_error(error.as_ref()),
        }
    }

    /// The verdict on a response head.
    ///
    /// A gRPC head without `grpc-status` is the start of a response: it commits the call, whatever
    /// the trailers will be (gRFC A6). A head of another content type is not gRPC's, and a complete
    /// one without a status has no code: both are `UNKNOWN`, as in grpc-go and grpc-java.
    pub fn of_head<B: Body>(response: &http::Response<B>) -> Self {
        match (wire::code(response.headers()), response.status()) {
            (Some(code), _) => Self::of_code(code),
            (None, StatusCode::OK)
                if wire::is_grpc(response.headers()) && !response.body().is_end_stream() =>
            {
                Self::Ok
            }
            (None, http) => Self::of_code(wire::code_of_http(http)),
        }
    }

    /// The verdict on trailers, or on the headers of a trailers-only response.
    pub fn of_trailers(trailers: &HeaderMap) -> Self {
        Self::of_code(wire::code(trailers).unwrap_or(Code::Unknown))
    }

    /// The verdict on a status that the server sent.
    pub const fn of_code(code: Code) -> Self {
        use cinchona_policy::Verdict;
        match Verdict::of_code(code_of(code)) {
            Verdict::Ok => Self::Ok,
            Verdict::Refused(_) => Self::Refused(code),
            _ => Self::MaybeProcessed(code),
        }
    }

    /// The verdict on an error, from its `source()` chain.
    pub fn of_error(error: &(dyn Error + 'static)) -> Self {
        let mut in_transport = false;
        let mut in_hyper = false;
        let mut said = None;
        for cause in chain(error) {
            if let Some(verdict) = Self::of_cause(cause) {
                return verdict;
            }
            if let Some(io) = cause.downcast_ref::<io::Error>() {
                // Between tonic and hyper there is only the connector's own timer.
                let connecting = in_transport && !in_hyper && io.kind() == io::ErrorKind::TimedOut;
                return if connecting {
                    Self::NotProcessed(Stage::NoConnection)
                } else {
                    Self::MaybeProcessed(Code::Unavailable)
                };
            }
            in_transport |= cause.is::<tonic::transport::Error>();
            in_hyper |= cause.is::<hyper::Error>();
            if let Some(status) = cause.downcast_ref::<tonic::Status>() {
                said.get_or_insert(Self::of_code(status.code()));
            }
        }
        let lost = in_hyper.then_some(Self::MaybeProcessed(Code::Unavailable));
        said.or(lost).unwrap_or(Self::MaybeProcessed(Code::Unknown))
    }

    /// The verdict where `cause` alone settles it.
    fn of_cause(cause: &(dyn Error + 'static)) -> Option<Self> {
        if cause.is::<Elapsed>() || cause.is::<tonic::TimeoutExpired>() {
            return Some(Self::Deadline);
        }
        if cause.is::<tonic::ConnectError>() || cause.is::<Rejected>() {
            // A balancer and its connector have more details.
            return Some(match find_cause::<Rejected>(cause) {
                None => Self::NotProcessed(Stage::NoConnection),
                Some(unsent) if unsent.code() == Code::Unavailable => {
                    Self::NotProcessed(unsent.stage())
                }
                Some(unsent) => Self::MaybeProcessed(unsent.code()),
            });
        }
        if let Some(hyper) = cause.downcast_ref::<hyper::Error>() {
            if hyper.is_canceled() {
                return Some(Self::NotProcessed(Stage::NotWritten));
            }
            // The keepalive ping went unanswered.
            return hyper.is_timeout().then_some(Self::MaybeProcessed(Code::Unavailable));
        }
        cause.downcast_ref::<h2::Error>().and_then(Self::of_h2)
    }

    fn of_h2(error: &h2::Error) -> Option<Self> {
        // h2 reports a GOAWAY only to the streams above its last-stream-id.
        let unseen = error.is_remote()
            && (error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM));
        if unseen {
            return Some(Self::NotProcessed(Stage::RefusedStream));
        }
        // From hyper, for a body that has failed, or from h2, for data that it could not read.
        if error.is_reset() && !error.is_remote() {
            return Some(Self::Local(error.reason().map_or(Code::Internal, wire::code_of_reset)));
        }
        // The connection broke; h2 does not expose the details.
        let lost = error.is_io().then_some(Code::Unavailable);
        error.reason().map(wire::code_of_reset).or(lost).map(Self::MaybeProcessed)
    }

    /// Its gRPC code.
    pub const fn code(self) -> Code {
        match self {
            Self::Ok => Code::Ok,
            Self::Refused(code) | Self::MaybeProcessed(code) | Self::Local(code) => code,
            Self::NotProcessed(_) => Code::Unavailable,
            Self::Deadline => Code::DeadlineExceeded,
        }
    }
}

impl From<Verdict> for cinchona_policy::Verdict {
    #[inline]
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Ok => Self::Ok,
            Verdict::Refused(code) => Self::Refused(code_of(code)),
            Verdict::NotProcessed(stage) => Self::NotProcessed(stage),
            Verdict::MaybeProcessed(code) => Self::MaybeProcessed(code_of(code)),
            Verdict::Deadline => Self::Deadline,
            Verdict::Local(code) => Self::Local(code_of(code)),
        }
    }
}

/// The same code, for a decision.
#[inline]
pub(crate) const fn code_of(code: Code) -> cinchona_policy::Code {
    cinchona_policy::Code::from_number(code as i32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http::header::CONTENT_TYPE;
    use http_body_util::Full;
    use tonic::Status;

    #[test]
    fn the_source_chain_speaks_before_the_code() {
        let mut status = Status::cancelled("operation was canceled");
        let cause = tonic::ConnectError(io::Error::from(io::ErrorKind::ConnectionRefused).into());
        status.set_source(std::sync::Arc::new(cause));
        assert_eq!(Verdict::of_error(&status), Verdict::NotProcessed(Stage::NoConnection));
    }

    #[test]
    fn a_bare_status_speaks_for_itself() {
        let refused = Status::not_found("no such thing");
        assert_eq!(Verdict::of_error(&refused), Verdict::Refused(Code::NotFound));
        let shed = Status::resource_exhausted("full");
        assert_eq!(Verdict::of_error(&shed), Verdict::MaybeProcessed(Code::ResourceExhausted));
    }

    #[test]
    fn a_lost_connection_may_have_executed_the_request() {
        for kind in [io::ErrorKind::ConnectionReset, io::ErrorKind::TimedOut] {
            let lost = io::Error::from(kind);
            assert_eq!(Verdict::of_error(&lost), Verdict::MaybeProcessed(Code::Unavailable));
        }
    }

    #[test]
    fn a_local_timer_is_a_deadline() {
        assert_eq!(Verdict::of_error(&tonic::TimeoutExpired(())), Verdict::Deadline);
    }

    #[test]
    fn a_local_refusal_is_not_a_refusal_by_the_server() {
        let local = h2::Error::from(h2::Reason::REFUSED_STREAM);
        assert_eq!(Verdict::of_error(&local), Verdict::MaybeProcessed(Code::Unavailable));
    }

    fn head(http: u16, content_type: Option<&'static str>, body: &'static str) -> Verdict {
        let mut head = http::Response::new(Full::new(Bytes::from_static(body.as_bytes())));
        *head.status_mut() = StatusCode::from_u16(http).unwrap();
        head.headers_mut()
            .extend(content_type.map(|text| (CONTENT_TYPE, http::HeaderValue::from_static(text))));
        Verdict::of_head(&head)
    }

    // catalogue: S-A3
    #[test]
    fn only_a_head_of_grpcs_content_type_that_goes_on_commits() {
        for grpc in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc; charset=utf-8",
            "Application/GRPC",
            "application/grpc-web+proto",
        ] {
            assert_eq!(head(200, Some(grpc), "message"), Verdict::Ok, "{grpc}");
            let unsaid = Verdict::MaybeProcessed(Code::Unknown);
            assert_eq!(head(200, Some(grpc), ""), unsaid, "{grpc}: it has ended without a status");
        }
        for other in [None, Some("text/html"), Some("application/json"), Some("application/grp")] {
            let expected = Verdict::MaybeProcessed(Code::Unknown);
            assert_eq!(head(200, other, "<html>"), expected, "{other:?}");
        }
    }

    #[test]
    fn a_proxy_answering_503_is_unavailable() {
        let expected = Verdict::MaybeProcessed(Code::Unavailable);
        assert_eq!(head(503, Some("text/html"), "<html>"), expected);
    }

    // catalogue: S-A10
    #[test]
    fn a_servers_own_cancelled_stays_whatever_its_words() {
        for words in ["Timeout expired", "by the user"] {
            let head = Status::cancelled(words).into_http::<tonic::body::Body>();
            assert_eq!(Verdict::of_head(&head), Verdict::MaybeProcessed(Code::Cancelled));
        }
    }
}
