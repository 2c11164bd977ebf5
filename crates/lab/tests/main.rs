//! The demo, the load and REST: one program, so that those that wait do so together.

#![expect(clippy::unwrap_used, reason = "a test fails where something is missing")]

mod demo;
mod load;
mod rest;
