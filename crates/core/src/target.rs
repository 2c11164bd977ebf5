//! Endpoints and their addresses.

use crate::Invalid;
use cinchona_plumbing::without_userinfo;
use http::{Uri, uri::Scheme};
use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

/// An endpoint: its name, its addresses, and its share of the load.
///
/// ```
/// use cinchona_core::Target;
///
/// let named: Target = "https://orders.internal:50051".parse()?;
/// let local: Target = "unix:///run/orders.sock".parse()?;
/// assert_eq!(named.to_string(), "https://orders.internal:50051/");
/// assert_eq!(local.to_string(), "unix:/run/orders.sock");
/// assert_eq!("/run/orders.sock".parse::<Target>().unwrap_err().field(), "target");
/// # Ok::<_, cinchona_core::Invalid>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The scheme (`http` or `https`), and the name that is sent to servers in `:authority` and
    /// that TLS certificates are checked against: `https://orders.internal:50051`.
    pub uri: Uri,
    /// Its addresses. Several are the same server: they are tried in order, 250 ms after one
    /// another (happy eyeballs, gRFC A61). If empty, the host of `uri` is resolved each time a
    /// connection is made.
    pub addresses: Vec<Address>,
    /// Its share is this over the sum of all; at least 1. Only for weighted pickers.
    pub weight: u32,
}

/// An address that an endpoint listens on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// TCP.
    Ip(SocketAddr),
    /// A Unix domain socket, by its path.
    Unix(PathBuf),
    /// A Unix domain socket in Linux's abstract namespace, by its name without the leading zero.
    UnixAbstract(String),
}

/// The forms that [`Target::from_str`] accepts.
const SPELLINGS: &str = "http://host:port, https://host:port, unix:path, unix:///path and \
    unix-abstract:name";

// === impl Target ===

impl Target {
    /// The endpoint of that name at `addresses`.
    #[must_use]
    pub fn at(self, addresses: impl IntoIterator<Item = Address>) -> Self {
        Self { addresses: addresses.into_iter().collect(), ..self }
    }

    /// The same, with that share of the load; 0 is taken as 1.
    #[must_use]
    pub fn with_weight(self, weight: u32) -> Self {
        Self { weight, ..self }
    }

    /// The same, without a user and a password, in its URI.
    #[must_use]
    pub fn without_userinfo(self) -> Self {
        Self { uri: without_userinfo(self.uri), ..self }
    }

    /// Whether connections to it are to use TLS.
    pub fn is_tls(&self) -> bool {
        self.uri.scheme() == Some(&Scheme::HTTPS)
    }

    fn local(address: Address) -> Self {
        // The `:authority` that gRPC sends to servers behind such a socket.
        Self::from(Uri::from_static("http://localhost")).at([address])
    }
}

impl From<Uri> for Target {
    /// `unix-abstract:name` and `unix://path` are the addresses that they are for [`FromStr`]; a
    /// [`Uri`] cannot hold the other spellings of a socket's path.
    fn from(uri: Uri) -> Self {
        let socket = match (uri.scheme_str(), uri.authority()) {
            (None, Some(name)) => socket(name.as_str()),
            (Some("unix"), _) => socket(uri.to_string().trim_end_matches('/')),
            _ => None,
        };
        socket.map_or(Self { uri, addresses: Vec::new(), weight: 1 }, Self::local)
    }
}

impl FromStr for Target {
    type Err = Invalid;

    /// `http://host:port`, `https://host:port`, and the spellings of Unix domain sockets that
    /// [gRPC](https://github.com/grpc/grpc/blob/master/doc/naming.md) and tonic have.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        if let Some(address) = socket(text) {
            return Ok(Self::local(address));
        }
        let refused = || Invalid::new("target", format!("{:?}", redacted(text)), SPELLINGS);
        let uri: Uri = text.parse().map_err(|_| refused())?;
        let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        // `http` accepts any number as a port, and then has none.
        let bare = without_userinfo(uri.clone());
        let names_port = bare.authority().is_some_and(|all| all.as_str().len() > all.host().len());
        if is_http && (bare.port().is_some() || !names_port) {
            Ok(uri.into())
        } else {
            Err(refused())
        }
    }
}

/// Its first address, or its URI if that is to be resolved.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.addresses.first() {
            None => self.uri.fmt(f),
            Some(Address::Ip(address)) => {
                write!(f, "{}://{address}/", self.uri.scheme_str().unwrap_or("http"))
            }
            Some(socket) => socket.fmt(f),
        }
    }
}

// === impl Address ===

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::UnixAbstract(name) => write!(f, "unix-abstract:{name}"),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

fn socket(text: &str) -> Option<Address> {
    if let Some(name) = text.strip_prefix("unix-abstract:") {
        return (!name.is_empty()).then(|| Address::UnixAbstract(name.to_owned()));
    }
    let path = text.strip_prefix("unix:")?;
    let path = path.strip_prefix("//").unwrap_or(path);
    (!path.is_empty()).then(|| Address::Unix(path.into()))
}

/// `text` without the part before an `@`, which may be a password.
fn redacted(text: &str) -> &str {
    text.rsplit_once('@').map_or(text, |(_, host)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_has_no_user_and_no_password() {
        for (uri, expected) in [
            ("http://user:p%40ss@db.example:50051/path?q", "http://db.example:50051/path?q"),
            ("http://user@[::1]:1", "http://[::1]:1/"),
            ("https://:pass@db.example", "https://db.example/"),
            ("http://db.example", "http://db.example/"),
            ("/path", "/path"),
        ] {
            let target = Target::from(uri.parse::<Uri>().unwrap());
            assert_eq!(target.without_userinfo().uri, expected, "{uri}");
        }
    }

    // catalogue: S-B14
    #[test]
    fn sockets_are_taken_in_the_spellings_of_tonic_and_of_grpc() {
        for (text, expected) in [
            ("unix:///run/x.sock", Address::Unix("/run/x.sock".into())),
            ("unix:/run/x.sock", Address::Unix("/run/x.sock".into())),
            ("unix:x.sock", Address::Unix("x.sock".into())),
            ("unix://x.sock", Address::Unix("x.sock".into())),
            ("unix-abstract:name", Address::UnixAbstract("name".to_owned())),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!(target.addresses, [expected], "{text}");
            assert_eq!(target.uri, "http://localhost/");
        }
        let uri = Uri::from_static("unix-abstract:name");
        assert_eq!(Target::from(uri).to_string(), "unix-abstract:name");
    }

    // catalogue: S-B14
    #[test]
    fn an_invalid_address_is_refused_by_name() {
        for text in [
            "",
            "/path",
            "*",
            "host",
            "ftp://host:1",
            "host:50051",
            "unix:",
            "unix://",
            "unix-abstract:",
            "http://",
            "http://host:99999",
            "dns:///host:1",
            "http://a b:1",
        ] {
            let refused = text.parse::<Target>().unwrap_err();
            assert_eq!(refused.field(), "target", "{text}");
            assert!(refused.to_string().contains(&format!("{text:?}")), "{refused}");
        }
        let refused = "ftp://user:secret@host:1".parse::<Target>().unwrap_err();
        assert!(!refused.to_string().contains("secret"), "{refused}");
    }

    #[test]
    fn an_endpoint_is_called_by_its_address() {
        let named = Target::from(Uri::from_static("https://orders:443"));
        assert_eq!(named.to_string(), "https://orders:443/");
        let addresses = ["10.0.0.1:443", "[fe80::1]:443"].map(|a| Address::Ip(a.parse().unwrap()));
        assert_eq!(named.at(addresses).to_string(), "https://10.0.0.1:443/");
    }
}
