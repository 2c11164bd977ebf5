//! `cargo xtask <task>`.
fn main() {}
