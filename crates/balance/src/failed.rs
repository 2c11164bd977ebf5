//! Errors of calls that failed in transit: method, endpoint, cause.

use crate::dial::root;
use cinchona_core::{BoxError, Rejected, Verdict};
use cinchona_plumbing::cause::find_cause;
use http::{Request, uri::PathAndQuery};
use std::{error::Error, fmt, sync::Arc};
use tonic::Status;

/// The method of a call.
#[derive(Clone, Debug)]
pub(crate) struct Whereto(Option<PathAndQuery>);

/// A call that failed in transit; its `source()` is a status with the details, whose source is the
/// cause.
#[derive(Debug)]
struct Failed(Status);

// === impl Whereto ===

impl Whereto {
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        Self(request.uri().path_and_query().cloned())
    }

    /// `error`, with its method and endpoint. A status of the server or of a layer of ours is kept.
    pub(crate) fn explain(&self, error: BoxError, endpoint: &str) -> BoxError {
        let verdict = Verdict::of_error(&*error);
        let has_status = find_cause::<Status>(&*error).is_some();
        let is_lost = find_cause::<Rejected>(&*error).is_some();
        if matches!(verdict, Verdict::Local(_)) || has_status && !is_lost {
            return error;
        }
        let cause = match find_cause::<Rejected>(&*error) {
            Some(rejected) => rejected.to_string(),
            None => root(&*error),
        };
        let mut status = Status::new(verdict.code(), self.says(endpoint, &cause));
        status.set_source(Arc::from(error));
        Failed(status).into()
    }

    /// The same for the error at the end of a response, unless it is the server's status.
    pub(crate) fn explain_status(&self, status: Status, endpoint: &str) -> Status {
        let verdict = Verdict::of_error(&status);
        if status.source().is_none() || matches!(verdict, Verdict::Local(_)) {
            return status;
        }
        // tonic's code for a connection that is lost during a body is `UNKNOWN`.
        let mut failed = Status::new(verdict.code(), self.says(endpoint, status.message()));
        failed.set_source(Arc::new(status));
        failed
    }

    fn says(&self, endpoint: &str, cause: &str) -> String {
        let method = self.0.as_ref().map_or("", |method| method.path());
        format!("{method} at {endpoint}: {cause}")
    }
}

/// Whether the server has ended the connection for too many pings (gRFC A8).
pub(crate) fn is_of_too_many_pings(error: &(dyn Error + 'static)) -> bool {
    find_cause::<h2::Error>(error).is_some_and(|error| {
        error.is_go_away()
            && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM)
            && error.to_string().contains("too_many_pings")
    })
}

// === impl Failed ===

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.message())
    }
}

impl Error for Failed {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}
