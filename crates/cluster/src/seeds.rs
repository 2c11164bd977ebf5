//! The seeds of a node and their addresses.

use cinchona_core::Invalid;
use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
};

/// Seeds, and their addresses as far as they are known.
#[derive(Debug, Default)]
pub(crate) struct Seeds {
    names: Vec<String>,
    found: Mutex<BTreeMap<String, Vec<SocketAddr>>>,
}

/// The most addresses of a name.
const MOST: usize = 64;

// === impl Seeds ===

impl Seeds {
    /// # Errors
    /// When one of them has no port.
    pub(crate) fn new(seeds: &[&str]) -> Result<Self, Invalid> {
        let mut found = BTreeMap::new();
        let mut names = Vec::new();
        for seed in seeds {
            match seed.parse::<SocketAddr>() {
                Ok(address) => _ = found.insert((*seed).to_owned(), vec![address]),
                Err(_) if is_host_and_port(seed) => names.push((*seed).to_owned()),
                Err(_) => {
                    let shown: String = seed.chars().take(100).collect();
                    return Err(Invalid::new("seeds", format!("{shown:?}"), "host:port"));
                }
            }
        }
        Ok(Self { names, found: Mutex::new(found) })
    }

    /// The seeds that must be looked up.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// All addresses that are known.
    pub(crate) fn all(&self) -> Vec<SocketAddr> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.values().flatten().copied().collect()
    }

    /// The last addresses hold while a name cannot be resolved.
    pub(crate) fn put(&self, name: &str, looked_up: io::Result<Vec<SocketAddr>>) {
        match looked_up {
            Ok(addresses) => {
                let addresses: Vec<_> = addresses.into_iter().take(MOST).collect();
                let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
                found.insert(name.to_owned(), addresses);
            }
            Err(error) => tracing::warn!(name, %error, "a seed has no address"),
        }
    }
}

fn is_host_and_port(seed: &str) -> bool {
    let parts = seed.rsplit_once(':');
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    parts.is_some_and(|(host, port)| !host.is_empty() && host.len() <= 253 && is_port(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_host_and_a_port() {
        let seeds = Seeds::new(&["10.0.0.1:7946", "[::1]:1", "orders:7946"]).unwrap();
        assert_eq!((seeds.all().len(), seeds.names.len()), (2, 1));
        let long = format!("{}:1", "x".repeat(70_000));
        for seed in ["", "orders", ":7946", "orders:0", "orders:port", long.as_str()] {
            let refused = Seeds::new(&[seed]).unwrap_err().to_string();
            assert!(refused.starts_with("seeds: ") && refused.len() < 200, "{refused}");
        }
    }

    #[test]
    fn the_last_addresses_hold_while_a_name_does_not_resolve() {
        let seeds = Seeds::new(&["orders:7946"]).unwrap();
        let address = SocketAddr::from(([10, 0, 0, 1], 7946));
        seeds.put("orders:7946", Ok(vec![address; 1000]));
        assert_eq!(seeds.all().len(), MOST);
        seeds.put("orders:7946", Err(io::Error::other("SERVFAIL")));
        assert_eq!(seeds.all().len(), MOST);
        seeds.put("orders:7946", Ok(Vec::new()));
        assert_eq!(seeds.all().len(), 0);
    }
}
