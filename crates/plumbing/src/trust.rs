//! Which requests may change a server.

use crate::secret::is_same;
use http::{
    HeaderMap, HeaderName, HeaderValue, Version,
    header::{AUTHORIZATION, HOST, ORIGIN},
    request::Parts,
};
use std::{error::Error, fmt, net::SocketAddr};

/// Decides which requests may change a server, such as its faults: one rule for each listener.
///
/// # Rule
///
/// * A request of a web page of another origin may change nothing (`origin`, `sec-fetch-site`).
/// * With a token, a change needs `authorization: Bearer <token>` (RFC 6750), also on loopback, and
///   may come from any address. Blanks around the token are ignored.
/// * Without one, the connection must be from loopback, and without a sign of a proxy, as a proxy
///   on the same machine connects from loopback for all its clients. So any header that proxies,
///   balancers and content delivery networks add disqualifies a request, whatever its value:
///   `forwarded` (RFC 7239), `via`, `x-forwarded-*`, `x-real-ip`, `cf-connecting-ip` and the like;
///   and so does HTTP/1.0, nginx's default.
///
/// # What it does not do
///
/// It cannot detect a proxy that adds no header: behind such a proxy, use a token.
///
/// ```
/// use cinchona_plumbing::{Distrust, Trust};
///
/// let request = http::Request::post("/").header("x-forwarded-for", "203.0.113.9");
/// let (request, ()) = request.body(()).unwrap().into_parts();
/// let peer = "127.0.0.1:5000".parse().ok();
/// let refused = Trust::new(None).check(&request, peer).unwrap_err();
/// assert_eq!(refused, Distrust::Proxied);
/// assert!(Trust::new(Some("a long secret")).check(&request, peer).is_err());
/// ```
#[derive(Clone)]
pub struct Trust {
    token: Option<Box<str>>,
}

/// Why a request may not change anything; shown to its sender as a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Distrust {
    /// It is from a web page of another origin.
    Origin,
    /// It lacks the token, or has another.
    Token,
    /// There is no token, and its connection is not from loopback.
    Remote,
    /// There is no token, and it came by a proxy.
    Proxied,
}

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The words of header names, between hyphens, that indicate a proxy.
const OF_PROXIES: [&str; 27] = [
    "addr",
    "akamai",
    "amz",
    "amzn",
    "arr",
    "azure",
    "bluecoat",
    "cdn",
    "cf",
    "clientip",
    "envoy",
    "fastly",
    "fly",
    "hops",
    "ip",
    "ips",
    "ipv6",
    "original",
    "originating",
    "proxied",
    "proxy",
    "realip",
    "remote",
    "socketip",
    "ssl",
    "varnish",
    "via",
];

// === impl Trust ===

impl Trust {
    /// Trusts callers with the `token`; without one, loopback.
    pub fn new(token: Option<&str>) -> Self {
        Self { token: token.map(Into::into) }
    }

    /// Whether there is a token, which a change needs.
    pub const fn needs_token(&self) -> bool {
        self.token.is_some()
    }

    /// Whether this request, on a connection from `peer` (if known), may make a change.
    ///
    /// # Errors
    /// Why it may not.
    pub fn check(&self, request: &Parts, peer: Option<SocketAddr>) -> Result<(), Distrust> {
        if !is_same_origin(request) {
            return Err(Distrust::Origin);
        }
        match &self.token {
            Some(token) if holds(&request.headers, token) => Ok(()),
            Some(_) => Err(Distrust::Token),
            None if !peer.is_some_and(|peer| peer.ip().to_canonical().is_loopback()) => {
                Err(Distrust::Remote)
            }
            None if is_proxied(request) => Err(Distrust::Proxied),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("token", &self.needs_token()).finish()
    }
}

impl fmt::Display for Trust {
    /// Which callers it trusts, for a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.token {
            Some(_) => "callers with the token",
            None => "callers on this machine, not through a proxy",
        })
    }
}

/// Whether no header indicates another page; programs send no such header.
fn is_same_origin(request: &Parts) -> bool {
    let host = request.headers.get(HOST).map(HeaderValue::as_bytes);
    let host = host.or_else(|| request.uri.authority().map(|named| named.as_str().as_bytes()));
    let is_ours = |origin: &HeaderValue| {
        origin.as_bytes().strip_prefix(b"http://").is_some_and(|origin| Some(origin) == host)
    };
    let is_direct = |site: &HeaderValue| site == "same-origin" || site == "none";
    request.headers.get_all(ORIGIN).iter().all(is_ours)
        && request.headers.get_all(SEC_FETCH_SITE).iter().all(is_direct)
}

/// Whether it indicates a proxy.
fn is_proxied(request: &Parts) -> bool {
    let speaks_of = |name: &HeaderName| {
        let mut words = name.as_str().split(['-', '_']);
        name.as_str().contains("forward") || words.any(|word| OF_PROXIES.contains(&word))
    };
    request.version < Version::HTTP_11 || request.headers.keys().any(speaks_of)
}

fn holds(headers: &HeaderMap, token: &str) -> bool {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (Some(said), None) = (all.next(), all.next()) else { return false };
    let Some((scheme, said)) = said.as_bytes().split_at_checked("bearer ".len()) else {
        return false;
    };
    scheme.eq_ignore_ascii_case(b"bearer ")
        && is_same(token.as_bytes().trim_ascii(), said.trim_ascii())
}

// === impl Distrust ===

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Origin => "another origin may not change anything",
            Self::Token => "a change needs the token, as authorization: Bearer",
            Self::Remote => "without a token, changes are taken from loopback only",
            Self::Proxied => "without a token, requests through a proxy change nothing",
        })
    }
}

impl Error for Distrust {}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    const LOOPBACK: &str = "127.0.0.1:5000";

    fn trust(token: Option<&str>) -> Trust {
        Trust::new(token)
    }

    /// What becomes of a request with these headers.
    fn check(trust: &Trust, peer: &str, headers: &[(&str, &str)]) -> Result<(), Distrust> {
        let mut request = Request::post("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        trust.check(&request.body(()).unwrap().into_parts().0, peer.parse().ok())
    }

    // catalogue: S-C8
    #[test]
    fn without_a_token_only_loopback_changes() {
        let trust = trust(None);
        for own in [LOOPBACK, "127.8.9.10:1", "[::1]:1", "[::ffff:127.0.0.1]:5000"] {
            assert_eq!(check(&trust, own, &[]), Ok(()), "{own}");
        }
        for other in ["10.0.0.9:5000", "0.0.0.0:1", "[::]:1", "[::ffff:10.0.0.1]:5", "unknown"] {
            let bearer = ("authorization", "Bearer x");
            assert_eq!(check(&trust, other, &[bearer]), Err(Distrust::Remote), "{other}");
        }
    }

    // catalogue: S-C8
    #[test]
    fn a_request_through_a_proxy_is_never_from_loopback() {
        let names = "Forwarded X-Forwarded-For x-forwarded-host X-FORWARDED-PROTO X-Forwarded \
            x_forwarded_for Forwarded-For X-Forwarded-Client-Cert X-Original-Forwarded-For Via \
            X-Real-IP x-real_ip X-Client-IP Client-IP X-Cluster-Client-IP True-Client-IP \
            CF-Connecting-IP CF-Connecting-IPv6 CF-Ray CDN-Loop Fastly-Client-IP Fly-Client-IP \
            X-Envoy-External-Address X-Envoy-Expected-Rq-Timeout-Ms X-Azure-ClientIP \
            X-Azure-SocketIP X-Appengine-User-IP X-ProxyUser-Ip WL-Proxy-Client-IP \
            Proxy-Client-IP Proxy-Connection X-Originating-IP X-Remote-IP X-Remote-Addr \
            X-Original-Host X-Amzn-Trace-Id X-Amz-Cf-Id X-ARR-LOG-ID Akamai-Origin-Hop \
            X-Varnish X-BlueCoat-Via Max-Forwards X-Vercel-Forwarded-For Ali-CDN-Real-IP \
            X-NF-Client-Connection-IP Incap-Client-IP DO-Connecting-IP";
        for name in names.split_whitespace() {
            for value in ["", " ", "127.0.0.1", "::1", "unknown", "for=127.0.0.1;by=_hidden"] {
                let one = check(&trust(None), LOOPBACK, &[(name, value)]);
                assert_eq!(one, Err(Distrust::Proxied), "{name}: {value}");
            }
            let twice = [("x-request-id", "1"), (name, "127.0.0.1"), (name, "127.0.0.1")];
            assert_eq!(check(&trust(None), LOOPBACK, &twice), Err(Distrust::Proxied), "{name}");
            let token = [(name, "203.0.113.9"), ("authorization", "Bearer s3cret")];
            assert_eq!(check(&trust(Some("s3cret")), LOOPBACK, &token), Ok(()), "{name}");
        }
        let mut old = Request::post("/").body(()).unwrap().into_parts().0;
        old.version = Version::HTTP_10;
        let peer = LOOPBACK.parse().ok();
        assert_eq!(trust(None).check(&old, peer), Err(Distrust::Proxied));
    }

    #[test]
    fn headers_of_programs_and_browsers_indicate_no_proxy() {
        let names = "host accept accept-encoding accept-language user-agent content-type te \
            content-length connection upgrade-insecure-requests sec-fetch-mode sec-fetch-dest \
            sec-ch-ua cookie referer dnt pragma cache-control grpc-timeout grpc-encoding \
            grpc-accept-encoding grpc-previous-rpc-attempts idempotency-key x-request-id \
            traceparent tracestate baggage b3 x-b3-traceid authorization priority";
        for name in names.split_whitespace() {
            assert_eq!(check(&trust(None), LOOPBACK, &[(name, "1")]), Ok(()), "{name}");
        }
    }

    // catalogue: S-E6
    #[test]
    fn with_a_token_only_requests_with_it_make_changes() {
        let of = |own, peer, said| check(&trust(Some(own)), peer, &[("authorization", said)]);
        for said in ["Bearer s3cret", "bearer s3cret", "BEARER   s3cret", "Bearer s3cret "] {
            assert_eq!(of("s3cret", "10.0.0.9:5000", said), Ok(()), "{said:?}");
            assert_eq!(of("s3cret\n", "unknown", said), Ok(()), "{said:?}");
        }
        for said in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer  ",
            "Bearer s3cre",
            "Bearer s3cret1",
            "Bearer S3cret",
            "Basic s3cret",
            "s3cret",
            "Bearers3cret",
            "Bearer s3cret s3cret",
            "Bearer \"s3cret\"",
            " Bearer",
            "Token s3cret",
        ] {
            assert_eq!(of("s3cret", LOOPBACK, said), Err(Distrust::Token), "{said:?}");
        }
        assert_eq!(check(&trust(Some("s3cret")), LOOPBACK, &[]), Err(Distrust::Token));
        let twice = [("authorization", "Bearer s3cret"), ("authorization", "Bearer s3cret")];
        assert_eq!(check(&trust(Some("s3cret")), LOOPBACK, &twice), Err(Distrust::Token));
    }

    // catalogue: S-C8
    #[test]
    fn a_page_of_another_origin_changes_nothing_not_even_with_the_token() {
        let with = |name, value| {
            let token = ("authorization", "Bearer s3cret");
            let headers = [("host", "127.0.0.1:9090"), token, (name, value)];
            let two = [None, Some("s3cret")].map(|own| check(&trust(own), LOOPBACK, &headers));
            assert_eq!(two[0], two[1]);
            two[0]
        };
        assert_eq!(with("origin", "http://127.0.0.1:9090"), Ok(()));
        assert_eq!(with("sec-fetch-site", "same-origin"), Ok(()));
        assert_eq!(with("sec-fetch-site", "none"), Ok(()));
        for origin in ["null", "", "http://evil.example", "http://127.0.0.1:1", "127.0.0.1:9090"] {
            assert_eq!(with("origin", origin), Err(Distrust::Origin), "{origin}");
        }
        for site in ["cross-site", "same-site", ""] {
            assert_eq!(with("sec-fetch-site", site), Err(Distrust::Origin), "{site}");
        }
    }
}
