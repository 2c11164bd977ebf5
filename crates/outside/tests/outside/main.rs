//! What needs other programs: proxies, resolvers, stores, browsers, namespaces of the kernel, gRPC
//! clients and servers of other languages; and what is played by many processes of ours.
//!
//! Tests that need a program which a Rust toolchain does not bring are ignored, with its name.
//! `cargo test -p outside -- --ignored --test-threads 1 --nocapture` runs them, and shows what was
//! measured as well.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails where something is missing")]

mod browser;
mod crash;
mod differential;
mod endpoints;
mod failover;
mod history;
mod nginx;
mod partition;
mod prometheus;
mod python;
mod world;

use calculator::{
    client::Settings,
    pb::{BinaryOperation, Result as Value},
};
use cinchona::core::Rng;
use cinchona_testkit::{Answer, encode};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn operation(a: f64, b: f64) -> BinaryOperation {
    BinaryOperation { a, b }
}

fn ok(value: f64) -> Answer {
    Answer::Ok(encode(&Value { value }))
}

fn seeded() -> Settings {
    Settings { rng: Rng::seeded(1), ..Settings::default() }
}
