//! The state of a connection.

/// The state of an endpoint's connection, as gRPC names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// No connection is wanted.
    #[default]
    Idle,
    /// A connection is being made, or the endpoint has not yet reported that it is healthy.
    Connecting,
    /// The server has sent its SETTINGS, and is healthy if health checks are on: calls can be sent.
    Ready,
    /// An attempt to connect has failed, and none has succeeded since; or the endpoint reports that
    /// it is not healthy.
    TransientFailure,
}
