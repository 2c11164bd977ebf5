//! The headers that pass from HTTP to the call, and back.

use cinchona_plumbing::{status::PREVIOUS_ATTEMPTS, timeout::GRPC_TIMEOUT};
use http::{HeaderMap, HeaderName};
use tonic::metadata::MetadataMap;

/// The headers that are about one message of HTTP, beside those that begin with `accept`,
/// `content-` and `grpc-`.
const OF_HTTP: [&str; 11] = [
    "cache-control",
    "connection",
    "date",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The headers of the call that a request becomes.
pub(super) fn as_metadata(mut headers: HeaderMap) -> MetadataMap {
    let of_call = [GRPC_TIMEOUT, PREVIOUS_ATTEMPTS];
    retain(&mut headers, |name| of_call.iter().any(|of| of == name) || !is_of_message(name));
    MetadataMap::from_headers(headers)
}

/// The headers of the HTTP answer that a response becomes.
pub(super) fn as_headers(metadata: MetadataMap) -> HeaderMap {
    let mut headers = metadata.into_headers();
    retain(&mut headers, |name| !is_of_message(name));
    headers
}

fn retain(headers: &mut HeaderMap, keeps: impl Fn(&str) -> bool) {
    let all: Vec<HeaderName> = headers.keys().cloned().collect();
    for name in all.iter().filter(|name| !keeps(name.as_str())) {
        headers.remove(name);
    }
}

/// Whether a header is about this very message of HTTP or gRPC, and not about the call.
fn is_of_message(name: &str) -> bool {
    OF_HTTP.contains(&name)
        || ["accept", "content-", "grpc-"].iter().any(|start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn what_is_about_the_call_goes_on_and_what_is_about_http_does_not() {
        let of_call = ["grpc-timeout", "grpc-previous-rpc-attempts", "traceparent", "x-tenant"];
        let of_http = ["grpc-encoding", "content-length", "accept-encoding", "host", "te"];
        let mut headers = HeaderMap::new();
        for name in of_call.into_iter().chain(of_http) {
            headers.append(name, HeaderValue::from_static("1"));
            headers.append(name, HeaderValue::from_static("2"));
        }
        let kept = as_metadata(headers.clone()).into_headers();
        assert_eq!(kept.len(), 2 * of_call.len());
        assert!(of_call.iter().all(|name| kept.contains_key(*name)));
        let shown = as_headers(MetadataMap::from_headers(headers));
        assert_eq!(
            shown.keys().map(HeaderName::as_str).collect::<Vec<_>>(),
            ["traceparent", "x-tenant"]
        );
    }
}
