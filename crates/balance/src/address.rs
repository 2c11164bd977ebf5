//! Addresses of endpoints.

use cinchona_core::{Address, Invalid, Target};
use http::Uri;
use std::{
    hash::Hash,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

/// One place that a connection can be made to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Dial {
    Ip(SocketAddr),
    /// A host and a port, to be resolved.
    Name(String, u16),
    Unix(PathBuf),
    UnixAbstract(String),
    /// For the user's connector.
    Uri(Uri),
}

/// An endpoint's name and address.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Host and port, or the path of its socket.
    pub(crate) name: Arc<str>,
    /// Never empty.
    pub(crate) dials: Vec<Dial>,
    /// The identity of the endpoint, which excludes its weight.
    pub(crate) key: Key,
}

/// The identity of a target: scheme, name and addresses.
pub(crate) type Key = Arc<(String, String, Vec<Address>)>;

/// Which connector is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connector {
    Ours,
    /// Our own, for a tonic endpoint, which assumes port 80.
    Lenient,
    /// The user's, which interprets host and port itself.
    Users,
}

const NAMED: &str = "addresses such as http://host:port, https://host:port and unix:path";
const SOCKET: &str = "TCP addresses: this connector receives a URI";

// === impl Place ===

impl Place {
    /// # Errors
    /// When `connector` could not connect to the address.
    pub(crate) fn new(target: &Target, connector: Connector) -> Result<Self, Invalid> {
        let uri = &target.uri;
        let refused = || Invalid::new("target", format!("{:?}", uri.to_string()), NAMED);
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(refused());
        };
        if !matches!(scheme, "http" | "https") || authority.host().is_empty() {
            return Err(refused());
        }
        let dials = match &*target.addresses {
            [] => vec![named(uri, connector).ok_or_else(refused)?],
            some => {
                let dial = |address: &Address| at(address, scheme, connector);
                let dials: Option<Vec<_>> = some.iter().map(dial).collect();
                dials.ok_or_else(|| Invalid::new("target", target, SOCKET))?
            }
        };
        let name = match target.addresses.first() {
            None => authority.as_str().into(),
            Some(address) => address.to_string().into(),
        };
        let addresses = target.addresses.clone();
        let key = Arc::new((scheme.to_owned(), authority.to_string(), addresses));
        Ok(Self { name, dials, key })
    }

    /// The family of its first address: gRFC A61 lets families take turns.
    pub(crate) fn is_ipv6(&self) -> bool {
        matches!(self.dials.first(), Some(Dial::Ip(SocketAddr::V6(_))))
    }
}

fn named(uri: &Uri, connector: Connector) -> Option<Dial> {
    if connector == Connector::Users {
        return Some(Dial::Uri(uri.clone()));
    }
    let host = uri.host()?.trim_matches(['[', ']']);
    // A missing port is an error for plain gRPC, as 80 is unlikely to be meant; 443 is the default
    // of TLS.
    let default_port = match uri.scheme_str() {
        Some("https") => Some(443),
        _ => (connector == Connector::Lenient).then_some(80),
    };
    let port = uri.port_u16().or(default_port)?;
    Some(match host.parse::<IpAddr>() {
        Ok(ip) => Dial::Ip((ip, port).into()),
        Err(_) => Dial::Name(host.to_owned(), port),
    })
}

fn at(address: &Address, scheme: &str, connector: Connector) -> Option<Dial> {
    match (address, connector) {
        (Address::Ip(address), Connector::Users) => {
            format!("{scheme}://{address}").parse().ok().map(Dial::Uri)
        }
        (_, Connector::Users) => None,
        (Address::Ip(address), _) => Some(Dial::Ip(*address)),
        (Address::Unix(path), _) => Some(Dial::Unix(path.clone())),
        (Address::UnixAbstract(name), _) => Some(Dial::UnixAbstract(name.clone())),
        _ => None,
    }
}

/// Alternates the address families while there are both, beginning with that of the first ([RFC
/// 8305, 4](https://www.rfc-editor.org/rfc/rfc8305#section-4), gRFC A61).
pub(crate) fn interleave<T>(all: Vec<T>, is_ipv6: impl Fn(&T) -> bool) -> Vec<T> {
    let Some(first) = all.first().map(&is_ipv6) else { return all };
    let (same, other): (Vec<T>, Vec<T>) = all.into_iter().partition(|one| is_ipv6(one) == first);
    let mut other = other.into_iter();
    let mut taken = Vec::with_capacity(same.len() + other.len());
    for one in same {
        taken.push(one);
        taken.extend(other.next());
    }
    taken.extend(other);
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &'static str) -> Result<Place, Invalid> {
        Place::new(&Target::from(Uri::from_static(text)), Connector::Ours)
    }

    // catalogue: S-B14
    #[test]
    fn an_invalid_address_is_refused_by_name() {
        for text in ["/path", "*", "host", "host:1", "ftp://host:1", "http://host"] {
            let Err(refused) = place(text) else { panic!("{text}") };
            assert_eq!(refused.field(), "target");
            assert!(refused.to_string().contains(text), "{refused}");
        }
        let socket: Target = "unix:x".parse().unwrap();
        assert!(Place::new(&socket, Connector::Ours).is_ok());
        assert!(Place::new(&socket, Connector::Users).is_err());
    }

    #[test]
    fn numbers_are_not_looked_up_and_tls_has_a_port() {
        let ip = |text: &str| Dial::Ip(text.parse().unwrap());
        for (text, expected) in [
            ("http://[::1]:1", ip("[::1]:1")),
            ("http://127.0.0.1:2", ip("127.0.0.1:2")),
            ("https://orders", Dial::Name("orders".to_owned(), 443)),
            ("http://orders:3", Dial::Name("orders".to_owned(), 3)),
        ] {
            assert_eq!(place(text).unwrap().dials, [expected]);
        }
    }

    // catalogue: S-B9
    #[test]
    fn a_weight_is_not_part_of_the_identity() {
        let target = Target::from(Uri::from_static("http://a:1"));
        let key = |target: Target| Place::new(&target, Connector::Ours).unwrap().key;
        assert_eq!(key(target.clone()), key(target.clone().with_weight(20)));
        let there = Address::Ip("10.0.0.1:1".parse().unwrap());
        assert_ne!(key(target.clone()), key(target.at([there])));
    }

    // catalogue: S-B6
    #[test]
    fn families_take_turns() {
        let interleaved = |all: &[i32]| interleave(all.to_vec(), |n| *n < 0);
        assert_eq!(interleaved(&[1, 2, 3, -1, -2]), [1, -1, 2, -2, 3]);
        assert_eq!(interleaved(&[-1, -2, 1]), [-1, 1, -2]);
        assert_eq!(interleaved(&[-1, 1, 2, 3]), [-1, 1, 2, 3]);
        assert_eq!(interleaved(&[]), [0; 0]);
    }
}
