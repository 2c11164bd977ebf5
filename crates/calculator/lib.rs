//! A plain gRPC calculator.
/// Generated.
pub mod pb {
    #![allow(missing_docs)]
    tonic::include_proto!("calculator");
}
