//! Marks refusals of calls that have not begun.

use http::{HeaderMap, HeaderName, HeaderValue};
use std::mem;
use tonic::{Status, metadata::MetadataMap};

const NOT_BEGUN: HeaderName = HeaderName::from_static("idempotency-not-begun");

/// `status`, with a mark that the call has had no effect: for a layer that refuses a call before it
/// begins, or has undone its work. A server layer that deduplicates calls then lets it be executed
/// again under the same key.
///
/// The mark is valid in this process only. It is a *sensitive* value, which no value from the
/// network is: so that of another server, whose status is passed on, does not count.
pub fn not_begun(mut status: Status) -> Status {
    let mut mark = HeaderValue::from_static("true");
    mark.set_sensitive(true);
    let mut headers = mem::take(status.metadata_mut()).into_headers();
    headers.insert(NOT_BEGUN, mark);
    *status.metadata_mut() = MetadataMap::from_headers(headers);
    status
}

/// Whether the headers or trailers of a failure are marked by [`not_begun`].
pub fn is_not_begun(headers: &HeaderMap) -> bool {
    headers.get(NOT_BEGUN).is_some_and(HeaderValue::is_sensitive)
}

/// Whether the headers or trailers of a failure are marked by [`not_begun`]; removes the mark.
pub fn take_not_begun(headers: &mut HeaderMap) -> bool {
    headers.remove(NOT_BEGUN).is_some_and(|mark| mark.is_sensitive())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_survives_a_status_and_that_of_another_process_does_not_count() {
        let mut status = Status::unavailable("read-only");
        status.metadata_mut().insert("x-why", "split".parse().unwrap());
        let (mut parts, ()) = not_begun(status.clone()).into_http::<()>().into_parts();
        assert!(is_not_begun(&parts.headers) && take_not_begun(&mut parts.headers));
        assert!(!is_not_begun(&parts.headers));
        assert_eq!(parts.headers["x-why"], "split");
        assert!(!take_not_begun(&mut parts.headers), "it is taken out");

        status.metadata_mut().insert("idempotency-not-begun", "true".parse().unwrap());
        let (mut parts, ()) = status.into_http::<()>().into_parts();
        assert!(!is_not_begun(&parts.headers) && !take_not_begun(&mut parts.headers));
        assert!(!parts.headers.contains_key(NOT_BEGUN));
    }
}
