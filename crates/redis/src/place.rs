//! The address of a Redis, and the domain made of it.

use crate::tls::prepare;
use cinchona_core::Invalid;
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};
use sha2::{Digest, Sha256};
use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
};
use url::{Host, Url};

/// A database of a Redis, with one spelling for all URLs that lead there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The part of the address that is hashed.
    server: String,
    database: i64,
}

/// Excludes how it is reached: TLS, user, and protocol version.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Server {
    At {
        host: String,
        port: u16,
    },
    /// On the machine (or in the container) of that name, as each machine has its own localhost.
    Local {
        machine: String,
        port: u16,
    },
    Socket {
        machine: String,
        path: PathBuf,
    },
}

/// How to connect to `url`, and its place.
///
/// # Errors
/// Names the wrong part without repeating it: it may contain a password.
pub(crate) fn parse(url: &str) -> Result<(ConnectionInfo, Place), Invalid> {
    parse_with(url, None)
}

/// As [`parse`], with another default port.
pub(crate) fn parse_with(url: &str, port: Option<u16>) -> Result<(ConnectionInfo, Place), Invalid> {
    let mut url = Url::parse(url).map_err(|error| refused(&error.to_string()))?;
    if redis::parse_redis_url(url.as_str()).is_none() {
        return Err(refused("a scheme other than redis, rediss, valkey, valkeys and unix"));
    }
    if port.is_some() && url.port().is_none() {
        // It has no host, then, which is refused below.
        _ = url.set_port(port);
    }
    let info = url.into_connection_info().map_err(|error| match error.detail() {
        None if error.to_string().contains("feature") => refused(NO_TLS),
        None => refused(error.to_string().split(" - ").next().unwrap_or_default()),
        // Any other value is that of the query.
        Some(_) => refused("a protocol other than resp2 and resp3"),
    })?;
    if !info.addr().is_supported() {
        return Err(refused(NO_TLS));
    }
    prepare();
    let database = info.redis_settings().db();
    let server = Server::at(info.addr()).to_string();
    Ok((info, Place { server, database }))
}

const NO_TLS: &str = "TLS without the feature `tls`";

pub(crate) fn refused(why: &str) -> Invalid {
    Invalid::new("url", why, "redis://[[USER]:PASSWORD@]HOST[:PORT][/DB]")
}

// === impl Place ===

impl Place {
    /// The place of all of `places`, in any order and with repetitions.
    pub(crate) fn of_many(kind: &str, name: &str, places: Vec<Self>, database: i64) -> Self {
        let mut servers: Vec<_> = places.into_iter().map(|place| place.server).collect();
        servers.sort_unstable();
        servers.dedup();
        Self { server: format!("{kind}\0{name}\0{}", servers.join("\0")), database }
    }

    /// The domain of the stores with the key prefix `prefix` at this place: a hash, which does not
    /// reveal the place.
    pub(crate) fn domain(&self, prefix: &str) -> String {
        let hash = Sha256::digest(format!("{}\0{}\0{prefix}", self.server, self.database));
        let short = hash.iter().take(8).fold(0, |all, byte| all << 8 | u64::from(*byte));
        format!("redis-{short:016x}")
    }
}

// === impl Server ===

impl Server {
    fn at(addr: &ConnectionAddr) -> Self {
        match addr {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                match canonical(host) {
                    Some(host) => Self::At { host, port: *port },
                    None => Self::Local { machine: machine(), port: *port },
                }
            }
            ConnectionAddr::Unix(path) => {
                Self::Socket { machine: machine(), path: Path::new(path).components().collect() }
            }
            // For variants of later versions of the client: another spelling is another place.
            other => Self::At { host: other.to_string(), port: 0 },
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At { host, port } => write!(f, "at\0{host}\0{port}"),
            Self::Local { machine, port } => write!(f, "local\0{machine}\0{port}"),
            Self::Socket { machine, path } => write!(f, "socket\0{machine}\0{}", path.display()),
        }
    }
}

/// One spelling of all that a host has; `None` for this machine.
fn canonical(host: &str) -> Option<String> {
    let address =
        |ip: IpAddr| (!ip.to_canonical().is_loopback()).then(|| ip.to_canonical().to_string());
    if let Ok(ip) = host.parse::<IpAddr>() {
        return address(ip);
    }
    // As in web URLs: case is ignored, 127.1 is an address, and ü is xn--tda.
    match Host::parse(host.trim_end_matches('.')) {
        Ok(Host::Ipv4(ip)) => address(ip.into()),
        Ok(Host::Ipv6(ip)) => address(ip.into()),
        Ok(Host::Domain(name)) => (name != "localhost").then_some(name),
        Err(_) => Some(host.to_lowercase()),
    }
}

/// The name of this machine, or of this container.
fn machine() -> String {
    gethostname::gethostname().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(url: &str) -> String {
        let (_, place) = parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
        place.domain("cinchona")
    }

    #[test]
    fn all_spellings_of_a_place_have_one_domain_for_any_user_and_password() {
        for spellings in [
            &[
                "redis://db.example",
                "redis://db.example:6379",
                "redis://db.example/",
                "redis://db.example:6379/0",
                "redis://db.example/00",
                "redis://DB.Example",
                "REDIS://db.example.",
                "valkey://db.example",
                "redis://:hunter2@db.example",
                "redis://alice:hunter2@db.example:6379/0",
                "redis://alice@db.example",
                "redis://:hunter%2F%40%3A2@db.example",
                "redis://db.example?password=hunter2",
                "redis://db.example?protocol=resp3",
                "redis://db.example#hunter2",
            ][..],
            &["redis://10.0.0.1", "redis://:hunter2@10.0.0.1:6379", "redis://[::ffff:10.0.0.1]"],
            &["redis://[2001:db8::1]", "redis://:hunter2@[2001:DB8:0:0::1]:6379/0"],
            &["redis://localhost", "redis://127.0.0.1", "redis://[::1]", "redis://127.1"],
            &[
                "unix:///run/redis.sock",
                "redis+unix:///run/redis.sock",
                "valkey+unix:///run/redis.sock?db=0",
                "unix:///run//./redis.sock?user=alice&pass=hunter2",
                "unix:///run/redis%2Esock?db=0&pass=hunter2",
            ],
        ] {
            for spelling in spellings {
                assert_eq!(domain(spelling), domain(spellings[0]), "{spelling}");
            }
        }
    }

    #[test]
    fn tls_is_another_way_to_the_same_place_or_refused_by_the_name_of_its_feature() {
        for url in ["rediss://:mark@db.example", "valkeys://mark:mark@DB.example.:6379/0"] {
            match parse(url) {
                Ok((_, place)) => assert_eq!(place, parse("redis://db.example").unwrap().1),
                Err(refused) => {
                    let said = refused.to_string();
                    assert!(said.contains("`tls`") && !said.contains("mark"), "{said}");
                }
            }
        }
    }

    #[test]
    fn no_two_places_have_one_domain() {
        let places = [
            "redis://db.example",
            "redis://db.example/1",
            "redis://db.example:6380",
            "redis://db2.example",
            "redis://127.0.0.1",
            "redis://127.0.0.1:6380",
            "redis://10.0.0.1",
            "unix:///run/redis.sock",
            "unix:///run/redis.sock?db=1",
            "unix:///run/redis2.sock",
        ];
        let mut domains: Vec<_> = places.into_iter().map(domain).collect();
        domains.extend(places.map(|url| parse(url).unwrap().1.domain("payments")));
        domains.sort_unstable();
        domains.dedup();
        assert_eq!(domains.len(), 2 * places.len());
    }

    #[test]
    fn a_domain_is_the_same_in_every_version() {
        assert_eq!(domain("redis://db.example/3"), "redis-ee15f9fdcc5fff1c");
    }

    #[test]
    fn a_domain_reveals_no_part_of_the_url() {
        for url in [
            "redis://mark-user:mark-password@mark-host:6379/7",
            "redis://mark-host?password=mark-password",
            "unix:///mark-path/mark.sock?user=mark-user&pass=mark-password",
        ] {
            let domain = domain(url);
            assert!(!domain.contains("mark") && domain.is_ascii(), "{domain}");
        }
    }

    #[test]
    fn a_wrong_url_is_refused_by_its_wrong_part_and_is_not_repeated() {
        for (url, part) in [
            ("mark", "relative URL without a base"),
            ("http://mark:mark@mark", "scheme"),
            ("redi://:mark@mark", "scheme"),
            ("redis://:mark@", "empty host"),
            ("redis://:ma/rk@mark", "empty host"),
            ("redis://:mark@mark:port", "port"),
            ("redis://:mark@mark:66666", "port"),
            ("redis://:mark@[mark]", "IPv6"),
            ("redis://:mark@ma rk", "domain character"),
            ("redis://:mark@mark/mark", "database"),
            ("redis://mark:6379/0:mark@mark", "database"),
            ("redis://:mark%FF@mark", "Password"),
            ("redis://mark%FF:mark@mark", "Username"),
            ("redis://:mark@mark?protocol=mark", "protocol"),
            ("redis://:mark@0.0.0.0", "wildcard"),
            ("unix://mark/mark?pass=mark", "path"),
            ("unix:///mark?db=mark&pass=mark", "database"),
        ] {
            let refused = parse(url).unwrap_err();
            let (said, debug) = (refused.to_string(), format!("{refused:?}"));
            assert!(said.contains(part), "{url}: {said}");
            assert!(!said.contains("mark") && !debug.contains("mark"), "{url}: {said} {debug}");
        }
    }
}
