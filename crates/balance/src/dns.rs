//! Endpoints from DNS.

use crate::address::interleave;
use cinchona_core::{Discover, Invalid, Target};
use cinchona_plumbing::{Signals, without_userinfo};
use http::Uri;
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use tokio::{
    net::lookup_host,
    time::{Instant, sleep_until, timeout_at},
};

/// All addresses of a host, resolved periodically: each is an endpoint, whose `:authority` and TLS
/// name are the host's.
///
/// They are resolved at an interval, and as soon as a connection is lost or cannot be made, but
/// then at most every 5 s. A failed lookup changes nothing, and is repeated after a second. A host
/// with one IPv4 and one IPv6 address is one endpoint, which is connected to by happy eyeballs
/// (gRFC A61).
///
/// # What it does not do
///
/// It uses the system's resolver (`getaddrinfo`), which reports no TTL; caching is the system's.
#[derive(Clone, Debug)]
pub struct Dns {
    uri: Uri,
    every: Duration,
    last: Option<BTreeSet<SocketAddr>>,
    /// When it was last resolved.
    at: Option<Instant>,
    signals: Signals,
}

/// The least time between two lookups.
const LEAST: Duration = Duration::from_secs(1);

/// The least time between a lookup and a requested one.
const ASKED: Duration = Duration::from_secs(5);

/// How long a lookup may take: a system's resolver usually gives up after 10 s.
const LONGEST: Duration = Duration::from_secs(30);

// === impl Dns ===

impl Dns {
    /// The addresses of `uri`'s host, looked up every 30 s.
    pub fn new(uri: Uri) -> Self {
        let (uri, every) = (without_userinfo(uri), Duration::from_secs(30));
        Self { uri, every, last: None, at: None, signals: Signals::default() }
    }

    /// Sets the interval of lookups; less than 1 s is taken as 1 s.
    #[must_use]
    pub fn with_interval(self, every: Duration) -> Self {
        Self { every: every.max(LEAST), ..self }
    }

    /// Waits until the next lookup is due or requested.
    async fn rest(&self) {
        let Some(at) = self.at else { return };
        let has_failed = self.signals.failure().is_some();
        let every = if has_failed { LEAST } else { self.every };
        let asked =
            timeout_at(cinchona_plumbing::clock::later(at, every), self.signals.asked_again());
        if asked.await.is_ok() {
            sleep_until(at + ASKED.min(every)).await;
        }
    }

    async fn look_up(&self) -> Result<BTreeSet<SocketAddr>, String> {
        let host = self.uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let default_port = (self.uri.scheme_str() == Some("https")).then_some(443);
        let port = self.uri.port_u16().or(default_port);
        let (Some(port), false) = (port, host.is_empty()) else {
            let refused = "a URI such as http://host:port or https://host";
            return Err(Invalid::new("uri", &self.uri, refused).to_string());
        };
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok([(ip, port).into()].into());
        }
        let looked = tokio::time::timeout(LONGEST, lookup_host((host, port))).await;
        match looked {
            Err(_) => Err(format!("{host}: no answer within {LONGEST:?}")),
            Ok(Err(error)) => Err(format!("{host}: {error}")),
            Ok(Ok(found)) => Some(found.collect::<BTreeSet<_>>())
                .filter(|found| !found.is_empty())
                .ok_or_else(|| format!("{host}: it has no address")),
        }
    }

    fn targets(&self, found: &BTreeSet<SocketAddr>) -> Vec<Target> {
        let target = Target::from(self.uri.clone());
        let is_dual = found.len() == 2
            && found.iter().any(SocketAddr::is_ipv4)
            && found.iter().any(SocketAddr::is_ipv6);
        if is_dual {
            let newest_first = found.iter().rev().copied().collect();
            let both: Vec<SocketAddr> = interleave(newest_first, SocketAddr::is_ipv6);
            return vec![target.at(both.into_iter().map(Into::into))];
        }
        found.iter().map(|address| target.clone().at([(*address).into()])).collect()
    }
}

impl Discover for Dns {
    async fn next(&mut self) -> Option<Vec<Target>> {
        loop {
            self.rest().await;
            self.at = Some(Instant::now());
            match self.look_up().await {
                Ok(found) => {
                    self.signals.succeeded();
                    if self.last.as_ref() != Some(&found) {
                        let targets = self.targets(&found);
                        self.last = Some(found);
                        return Some(targets);
                    }
                }
                Err(error) => {
                    if self.signals.failure().as_deref() != Some(&*error) {
                        tracing::warn!(error, "a lookup has failed; what was found before stays");
                    }
                    self.signals.failed(error);
                }
            }
        }
    }

    fn signals(&self) -> Signals {
        self.signals.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(found: &[&str]) -> BTreeSet<SocketAddr> {
        found.iter().map(|address| address.parse().unwrap()).collect()
    }

    // catalogue: S-B7
    #[test]
    fn each_address_is_an_endpoint_that_keeps_the_name_of_the_host() {
        let dns = Dns::new(Uri::from_static("https://orders"));
        let targets = dns.targets(&addresses(&["10.0.0.1:443", "10.0.0.2:443"]));
        let names: Vec<_> = targets.iter().map(|target| target.uri.host().unwrap()).collect();
        assert_eq!(names, ["orders"; 2]);
        assert_eq!(targets[1].to_string(), "https://10.0.0.2:443/");
    }

    // catalogue: S-B6
    #[test]
    fn a_host_of_both_families_counts_once() {
        let dns = Dns::new(Uri::from_static("http://localhost:1"));
        let targets = dns.targets(&addresses(&["127.0.0.1:1", "[::1]:1"]));
        let [target] = &*targets else { panic!("{targets:?}") };
        assert_eq!(target.to_string(), "http://[::1]:1/");
        assert_eq!(target.addresses.len(), 2);
        let three = dns.targets(&addresses(&["127.0.0.1:1", "127.0.0.2:1", "[::1]:1"]));
        assert_eq!(three.len(), 3, "which of them are one cannot be known");
    }

    #[tokio::test]
    async fn a_host_resolves_to_all_its_addresses() {
        let mut dns = Dns::new(Uri::from_static("http://localhost:50051"));
        let found = dns.next().await.unwrap();
        let local = ["http://127.0.0.1:50051/", "http://[::1]:50051/"];
        assert!(!found.is_empty());
        for target in found {
            assert!(local.contains(&target.to_string().as_str()), "{target:?}");
        }
    }

    // catalogue: S-B2
    #[tokio::test(start_paused = true)]
    async fn a_name_that_does_not_exist_is_looked_up_each_second_with_its_error() {
        let mut dns = Dns::new(Uri::from_static("http://nowhere"));
        let signals = dns.signals();
        let looked = tokio::time::timeout(Duration::from_secs(3), dns.next()).await;
        assert!(looked.is_err());
        let failure = signals.failure().unwrap();
        assert!(failure.contains("http://nowhere") && failure.contains("port"), "{failure}");
    }
}
