//! What is put around the calculator's server: REST, in [`rest`]. The programs of this package are
//! users of the calculator; `calculator-rest` is its server with this around it.

pub mod rest;

/// The calculator's messages once more, with protobuf's JSON mapping.
pub mod pb {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    tonic::include_proto!("calculator");
}
