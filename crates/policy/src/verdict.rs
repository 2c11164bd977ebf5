//! What the outcome of an attempt means, and what it implies about the server: as data.

use crate::{Code, Stage};

/// What the outcome of one attempt means.
///
/// Whoever reads a host's answers and errors finds it: for tonic that is `cinchona_core::Verdict`,
/// which becomes this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// This client itself failed; a repetition would end the same way.
    Local(Code),
}

/// What the outcome of an attempt implies about its server.
///
/// For tonic `cinchona_core::Evidence` finds it, and becomes this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// The server has answered.
    Good(Code),
    /// The server has failed.
    Bad(Code),
    /// None, with the code if the server has sent one.
    Nothing(Option<Code>),
}

// === impl Verdict ===

impl Verdict {
    /// The verdict on a status that the server sent.
    #[inline]
    pub const fn of_code(code: Code) -> Self {
        match code {
            Code::Ok => Self::Ok,
            Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::DataLoss
            | Code::Unauthenticated => Self::Refused(code),
            _ => Self::MaybeProcessed(code),
        }
    }

    /// The code that the caller sees.
    #[inline]
    pub const fn code(self) -> Code {
        match self {
            Self::Ok => Code::Ok,
            Self::Refused(code) | Self::MaybeProcessed(code) | Self::Local(code) => code,
            Self::NotProcessed(_) => Code::Unavailable,
            Self::Deadline => Code::DeadlineExceeded,
        }
    }
}

// === impl Evidence ===

impl Evidence {
    /// The code, where there is one.
    #[inline]
    pub const fn code(self) -> Option<Code> {
        match self {
            Self::Good(code) | Self::Bad(code) => Some(code),
            Self::Nothing(code) => code,
        }
    }
}
