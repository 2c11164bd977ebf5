//! cinchona beside other crates and other gRPC clients.

pub mod suite;

/// The code of other crates that the guide's page on migrating shows, as it shows it.
#[expect(dead_code, reason = "it is built, and nobody calls it")]
mod migrating {
    include!(concat!(env!("OUT_DIR"), "/migrating.rs"));
}
