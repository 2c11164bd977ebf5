//! Two live nodes with one id.

use std::net::SocketAddr;

/// Another live node with this node's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Twin {
    /// The address at which it receives gossip, if known.
    pub address: Option<SocketAddr>,
    /// It was there first, so this node takes no part.
    pub is_earlier: bool,
}
