//! cinchona beside other crates and other gRPC clients.

pub mod suite;

/// The code of other crates that the guide's page on migrating shows, as it shows it.
#[expect(dead_code, reason = "it is only built")]
mod migrating {
    include!(concat!(env!("OUT_DIR"), "/migrating.rs"));
}
