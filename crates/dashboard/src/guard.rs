//! Which clients may read, and which may change.

use crate::dashboard::Served;
use axum::{
    extract::{ConnectInfo, Request, State},
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{
            CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, REFERRER_POLICY,
            X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
        },
        request::Parts,
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use cinchona_plumbing::{Distrust, Trust};
use std::net::{IpAddr, SocketAddr};

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

const FOREIGN: &str = "the host is neither an address of this dashboard nor a name that it was \
    given (Dashboard::with_hosts)";

/// The two ends of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    /// `None` if the connection was closed before its addresses were read.
    pub(crate) local: Option<SocketAddr>,
    pub(crate) remote: SocketAddr,
}

/// A refusal: its status, and the reason as text.
pub(crate) type Refused = (StatusCode, String);

/// Refuses requests for a foreign host name, and adds the security headers to every answer.
pub(crate) async fn guard(
    State(served): State<Served>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    req: Request,
    next: Next,
) -> Response {
    let is_called = |host: &str| peer.is_called(host) || served.is_called(host);
    let mut response = match is_for(&req, is_called) {
        true => next.run(req).await,
        false => (StatusCode::MISDIRECTED_REQUEST, FOREIGN).into_response(),
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

/// Whether this request may make a change.
///
/// # Errors
/// The refusal.
pub(crate) fn may_change(request: &Parts, peer: Peer, trust: &Trust) -> Result<(), Refused> {
    trust.check(request, Some(peer.remote)).map_err(|why| match why {
        Distrust::Token => (StatusCode::UNAUTHORIZED, why.to_string()),
        _ => (StatusCode::FORBIDDEN, why.to_string()),
    })?;
    if !is_json(&request.headers) {
        let why = "a change is application/json".to_owned();
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
    }
    Ok(())
}

/// Whether the host of the request is one that the dashboard `is_called`.
fn is_for(request: &Request, is_called: impl Fn(&str) -> bool) -> bool {
    let of_uri = request.uri().host().is_none_or(&is_called);
    let host = single(request.headers(), HOST.as_str()).and_then(|host| host.to_str().ok());
    of_uri && host.is_some_and(|host| is_called(without_port(host)))
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = single(headers, CONTENT_TYPE.as_str()).and_then(|value| value.to_str().ok());
    let essence = value.and_then(|value| value.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

/// The value of a header that occurs exactly once.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(local: &str, remote: &str) -> Peer {
        Peer { local: local.parse().ok(), remote: remote.parse().unwrap() }
    }

    #[test]
    fn a_host_is_loopback_or_the_address_at_which_it_arrived() {
        let peer = peer("10.0.0.5:9090", "10.0.0.9:5000");
        for host in ["localhost", "LOCALHOST:80", "127.0.0.1:9090", "[::1]:9090", "10.0.0.5:1"] {
            assert!(peer.is_called(without_port(host)), "{host}");
        }
        let strange = ["evil.example", "localhost.evil.example:9090", "10.0.0.6", "", "0.0.0.0"];
        for host in strange.into_iter().chain(["127.0.0.1.evil.example", "localhost:80:80"]) {
            assert!(!peer.is_called(without_port(host)), "{host}");
        }
    }
}
