//! Identifies callers: their keys are separate.

use crate::refusal;
use cinchona_plumbing::{Callback, warn_of_unknown_peer};
use http::{Extensions, HeaderMap, HeaderName};
use sha2::{Digest, Sha256};
use std::{
    fmt,
    net::IpAddr,
    panic::{AssertUnwindSafe, catch_unwind},
};
#[cfg(unix)]
use tonic::transport::server::UdsConnectInfo;
use tonic::{
    Status,
    transport::server::{TcpConnectInfo, TlsConnectInfo},
};

/// By what callers are distinguished.
#[derive(Clone, Default, PartialEq)]
pub(crate) enum Callers {
    /// Credentials, else the certificate of the peer, else its address.
    #[default]
    Credentials,
    /// By the user's function, else as by default.
    Named(Callback<NameOf>),
    /// By the values of a header, else as by default.
    Header(HeaderName),
    /// The address of the peer alone.
    Peer,
    /// All callers are one.
    Shared,
}

type NameOf = dyn Fn(&HeaderMap, &Extensions) -> Option<String> + Send + Sync;

/// The prefix of each kind of caller, so that the kinds cannot collide.
const NAMED: u8 = b'n';
const HEADER: u8 = b'h';
const CREDENTIALS: u8 = b'c';
const CERTIFICATE: u8 = b't';
const ADDRESS: u8 = b'a';
const USER: u8 = b'u';

/// Words in the names of headers that identify the caller.
const WORDS: [&str; 17] = [
    "auth",
    "token",
    "cookie",
    "key",
    "session",
    "jwt",
    "cert",
    "user",
    "tenant",
    "identity",
    "principal",
    "credential",
    "secret",
    "password",
    "account",
    "customer",
    "client-id",
];

type Tls = TlsConnectInfo<TcpConnectInfo>;

// === impl Callers ===

impl Callers {
    /// The caller's name, which no other caller has; empty if nothing is known, as on a transport
    /// without peer addresses.
    pub(crate) fn of(
        &self,
        headers: &HeaderMap,
        extensions: &Extensions,
    ) -> Result<Vec<u8>, Status> {
        match self {
            Self::Credentials => Ok(by_credentials(headers, extensions)),
            Self::Named(name) => {
                let named = catch_unwind(AssertUnwindSafe(|| name(headers, extensions)))
                    .map_err(|_| refusal::panicked("the function that names callers"))?;
                Ok(match named {
                    Some(name) => tagged(NAMED, name.as_bytes()),
                    None => by_credentials(headers, extensions),
                })
            }
            Self::Header(name) if headers.contains_key(name) => {
                let values = headers.get_all(name).iter().map(|value| value.as_bytes());
                Ok(tagged(HEADER, &digest(values)))
            }
            Self::Header(_) => Ok(by_credentials(headers, extensions)),
            Self::Peer => Ok(address(extensions)),
            Self::Shared => Ok(Vec::new()),
        }
    }
}

impl fmt::Debug for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Credentials => "by credentials",
            Self::Named(_) => "by a function",
            Self::Header(_) => "by a header",
            Self::Peer => "by peer",
            Self::Shared => "shared",
        })
    }
}

fn by_credentials(headers: &HeaderMap, extensions: &Extensions) -> Vec<u8> {
    let of_caller = headers.iter().filter(|(name, _)| is_credential(name.as_str()));
    let mut credentials: Vec<_> =
        of_caller.map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())).collect();
    if !credentials.is_empty() {
        // The order of different names is irrelevant. A stable sort: the order of values matters.
        credentials.sort_by_key(|(name, _)| *name);
        let parts = credentials.into_iter().flat_map(|(name, value)| [name, value]);
        return tagged(CREDENTIALS, &digest(parts));
    }
    if let Some(certs) = extensions.get::<Tls>().and_then(Tls::peer_certs)
        && let Some(own) = certs.first()
    {
        return tagged(CERTIFICATE, &digest([own.as_ref()].into_iter()));
    }
    address(extensions)
}

/// The address of the peer without its port, as a retry may come over another connection.
fn address(extensions: &Extensions) -> Vec<u8> {
    let tcp = extensions.get::<TcpConnectInfo>();
    let tcp = tcp.or_else(|| extensions.get::<Tls>().map(Tls::get_ref));
    if let Some(peer) = tcp.and_then(TcpConnectInfo::remote_addr) {
        return match peer.ip().to_canonical() {
            IpAddr::V4(ip) => tagged(ADDRESS, &ip.octets()),
            IpAddr::V6(ip) => tagged(ADDRESS, &ip.octets()),
        };
    }
    #[cfg(unix)]
    if let Some(user) = extensions.get::<UdsConnectInfo>().and_then(|info| info.peer_cred) {
        return tagged(USER, &user.uid().to_be_bytes());
    }
    warn_of_unknown_peer();
    Vec::new()
}

/// Whether a header identifies the caller. Headers of every call are excluded first.
fn is_credential(name: &str) -> bool {
    match name {
        "te"
        | "content-type"
        | "content-length"
        | "user-agent"
        | "x-user-agent"
        | "accept"
        | "accept-encoding"
        | "traceparent"
        | "tracestate"
        | "baggage"
        | "x-request-id"
        | "idempotency-key"
        | "idempotency-domain"
        | "grpc-timeout"
        | "grpc-encoding"
        | "grpc-accept-encoding"
        | "grpc-previous-rpc-attempts" => false,
        _ => WORDS.iter().any(|word| name.contains(word)),
    }
}

/// A hash without known collisions: a reader of the store finds no credentials.
fn digest<'a>(parts: impl Iterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

fn tagged(tag: u8, caller: &[u8]) -> Vec<u8> {
    [&[tag], caller].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;
    use std::net::SocketAddr;
    use std::sync::Arc;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn from(peer: &str) -> Extensions {
        let remote_addr = Some(peer.parse::<SocketAddr>().unwrap());
        let mut extensions = Extensions::new();
        extensions.insert(TcpConnectInfo { local_addr: None, remote_addr });
        extensions
    }

    fn of(pairs: &[(&str, &str)], peer: &str) -> Vec<u8> {
        Callers::default().of(&headers(pairs), &from(peer)).unwrap()
    }

    #[test]
    fn other_credentials_are_another_caller() {
        for name in [
            "authorization",
            "proxy-authorization",
            "cookie",
            "x-api-key",
            "apikey",
            "x-goog-api-key",
            "x-auth-token",
            "x-user",
            "x-tenant-id",
            "x-forwarded-client-cert",
            "x-forwarded-user",
            "x-acme-token",
            "session",
            "identity-bin",
            "x-ms-client-principal",
            "cf-access-jwt-assertion",
        ] {
            let all = [
                of(&[(name, "alice")], "10.0.0.1:1"),
                of(&[(name, "bob")], "10.0.0.1:1"),
                of(&[(name, "")], "10.0.0.1:1"),
                of(&[], "10.0.0.1:1"),
                of(&[(name, "alice"), (name, "bob")], "10.0.0.1:1"),
                of(&[(name, "bob"), (name, "alice")], "10.0.0.1:1"),
            ];
            for (n, one) in all.iter().enumerate() {
                assert!(all[..n].iter().all(|other| other != one), "{name} {n}");
            }
            let elsewhere = of(&[(name, "alice")], "10.0.0.2:1");
            assert_eq!(elsewhere, all[0], "the same credentials are the same caller anywhere");
            assert!(!String::from_utf8_lossy(&all[0]).contains("alice"), "what is kept is a hash");
        }
    }

    #[test]
    fn headers_that_differ_between_attempts_do_not_make_another_caller() {
        let first = of(&[("authorization", "a"), ("x-api-key", "b")], "10.0.0.1:1");
        let again = [
            ("x-api-key", "b"),
            ("grpc-previous-rpc-attempts", "1"),
            ("grpc-timeout", "1S"),
            ("idempotency-key", "k"),
            ("idempotency-domain", "d"),
            ("x-request-id", "r"),
            ("traceparent", "t"),
            ("user-agent", "u"),
            ("x-user-agent", "u"),
            ("authorization", "a"),
        ];
        assert_eq!(of(&again, "10.0.0.2:2"), first);
        assert_eq!(of(&[], "10.0.0.1:1"), of(&[], "10.0.0.1:2"), "another connection");
        assert_eq!(of(&[], "10.0.0.1:1"), of(&[], "[::ffff:10.0.0.1]:1"));
        assert_ne!(of(&[], "10.0.0.1:1"), of(&[], "10.0.0.2:1"));
    }

    #[test]
    fn a_choice_without_a_name_falls_back_to_the_default() {
        let name = |headers: &HeaderMap, _: &Extensions| {
            headers.get("x-principal-of").map(|value| value.to_str().unwrap_or("").to_owned())
        };
        let named = Callers::Named(Callback(Arc::new(name)));
        let header = Callers::Header(HeaderName::from_static("x-account"));
        let (alice, nobody) = (headers(&[("authorization", "alice")]), HeaderMap::new());
        for callers in [named, header] {
            let of = |headers| callers.of(headers, &from("10.0.0.1:1")).unwrap();
            assert_eq!(of(&alice), Callers::default().of(&alice, &Extensions::new()).unwrap());
            assert_eq!(of(&nobody), Callers::default().of(&nobody, &from("10.0.0.1:1")).unwrap());
        }
        assert_eq!(Callers::Shared.of(&alice, &from("10.0.0.1:1")).unwrap(), b"");
        let by_peer = Callers::Peer.of(&alice, &from("10.0.0.1:1")).unwrap();
        assert_eq!(by_peer, Callers::Peer.of(&nobody, &from("10.0.0.1:9")).unwrap());
    }

    #[test]
    fn a_panic_of_the_users_function_is_an_error_of_the_call() {
        let callers =
            Callers::Named(Callback(Arc::new(|_: &HeaderMap, _: &Extensions| panic!("who?"))));
        let refused = callers.of(&HeaderMap::new(), &Extensions::new()).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Internal);
    }

    proptest! {
        #[test]
        fn no_name_makes_one_caller_another(name: String, other: String) {
            let name_of = |name: &String| {
                let name = name.clone();
                let named = Callers::Named(Callback(Arc::new(move |_: &HeaderMap, _: &Extensions| {
                    Some(name.clone())
                })));
                named.of(&HeaderMap::new(), &Extensions::new()).unwrap()
            };
            prop_assert_eq!(name_of(&name) == name_of(&other), name == other);
            let mut shown = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_bytes(other.as_bytes()) {
                shown.insert("authorization", value);
                prop_assert_ne!(name_of(&name), by_credentials(&shown, &Extensions::new()));
            }
            prop_assert_ne!(name_of(&name), address(&from("10.0.0.1:1")));
            prop_assert_ne!(name_of(&name), Vec::<u8>::new());
        }
    }
}
