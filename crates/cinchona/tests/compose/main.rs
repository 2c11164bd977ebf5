//! What can be put around a tonic channel or server can be put around ours, and ours around it:
//! each combination is compiled, and called over HTTP/2.

#![expect(clippy::unwrap_used, reason = "a test fails where something is missing")]

mod adopters;
mod by_call;
mod client;
mod edges;
#[path = "../common/health.rs"]
mod health;
mod own;
mod router;
mod server;
mod shared;
mod sockets;

use cinchona_testkit::Answer;
use health::{asked, check, descriptors, methods, ok, scripted};
use tonic::Status;

/// What tests call.
const CHECK: &str = "/grpc.health.v1.Health/Check";

fn unavailable() -> Answer {
    Answer::Status(Status::unavailable("not now"))
}
