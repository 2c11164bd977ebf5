//! Endpoints from DNS.

use cinchona_core::{Discover, Target};
use http::Uri;
use std::{collections::BTreeSet, net::SocketAddr, time::Duration};
use tokio::{net::lookup_host, time::sleep};

/// All addresses of a host, looked up again and again.
///
/// A failed lookup changes nothing, and is repeated after a second.
#[derive(Clone, Debug)]
pub struct Dns {
    uri: Uri,
    every: Duration,
    last: Option<BTreeSet<SocketAddr>>,
}

/// The least time between two lookups.
const LEAST: Duration = Duration::from_secs(1);

// === impl Dns ===

impl Dns {
    /// The addresses of `uri`'s host, looked up every 30 s.
    pub const fn new(uri: Uri) -> Self {
        Self { uri, every: Duration::from_secs(30), last: None }
    }

    /// Looks them up that often, and at most each second: a shorter interval is taken to be 1 s.
    pub fn with_interval(self, every: Duration) -> Self {
        Self { every: every.max(LEAST), ..self }
    }

    async fn look_up(&self) -> std::io::Result<BTreeSet<SocketAddr>> {
        let host = self.uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let default_port = if self.uri.scheme_str() == Some("https") { 443 } else { 80 };
        let port = self.uri.port_u16().unwrap_or(default_port);
        Ok(lookup_host((host, port)).await?.collect())
    }

    fn target(&self, address: SocketAddr) -> Option<Target> {
        let scheme = self.uri.scheme_str().unwrap_or("http");
        let uri: Uri = format!("{scheme}://{address}").parse().ok()?;
        Some(uri.into())
    }
}

impl Discover for Dns {
    async fn next(&mut self) -> Option<Vec<Target>> {
        loop {
            if self.last.is_some() {
                sleep(self.every).await;
            }
            match self.look_up().await {
                Ok(found) if self.last.as_ref() != Some(&found) && !found.is_empty() => {
                    let targets =
                        found.iter().filter_map(|address| self.target(*address)).collect();
                    self.last = Some(found);
                    return Some(targets);
                }
                Ok(_) if self.last.is_some() => {}
                outcome => {
                    tracing::warn!(host = self.uri.host(), ?outcome, "no addresses");
                    sleep(LEAST).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_host_is_all_its_addresses() {
        let mut dns = Dns::new(Uri::from_static("http://localhost:50051"));
        let found = dns.next().await.unwrap();
        let local = ["http://127.0.0.1:50051/", "http://[::1]:50051/"];
        assert!(!found.is_empty());
        for target in found {
            assert!(local.contains(&target.uri.to_string().as_str()), "{target:?}");
        }
    }
}
