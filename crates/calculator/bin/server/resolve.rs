//! Addresses of the command line.

use std::net::{SocketAddr, ToSocketAddrs};

pub(crate) fn resolve(addr: &str) -> Result<SocketAddr, String> {
    let mut found = addr.to_socket_addrs().map_err(|error| error.to_string())?;
    found.next().ok_or_else(|| "the host has no address".to_owned())
}
