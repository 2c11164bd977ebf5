//! Scripts that any gRPC client can be held to: what they say, the server that acts by them, the
//! client as a process, and whether it did what is right. `peers/suite/README.md` says how.

mod call;
mod client;
mod connection;
mod judge;
mod script;
mod seen;
mod server;
mod tap;

pub use call::{Outcome, Task};
pub use client::{Caller, Client, Hello, run};
pub use judge::{judge, measured};
pub use script::{Call, Differs, Expect, File, Kind, Script, Settings};
pub use seen::Seen;
pub use server::Serving;
