//! What the outcome of an attempt implies about its server.

use crate::{Stage, Verdict, verdict::code_of};
use cinchona_plumbing::{Framing, Spent, status};
use http::{HeaderMap, Response, StatusCode};
use http_body::Body;
use std::error::Error;
use tonic::Code;

/// What the outcome of an attempt implies about the server: everything that judges servers
/// (pickers, outlier detection, breakers) reads only this.
///
/// # Rule
///
/// | outcome | evidence |
/// |---|---|
/// | success; a refusal of the request by the application (`NOT_FOUND`, `ABORTED`, …) | good |
/// | `UNAVAILABLE`, `INTERNAL`, `UNKNOWN`, `DATA_LOSS` | bad |
/// | those with a pushback, and `RESOURCE_EXHAUSTED`: a server that sheds load is up | none |
/// | no connection, a lost connection, a stream reset or refused by the server | bad |
/// | an answer that is not gRPC's: HTTP 200 of another content type, HTTP 404, 5xx | bad |
/// | HTTP 400, 401, 403, 413, 429 and other 4xx without `grpc-status`: about the request | none |
/// | a body that ends without trailers, in the middle of a message, or is no gRPC message | bad |
/// | a deadline that left it its usual time, or the limit of an attempt | bad |
/// | any other deadline; a caller that gives up; `CANCELLED` | none |
/// | a failure of this client ([`Verdict::Local`]); a request that never left it | none |
///
/// The two algorithms of gRFC A50 have their own rule: every code but OK is a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// The server has answered.
    Good(Code),
    /// The server has failed.
    Bad(Code),
    /// None, with the code if the server has sent one.
    Nothing(Option<Code>),
}

// === impl Evidence ===

impl Evidence {
    /// The evidence of a response head; `None` if its trailers are to come. `now` is called only if
    /// needed.
    pub fn of_head<B: Body>(response: &Response<B>, spent: impl FnOnce() -> Spent) -> Option<Self> {
        let headers = response.headers();
        if status::code(headers).is_some() {
            return Some(Self::of_trailers(headers, spent));
        }
        match Verdict::of_head(response) {
            Verdict::Ok => None,
            verdict => Some(Self::of_http(response.status(), verdict.code())),
        }
    }

    /// The evidence of trailers, or of the headers of a trailers-only response.
    pub fn of_trailers(trailers: &HeaderMap, spent: impl FnOnce() -> Spent) -> Self {
        let verdict = Verdict::of_trailers(trailers);
        if verdict == Verdict::Ok {
            return Self::Good(Code::Ok);
        }
        let evidence = match verdict {
            // The message with which a tonic server's timer ends a call.
            Verdict::MaybeProcessed(Code::Cancelled) if status::says_timeout_expired(trailers) => {
                let spent = spent();
                match spent.is_over() {
                    true => Self::of_deadline(Some(Code::Cancelled), spent),
                    false => Self::Nothing(Some(Code::Cancelled)),
                }
            }
            verdict => Self::of_verdict(verdict, spent),
        };
        match evidence {
            Self::Bad(code) if status::pushback(trailers).is_some() => Self::Nothing(Some(code)),
            evidence => evidence,
        }
    }

    /// The evidence of an error, from its `source()` chain.
    pub fn of_error(error: &(dyn Error + 'static), spent: impl FnOnce() -> Spent) -> Self {
        Self::of_verdict(Verdict::of_error(error), spent)
    }

    /// The evidence of a body that ended without trailers, or was malformed.
    pub const fn of_broken() -> Self {
        Self::Bad(Code::Unknown)
    }

    /// The evidence of a dropped attempt; `read` is what was read of its response, if that had
    /// begun. A stream that has sent a message, or that is silent and ended by its caller's own
    /// deadline, is not blamed.
    pub fn of_dropped(spent: Spent, read: Option<&Framing>) -> Self {
        let may_last = |read: &Framing| read.has_message() || !spent.allowed.is_of_attempt();
        match read {
            Some(read) if may_last(read) => Self::Nothing(None),
            _ if spent.is_over() => Self::of_deadline(None, spent),
            _ => Self::Nothing(None),
        }
    }

    /// The evidence of a verdict alone.
    pub fn of_verdict(verdict: Verdict, spent: impl FnOnce() -> Spent) -> Self {
        match verdict {
            Verdict::Ok => Self::Good(Code::Ok),
            Verdict::Refused(Code::DataLoss) => Self::Bad(Code::DataLoss),
            Verdict::Refused(code) | Verdict::MaybeProcessed(code @ Code::Aborted) => {
                Self::Good(code)
            }
            Verdict::MaybeProcessed(code @ (Code::Cancelled | Code::ResourceExhausted)) => {
                Self::Nothing(Some(code))
            }
            Verdict::MaybeProcessed(code @ Code::DeadlineExceeded) => {
                Self::of_deadline(Some(code), spent())
            }
            Verdict::Deadline => Self::of_deadline(None, spent()),
            Verdict::Local(_) | Verdict::NotProcessed(Stage::NotWritten) => Self::Nothing(None),
            Verdict::NotProcessed(_) => Self::Bad(Code::Unavailable),
            Verdict::MaybeProcessed(code) => Self::Bad(code),
        }
    }

    /// An answer without a gRPC status, from a proxy in front of a gRPC server; some are about the
    /// request.
    fn of_http(http: StatusCode, code: Code) -> Self {
        let is_about_request = http.is_client_error() && http != StatusCode::NOT_FOUND;
        if is_about_request { Self::Nothing(Some(code)) } else { Self::Bad(code) }
    }

    fn of_deadline(said: Option<Code>, spent: Spent) -> Self {
        if spent.was_enough() { Self::Bad(Code::DeadlineExceeded) } else { Self::Nothing(said) }
    }

    /// The code, where there is one.
    pub const fn code(self) -> Option<Code> {
        match self {
            Self::Good(code) | Self::Bad(code) => Some(code),
            Self::Nothing(code) => code,
        }
    }
}

impl From<Evidence> for cinchona_policy::Evidence {
    #[inline]
    fn from(evidence: Evidence) -> Self {
        match evidence {
            Evidence::Good(code) => Self::Good(code_of(code)),
            Evidence::Bad(code) => Self::Bad(code_of(code)),
            Evidence::Nothing(code) => Self::Nothing(code.map(code_of)),
        }
    }
}

#[cfg(test)]
mod tests;
