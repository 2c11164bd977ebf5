//! Errors as statuses.

use super::Verdict;
use crate::BoxError;
use cinchona_plumbing::cause::{chain, find_cause};
use std::{error::Error, sync::Arc};
use tonic::{Code, Status};

// === impl Verdict ===

impl Verdict {
    /// `error` as a status whose code is that of its verdict, with `error` as its source.
    ///
    /// A `Status` that already has the right code is passed on untouched, message, details and all.
    pub fn status_of(error: BoxError) -> Status {
        let verdict = Self::of_error(&*error);
        let code = verdict.code();
        if let Self::Local(_) = verdict
            && let Some(reset) = find_cause::<h2::Error>(&*error)
        {
            let mut status = Status::new(code, why_reset(reset));
            status.set_source(Arc::from(error));
            return status;
        }
        let mut status = Status::try_from_error(error).unwrap_or_else(|error| {
            let mut status = Status::new(code, root_cause(&*error).to_string());
            status.set_source(Arc::from(error));
            status
        });
        recode(&mut status, code);
        status
    }
}

/// Why this client itself has reset a stream: the reason in HTTP/2 has little meaning.
fn why_reset(reset: &h2::Error) -> String {
    let reason = reset.reason().unwrap_or(h2::Reason::INTERNAL_ERROR);
    if reset.is_library() {
        format!(
            "this client has reset the stream ({reason:?}): it cannot read what the server has \
             sent; headers or trailers over the client's limit (max_header_list_size), perhaps"
        )
    } else {
        format!("this client has reset the stream ({reason:?}): the request's body has failed")
    }
}

fn recode(status: &mut Status, code: Code) {
    if status.code() != code {
        let details = status.details().to_vec().into();
        let metadata = std::mem::take(status.metadata_mut());
        let old = std::mem::replace(status, Status::ok(""));
        let message = old.message().to_owned();
        *status = Status::with_details_and_metadata(code, message, details, metadata);
        status.set_source(Arc::new(old));
    }
}

fn root_cause<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    chain(error).last().unwrap_or(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_without_status_takes_the_code_of_its_verdict() {
        let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        let status = Verdict::status_of(reset.into());
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(status.message(), "connection reset");
    }

    #[test]
    fn a_status_with_the_right_code_is_untouched() {
        let status =
            Verdict::status_of(Status::with_details(Code::NotFound, "gone", "x".into()).into());
        assert_eq!((status.code(), status.message()), (Code::NotFound, "gone"));
        assert_eq!(status.details(), b"x");
    }

    #[test]
    fn a_status_whose_source_knows_better_keeps_all_but_its_code() {
        let mut said = Status::with_details(Code::Cancelled, "operation was canceled", "x".into());
        said.metadata_mut().insert("mark", "y".parse().unwrap());
        said.set_source(Arc::new(tonic::ConnectError("refused".into())));
        let status = Verdict::status_of(said.into());
        assert_eq!(
            (status.code(), status.message()),
            (Code::Unavailable, "operation was canceled")
        );
        assert_eq!(status.details(), b"x");
        assert_eq!(status.metadata().get("mark").unwrap(), "y");
        assert!(find_cause::<tonic::ConnectError>(&status).is_some());
    }
}
