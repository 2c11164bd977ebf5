//! Clients and servers that differ in their layers alone, and calls from one to the other.

pub mod adapter;
pub mod clients;
pub mod cpu;
pub mod load;
pub mod servers;
pub mod service;

/// The calculator's messages, client and server.
#[allow(missing_debug_implementations, unreachable_pub, reason = "generated")]
pub mod pb {
    tonic::include_proto!("calculator");
}

use cinchona::core::Methods;

/// How many calls the shorter and the longer run of a slope make: what a process does once, or a
/// connection, is in both; so is the first thousand calls of a thread, all of which are timed.
pub const SLOPE: [u32; 2] = [1200, 2800];

/// What is known of the methods from their .proto.
pub fn methods() -> Methods {
    let descriptors = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
    Methods::from_file_descriptor_set(descriptors).expect("it was compiled")
}

/// What each call of the longer run cost beyond those of the shorter one.
pub fn slope([short, long]: [u64; 2]) -> f64 {
    (long as f64 - short as f64) / f64::from(SLOPE[1] - SLOPE[0])
}

/// The middle one; NaN where there is none.
pub fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(f64::NAN)
}
