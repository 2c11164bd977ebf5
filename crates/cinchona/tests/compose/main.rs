//! What adopters compose: the whole client and the whole server, by sockets, routers and settings
//! of one call. The stacks of each single layer with those of others are in `outside`.

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
