//! How far an unprocessed request got.

use std::fmt;

/// How far an unprocessed request got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// No connection could be made, or a layer of the client has not admitted it.
    NoConnection,
    /// There was a connection, and the request never left the client.
    NotWritten,
    /// The server's HTTP/2 library refused it (REFUSED_STREAM, or a GOAWAY that excludes it).
    RefusedStream,
}

// === impl Stage ===

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoConnection => "no connection",
            Self::NotWritten => "not sent",
            Self::RefusedStream => "stream refused",
        })
    }
}
