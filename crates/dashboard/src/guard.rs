//! Who may ask, and who may change.

use axum::{
    extract::{ConnectInfo, Request, connect_info::Connected},
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{
            AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, ORIGIN,
            REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
        },
    },
    middleware::Next,
    response::{IntoResponse, Response},
    serve::IncomingStream,
};
use cinchona_core::Secret;
use std::net::{IpAddr, SocketAddr};
use tokio::net::TcpListener;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// The two ends of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    /// Unknown when the connection was gone before it was asked.
    local: Option<SocketAddr>,
    remote: SocketAddr,
}

/// A refusal: its status, and why, for a human.
pub(crate) type Refused = (StatusCode, &'static str);

/// Answers nobody who came by a strange name, and puts the headers on every answer.
pub(crate) async fn guard(
    ConnectInfo(peer): ConnectInfo<Peer>,
    req: Request,
    next: Next,
) -> Response {
    let mut response = if is_ours(&req, peer) {
        next.run(req).await
    } else {
        (StatusCode::MISDIRECTED_REQUEST, "the host is not an address of this dashboard")
            .into_response()
    };
    let corp = HeaderName::from_static("cross-origin-resource-policy");
    for (name, value) in [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CACHE_CONTROL, "no-store"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "same-origin"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (corp, "same-origin"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Whether this request may change something.
///
/// # Errors
/// Why it may not.
pub(crate) fn may_change(
    headers: &HeaderMap,
    peer: Peer,
    token: Option<&Secret>,
) -> Result<(), Refused> {
    if !is_same_origin(headers) {
        return Err((StatusCode::FORBIDDEN, "another origin may not change anything"));
    }
    match token {
        Some(token) if !holds(headers, token) => {
            return Err((StatusCode::UNAUTHORIZED, "a change needs the token"));
        }
        None if !peer.remote.ip().to_canonical().is_loopback() => {
            let why = "without a token, changes are taken from loopback only";
            return Err((StatusCode::FORBIDDEN, why));
        }
        _ => {}
    }
    if !is_json(headers) {
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, "a change is application/json"));
    }
    Ok(())
}

/// Whether the request names loopback, or the address it came in at.
fn is_ours(request: &Request, peer: Peer) -> bool {
    let of_uri = request.uri().host().is_none_or(|host| peer.is_called(host));
    let host = single(request.headers(), HOST.as_str()).and_then(|host| host.to_str().ok());
    of_uri && host.is_some_and(|host| peer.is_called(without_port(host)))
}

/// Whether nothing says that another page sent it; a program says nothing at all.
fn is_same_origin(headers: &HeaderMap) -> bool {
    let is_ours = |origin: &HeaderValue| {
        let host = headers.get(HOST).map(HeaderValue::as_bytes);
        origin.as_bytes().strip_prefix(b"http://").is_some_and(|origin| Some(origin) == host)
    };
    headers.get_all(ORIGIN).iter().all(is_ours)
        && headers
            .get_all(SEC_FETCH_SITE)
            .iter()
            .all(|site| site == "same-origin" || site == "none")
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = single(headers, CONTENT_TYPE.as_str()).and_then(|value| value.to_str().ok());
    let essence = value.and_then(|value| value.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

/// The value of a header that is there once.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a HeaderValue> {
    let mut all = headers.get_all(name).iter();
    all.next().filter(|_| all.next().is_none())
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

// === impl Peer ===

impl Peer {
    fn is_called(&self, host: &str) -> bool {
        let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        match address.unwrap_or(host).parse::<IpAddr>() {
            Ok(ip) => {
                let ip = ip.to_canonical();
                ip.is_loopback() || self.local.is_some_and(|own| own.ip().to_canonical() == ip)
            }
            Err(_) => host.eq_ignore_ascii_case("localhost"),
        }
    }
}

impl Connected<IncomingStream<'_, TcpListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self { local: stream.io().local_addr().ok(), remote: *stream.remote_addr() }
    }
}

fn holds(headers: &HeaderMap, token: &Secret) -> bool {
    let value = single(headers, AUTHORIZATION.as_str()).map(HeaderValue::as_bytes);
    let Some((scheme, given)) = value.and_then(|value| value.split_at_checked(7)) else {
        return false;
    };
    scheme.eq_ignore_ascii_case(b"bearer ") && token.is(given.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(local: &str, remote: &str) -> Peer {
        Peer { local: local.parse().ok(), remote: remote.parse().unwrap() }
    }

    fn headers(of: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        of.iter().map(pair).collect()
    }

    #[test]
    fn a_host_is_loopback_or_the_address_it_came_in_at() {
        let peer = peer("10.0.0.5:9090", "10.0.0.9:5000");
        for host in ["localhost", "LOCALHOST:80", "127.0.0.1:9090", "[::1]:9090", "10.0.0.5:1"] {
            assert!(peer.is_called(without_port(host)), "{host}");
        }
        let strange = ["evil.example", "localhost.evil.example:9090", "10.0.0.6", "", "0.0.0.0"];
        for host in strange.into_iter().chain(["127.0.0.1.evil.example", "localhost:80:80"]) {
            assert!(!peer.is_called(without_port(host)), "{host}");
        }
    }

    #[test]
    fn without_a_token_only_loopback_changes() {
        let json = headers(&[("content-type", "application/json; charset=utf-8")]);
        let of = |remote| may_change(&json, peer("10.0.0.5:9090", remote), None);
        assert_eq!(of("127.0.0.1:5000"), Ok(()));
        assert_eq!(of("[::ffff:127.0.0.1]:5000"), Ok(()));
        assert_eq!(of("10.0.0.9:5000").unwrap_err().0, StatusCode::FORBIDDEN);
    }

    #[test]
    fn with_a_token_anyone_who_has_it_changes_and_nobody_else() {
        let token = Secret::from("s3cret");
        let json = ("content-type", "application/json");
        let of = |remote, authorization| {
            let headers = headers(&[json, ("authorization", authorization)]);
            may_change(&headers, peer("10.0.0.5:9090", remote), Some(&token))
        };
        assert_eq!(of("10.0.0.9:5000", "Bearer s3cret"), Ok(()));
        for wrong in ["Bearer s3cre", "Bearer s3cret1", "Basic s3cret", "Bearer ", "", "s3cret"] {
            let refused = of("127.0.0.1:5000", wrong).unwrap_err();
            assert_eq!(refused.0, StatusCode::UNAUTHORIZED, "{wrong}");
        }
    }
}
