//! Compiles the .proto files, and writes what they say of each method beside the code.
//!
//! It uses protox, so no `protoc` has to be installed. With one, `protoc.rs` does the same.

#[expect(dead_code, reason = "the guide shows it: it is compiled here, and needs protoc to run")]
mod protoc;

use prost::Message;
use std::{env, error::Error, fs, path::PathBuf};

const FILES: [&str; 3] = ["counter.proto", "feed.proto", "greeter.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // For `Methods::from_file_descriptor_set`: which methods may be executed twice.
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::compile_fds(descriptors)?;
    Ok(())
}
