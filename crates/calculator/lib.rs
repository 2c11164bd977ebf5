//! A plain gRPC calculator, and everything that can fail around it.
//!
//! | module | what is there |
//! |---|---|
//! | [`service`] | the calculator: plain handlers, which know nothing of what follows |
//! | [`client`] | the client's stack, a reason beside each layer |
//! | [`server`] | the server's stack, a reason beside each layer |
//!
//! The programs `calculator-server`, `calculator-client` and `calculator-demo` are thin users of
//! these three.

pub mod client;
pub mod server;
pub mod service;

use cinchona::core::Methods;

/// The messages, clients and servers that `build.rs` generates from `proto/`.
pub mod pb {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    tonic::include_proto!("calculator");
}

/// The compiled .proto files, for reflection and for [`methods`].
pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("calculator_descriptor");

/// Which methods may be executed twice, as the .proto says.
pub fn methods() -> Methods {
    // What `build.rs` wrote can be read, and a test says so; if not, nothing is known.
    Methods::from_file_descriptor_set(DESCRIPTORS).unwrap_or_else(|_| Methods::unknown())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cinchona::core::Safety;

    #[test]
    fn every_method_says_that_it_has_no_side_effects() {
        for method in ["Add", "Subtract", "Multiply", "Divide", "Range", "Sum"] {
            let path = format!("/calculator.Calculator/{method}");
            assert_eq!(methods().safety(&path), Safety::NoSideEffects, "{path}");
        }
    }
}

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
