//! The build script that the guide shows for `protoc`.

use std::{env, path::PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    tonic_prost_build::configure()
        .file_descriptor_set_path(out.join("orders.bin"))
        .compile_protos(&["proto/orders.proto"], &["proto"])?;
    Ok(())
}
