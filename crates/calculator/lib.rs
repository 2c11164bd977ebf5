//! A plain gRPC calculator, and the stacks of its client and its server.
//!
//! | module | what is there |
//! |---|---|
//! | [`service`] | the calculator and its values: plain handlers, which know nothing of the rest |
//! | [`state`] | what they keep between calls |
//! | [`client`] | the client's stack, a reason beside each layer |
//! | [`server`] | the server's stack, a reason beside each layer |
//! | [`around`] | what a program has around that stack |
//! | [`program`] | the server from its command line to its end |
//! | [`logs`] | the logs of the programs: lines, and spans and metrics for a collector |
//! | [`options`] | the command line of what calls the calculator |
//! | [`cluster`] | servers and clients that find each other by gossip |
//! | [`recovery`] | what made up for the attempts that failed |
//! | [`endpoints`] | the outcomes of the attempts at each endpoint |
//! | [`watch`] | what all of these show on a dashboard |
//!
//! The programs `calculator-server` and `calculator-client` are thin users of these. `crates/lab`
//! runs demos, loads, simulations and long tests with them, and has REST around the server.

pub mod around;
pub mod client;
pub mod cluster;
pub mod endpoints;
pub mod incoming;
pub mod logs;
pub mod options;
pub mod program;
mod recent;
pub mod recovery;
pub mod server;
pub mod service;
pub mod state;
pub mod watch;

use cinchona::core::Methods;

/// The messages, clients and servers that `build.rs` generates from `proto/`.
pub mod pb {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    tonic::include_proto!("calculator");
}

/// The compiled .proto files, for reflection and for [`methods`].
pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("calculator_descriptor");

/// The methods that may be executed twice, as the .proto says.
pub fn methods() -> Methods {
    // A test parses what `build.rs` wrote, so the default is never needed.
    Methods::from_file_descriptor_set(DESCRIPTORS).unwrap_or_else(|_| Methods::unknown())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cinchona::core::Safety;

    #[test]
    fn every_method_says_what_executing_it_twice_would_do() {
        let arithmetic = ["Add", "Subtract", "Multiply", "Divide", "Range", "Sum"];
        let reads = arithmetic.into_iter().chain(["GetCounter"]);
        let reads = reads.map(|method| ("Calculator", method, Safety::NoSideEffects));
        for (service, method, safety) in reads.chain([
            ("Calculator", "ResetCounter", Safety::Idempotent),
            ("Calculator", "IncrementCounter", Safety::Unknown),
            ("Store", "SetValue", Safety::Idempotent),
            ("Store", "GetValue", Safety::NoSideEffects),
            ("Store", "Delete", Safety::Idempotent),
            ("Store", "Increment", Safety::Unknown),
            ("Store", "Append", Safety::Unknown),
            ("Store", "Withdraw", Safety::Unknown),
            ("Store", "Balance", Safety::NoSideEffects),
        ]) {
            let path = format!("/calculator.{service}/{method}");
            assert_eq!(methods().safety(&path), safety, "{path}");
        }
    }

    #[test]
    fn what_has_an_effect_can_be_named_by_its_caller() {
        for path in methods().unsafe_paths() {
            assert_eq!(methods().request_id_field(path), Some(1), "{path}");
        }
    }
}
