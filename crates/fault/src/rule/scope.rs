//! Whether a rule selects a request.

use super::{Method, Scope, Text};
use cinchona_plumbing::{is_of_the_server, status::previous_attempts};
use http::{Extensions, HeaderMap};
use tonic::transport::server::TcpConnectInfo;

/// The properties of a request that rules match.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) path: &'a str,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) extensions: &'a Extensions,
    /// It already fails for another reason: it may only be delayed.
    pub(crate) is_failing: bool,
}

// === impl Scope ===

impl Scope {
    pub(crate) fn holds(&self, asked: Asked<'_>) -> bool {
        let Asked { path, headers, extensions, .. } = asked;
        let method = match &self.method {
            Method::Any => true,
            Method::Service(prefix) => path.starts_with(&**prefix),
            Method::Exact(exact) => path == exact,
        };
        let metadata = self.metadata.iter().all(|(key, text)| {
            headers.get_all(key).iter().any(|value| match text {
                Text::Whole(whole) => value.as_bytes() == whole.as_bytes(),
                Text::Prefix(prefix) => value.as_bytes().starts_with(prefix.as_bytes()),
            })
        });
        let caller = || {
            let peer = extensions.get().and_then(TcpConnectInfo::remote_addr);
            self.caller.is_none_or(|(ip, port)| {
                peer.is_some_and(|peer| {
                    // A dual-stack socket shows IPv4 callers as IPv6 addresses.
                    peer.ip().to_canonical() == ip.to_canonical()
                        && port.is_none_or(|port| port == peer.port())
                })
            })
        };
        let attempt = || {
            let attempt = previous_attempts(headers).saturating_add(1);
            self.attempt.as_ref().is_none_or(|wanted| wanted.contains(&attempt))
        };
        method && metadata && (self.health || !is_of_the_server(path)) && caller() && attempt()
    }
}
