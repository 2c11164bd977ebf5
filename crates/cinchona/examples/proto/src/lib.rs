//! What `build.rs` makes of the .proto files: a module for each package.

#![allow(missing_docs, reason = "generated")]

/// What the .proto files say: `Methods::from_file_descriptor_set(DESCRIPTORS)`.
pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("descriptors");

pub mod counter {
    tonic::include_proto!("counter");
}

pub mod feed {
    tonic::include_proto!("feed");
}

pub mod greeter {
    tonic::include_proto!("greeter");
}
