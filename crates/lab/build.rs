//! Compiles the messages of `proto/` that REST has to Rust, with protobuf's JSON mapping.
use prost_types::FileDescriptorSet;
use std::{collections::BTreeSet, error::Error};
use tonic_prost_build::Builder;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=../../proto");
    let descriptors = protox::compile(["calculator.proto"], ["../../proto"])?;
    let messages = tonic_prost_build::configure().build_client(false).build_server(false);
    with_json(messages, &descriptors).compile_fds(descriptors)?;
    Ok(())
}

/// Gives the messages of unary methods protobuf's JSON mapping; `rest/json.rs` has it by type.
fn with_json(mut builder: Builder, descriptors: &FileDescriptorSet) -> Builder {
    let methods = descriptors.file.iter().flat_map(|file| &file.service).flat_map(|s| &s.method);
    let unary = methods.filter(|m| !m.client_streaming() && !m.server_streaming());
    let said: BTreeSet<_> = unary.flat_map(|m| [m.input_type(), m.output_type()]).collect();
    let messages = descriptors.file.iter().flat_map(|file| {
        file.message_type
            .iter()
            .map(|message| (format!(".{}.{}", file.package(), message.name()), message))
    });
    for (name, message) in messages.filter(|(name, _)| said.contains(name.as_str())) {
        builder = builder.message_attribute(
            &name,
            "#[derive(serde::Serialize, serde::Deserialize)] \
             #[serde(default, deny_unknown_fields, rename_all = \"camelCase\")]",
        );
        for field in &message.field {
            // What the mapping reads: the name in JSON, and the one in the .proto.
            let field = field.name();
            let json = format!("#[serde(with = \"crate::rest::json\", alias = \"{field}\")]");
            builder = builder.field_attribute(format!("{name}.{field}"), json);
        }
    }
    builder
}
