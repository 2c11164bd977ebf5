//! How far a request came.

/// How far a request came that was not processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// No connection could be made, or a layer of the client has not let it through.
    NoConnection,
    /// There was a connection, and the request never left the client.
    NotWritten,
    /// The server's HTTP/2 library turned it away (REFUSED_STREAM, or a GOAWAY that excludes it).
    RefusedStream,
}
