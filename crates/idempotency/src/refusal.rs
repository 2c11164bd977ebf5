//! The statuses of calls that are not executed, with a reason for programs (`google.rpc.ErrorInfo`
//! in the status details, [AIP-193]).
//!
//! [AIP-193]: https://google.aip.dev/193

use cinchona_plumbing::{
    Seldom,
    status::{Pushback, push_back},
};
use std::{collections::HashMap, sync::LazyLock, time::Duration};
use tokio::time::Instant;
use tonic::{Code, Status, metadata::MetadataValue};
use tonic_types::{ErrorDetails, StatusExt};

/// The reason of requests that cannot be read.
const UNREADABLE: &str = "IDEMPOTENCY_REQUEST_UNREADABLE";

static PANICKED: LazyLock<Seldom> =
    LazyLock::new(|| Seldom::new(|more| tracing::error!(more, "calls are refused after a panic")));

fn status(code: Code, reason: &str, message: impl Into<String>) -> Status {
    let details = ErrorDetails::with_error_info(reason, "cinchona", HashMap::new());
    Status::with_error_details(code, message, details)
}

pub(crate) fn malformed_key(place: &str, longest: usize) -> Status {
    let message = format!("{place}: a key is 1 to {longest} bytes of printable ASCII");
    status(Code::InvalidArgument, "IDEMPOTENCY_KEY_MALFORMED", message)
}

pub(crate) fn missing_key(path: &str) -> Status {
    let message = format!("{path} needs the header idempotency-key");
    status(Code::InvalidArgument, "IDEMPOTENCY_KEY_MISSING", message)
}

pub(crate) fn reused_key() -> Status {
    let message = "this idempotency key was used for another request";
    status(Code::InvalidArgument, "IDEMPOTENCY_KEY_REUSED", message)
}

pub(crate) fn other_domain() -> Status {
    let message = "an earlier attempt was sent to a server of another idempotency domain, \
                   or to this one before it forgot; it may have been executed";
    status(Code::FailedPrecondition, "IDEMPOTENCY_DOMAIN_MISMATCH", message)
}

pub(crate) fn evicted() -> Status {
    let message = "the call was executed, and its answer had to make room for others";
    status(Code::FailedPrecondition, "IDEMPOTENCY_RECORD_EVICTED", message)
}

pub(crate) fn too_large(limit: usize) -> Status {
    let message = format!("the call was executed, and its answer of over {limit} bytes not kept");
    status(Code::FailedPrecondition, "IDEMPOTENCY_RECORD_TOO_LARGE", message)
}

pub(crate) fn full() -> Status {
    let message = "as many calls are remembered as can be; the call was not executed";
    status(Code::ResourceExhausted, "IDEMPOTENCY_STORE_FULL", message)
}

pub(crate) fn unreadable(why: &str) -> Status {
    let message = format!("the message cannot be read: {why}; the call was not executed");
    status(Code::Internal, UNREADABLE, message)
}

pub(crate) fn unknown_compression(known: &'static str) -> Status {
    let message = "the message is compressed by what this server does not know";
    let mut status = status(Code::Unimplemented, UNREADABLE, message);
    status.metadata_mut().insert("grpc-accept-encoding", MetadataValue::from_static(known));
    status
}

/// With tonic's message and code.
pub(crate) fn request_too_large(limit: usize) -> Status {
    Status::out_of_range(format!("there are more than {limit} bytes"))
}

/// Without the panic's message, which belongs in the server's log.
pub(crate) fn panicked(what: &str) -> Status {
    if PANICKED.is_due(Instant::now()) {
        tracing::error!("{what} panicked: the call is refused");
    }
    Status::internal(format!("{what} panicked"))
}

pub(crate) fn unknown_outcome() -> Status {
    let message = "an attempt with this idempotency key ended without an answer; \
                   it may have been executed";
    status(Code::Unknown, "IDEMPOTENCY_OUTCOME_UNKNOWN", message)
}

pub(crate) fn in_flight(pushback: Duration) -> Status {
    let message = "a call with this idempotency key is being executed";
    let mut status = status(Code::Aborted, "IDEMPOTENCY_KEY_IN_FLIGHT", message);
    push_back(status.metadata_mut().as_mut(), Pushback::After(pushback));
    status
}

/// Without the cause, which may reveal the store's address: that belongs in the server's log.
pub(crate) fn store_failed() -> Status {
    let message = "the idempotency store does not answer";
    status(Code::Unavailable, "IDEMPOTENCY_STORE_UNAVAILABLE", message)
}
