//! The client of the README as it is with plain tonic.

pub(crate) const FILES: [(&str, &str); 5] = [
    ("Cargo.toml", CARGO),
    ("proto/orders.proto", PROTO),
    ("build.rs", BUILD),
    ("src/lib.rs", "tonic::include_proto!(\"orders\");\n"),
    ("src/bin/client.rs", CLIENT),
];

const CARGO: &str = r#"[package]
name = "orders"
version = "0.1.0"
edition = "2024"

[dependencies]
prost = "0.14"
tokio = { version = "1", features = ["macros", "rt-multi-thread", "signal"] }
tonic = "0.14"
tonic-prost = "0.14"

[build-dependencies]
protox = "0.10"
tonic-prost-build = "0.14"
"#;

const PROTO: &str = r#"syntax = "proto3";

package orders;

service Orders {
  rpc Get(GetRequest) returns (Order);
}

message GetRequest { string id = 1; }

message Order { string id = 1; uint32 items = 2; }
"#;

const BUILD: &str = r#"fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut protos = protox::Compiler::new(["proto"])?;
    protos.include_imports(true).open_file("orders.proto")?;
    tonic_prost_build::compile_fds(protos.file_descriptor_set())?;
    Ok(())
}
"#;

const CLIENT: &str = r#"use orders::{GetRequest, orders_client::OrdersClient};
use tonic::transport::Endpoint;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let channel = Endpoint::from_static("http://127.0.0.1:50051").connect().await?;
    let mut orders = OrdersClient::new(channel);
    let order = orders.get(GetRequest { id: "7".into() }).await?.into_inner();
    println!("order {} has {} items", order.id, order.items);
    Ok(())
}
"#;
