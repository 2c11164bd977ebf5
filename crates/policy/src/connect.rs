//! When an endpoint is connected to, and which of a list: gRPC's [connectivity
//! semantics](https://github.com/grpc/grpc/blob/master/doc/connectivity-semantics-and-api.md),
//! [connection backoff](https://github.com/grpc/grpc/blob/master/doc/connection-backoff.md) and
//! `pick_first` (gRFC A61, A62).

mod first;
mod link;
mod state;

pub use first::First;
pub use link::{Link, USEFUL};
pub use state::State;
