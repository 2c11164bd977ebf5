//! cinchona beside other crates and other gRPC clients.

pub mod suite;
