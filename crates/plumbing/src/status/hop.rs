//! Which metadata of a status are passed on by a server that calls another.
//!
//! A handler that calls another server passes its status on by `?`, with all metadata. Some of that
//! is hop-by-hop: a `grpc-retry-pushback-ms` is for the direct caller, and would be mistaken for
//! the intermediate server's.
//!
//! *Rule.* Client layers mark such values in the failures that they receive, and server layers
//! remove marked values from the failures that they send; values that the handler has set itself
//! are not marked, and stay. The mark is that the value is sensitive
//! ([`HeaderValue::set_sensitive`]): it is copied with the value (a `Status`, its clones, other
//! tasks), and needs no other header. It is not sent, and has no effect without a server layer,
//! except that `Debug` prints `Sensitive`.

use super::{pushback, said::code};
use http::{HeaderMap, HeaderValue};
use tonic::Code;

/// Values about the server, one connection to it, or how its answer was sent.
///
/// Not here: the status itself; its details, including their `RetryInfo`, which is about *this*
/// request, whoever sends it (AIP-193: they describe the error); headers that tonic never passes on
/// (`content-type`, `te`); and the application's own metadata.
const HOP_BY_HOP: [&str; 21] = [
    // gRPC
    pushback::NAME,
    "grpc-previous-rpc-attempts",
    "grpc-encoding",
    "grpc-accept-encoding",
    "endpoint-load-metrics",
    "endpoint-load-metrics-bin",
    // this project: the server that deduplicates the call, and the mark of a degraded answer
    "idempotency-domain",
    "degraded",
    "age",
    // HTTP (RFC 9110, 7.6.1), and descriptions of one message or its sender
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
    "content-encoding",
    "date",
    "server",
    "via",
];

/// Marks, in the headers or trailers of a received failure, the values that must not be passed on.
pub(super) fn mark(headers: &mut HeaderMap) {
    for (name, value) in headers.iter_mut() {
        if HOP_BY_HOP.contains(&name.as_str()) {
            value.set_sensitive(true);
        }
    }
}

/// Removes received hop-by-hop values from the headers or trailers of a failure that is to be sent.
/// For server layers; a success is not inspected.
pub fn strip(headers: &mut HeaderMap) {
    // A failure with more than its code.
    if headers.len() < 2 || code(headers).is_none_or(|code| code == Code::Ok) {
        return;
    }
    for name in HOP_BY_HOP {
        if headers.get_all(name).iter().any(HeaderValue::is_sensitive) {
            let all = headers.get_all(name).iter();
            let own: Vec<_> = all.filter(|value| !value.is_sensitive()).cloned().collect();
            headers.remove(name);
            for value in own {
                headers.append(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{mend, of_head};
    use tonic::Status;

    /// A failure with all of these, and some metadata of the application.
    fn failure() -> http::Response<()> {
        let mut status = Status::with_details(Code::Unavailable, "down", "details".into());
        for name in HOP_BY_HOP.into_iter().filter(|name| !name.ends_with("-bin")) {
            status.metadata_mut().insert(name, "1".parse().unwrap());
        }
        let utilization = tonic::metadata::MetadataValue::from_bytes(b"1");
        status.metadata_mut().insert_bin("endpoint-load-metrics-bin", utilization);
        status.metadata_mut().insert("x-reason", "theirs".parse().unwrap());
        status.into_http()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(|name| name.as_str()).collect();
        names.sort_unstable();
        names
    }

    const END_TO_END: [&str; 5] =
        ["content-type", "grpc-message", "grpc-status", "grpc-status-details-bin", "x-reason"];

    #[test]
    fn a_received_status_is_passed_on_without_hop_by_hop_values() {
        let mut handed_on = of_head(&failure()).into_http::<()>();
        assert!(handed_on.headers().len() > END_TO_END.len());
        strip(handed_on.headers_mut());
        assert_eq!(names(handed_on.headers()), END_TO_END);
        let mut trailers = failure().headers().clone();
        mend(&mut trailers);
        let status = Status::from_header_map(&trailers).unwrap();
        let mut sent = HeaderMap::new();
        status.clone().add_header(&mut sent).unwrap();
        strip(&mut sent);
        assert_eq!(names(&sent), END_TO_END[1..]);
    }

    #[test]
    fn values_that_the_handler_sets_stay_even_if_equal() {
        let mut own = failure();
        let before = names(own.headers()).len();
        strip(own.headers_mut());
        assert_eq!(names(own.headers()).len(), before);
        let mut status = of_head(&failure());
        status.metadata_mut().insert("grpc-retry-pushback-ms", "1".parse().unwrap());
        let mut sent = status.into_http::<()>();
        strip(sent.headers_mut());
        assert_eq!(sent.headers()["grpc-retry-pushback-ms"], "1");
        assert!(!sent.headers().contains_key("idempotency-domain"));
    }

    #[test]
    fn of_several_values_the_received_ones_are_removed() {
        let mut status = of_head(&failure());
        status.metadata_mut().append("degraded", "own".parse().unwrap());
        let mut sent = status.into_http::<()>();
        strip(sent.headers_mut());
        assert_eq!(sent.headers().get_all("degraded").iter().collect::<Vec<_>>(), ["own"]);
    }

    #[test]
    fn a_success_is_unchanged() {
        let mut head = http::Response::new(());
        head.headers_mut().insert("degraded", HeaderValue::from_static("cached"));
        mend(head.headers_mut());
        strip(head.headers_mut());
        assert_eq!(head.headers()["degraded"], "cached");
        assert!(!head.headers()["degraded"].is_sensitive());
    }
}
