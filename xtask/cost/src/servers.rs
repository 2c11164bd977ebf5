//! The servers that are compared.

use crate::{methods, pb::calculator_server::CalculatorServer, service::Adder};
use cinchona::{
    core::BoxError,
    deadline::ServerDeadlineLayer,
    fault::FaultLayer,
    idempotency::{DedupLayer, MemoryStore},
    observe::{Metrics, ServerLayer},
    shed::{Limit, ShedLayer},
};
use std::future::Future;
use tonic::transport::{Server, server::TcpIncoming};

/// By name; the first is what the others are compared with.
pub const SERVERS: [&str; 7] =
    ["plain", "observe", "shed", "deadline", "fault", "dedup", "five layers"];

/// The shipped program, which is not of this package.
pub const SHIPPED: &str = "calculator-server";

/// Listens on any free port of loopback.
///
/// # Errors
/// When there is none.
pub fn listen() -> Result<TcpIncoming, BoxError> {
    let listener = TcpIncoming::bind(([127, 0, 0, 1], 0).into())?;
    Ok(listener.with_nodelay(Some(true)))
}

/// Serves the adder behind the layers of that name until `stop`.
///
/// # Errors
/// When there is no such name, or serving fails.
pub async fn serve(
    name: &str,
    incoming: TcpIncoming,
    stop: impl Future<Output = ()>,
) -> Result<(), BoxError> {
    let methods = methods();
    let observe = ServerLayer::new(&Metrics::new(methods.clone()));
    // More than there are callers: nothing waits for its place.
    let shed = ShedLayer::new(Limit::Fixed(1000))?;
    let deadline = ServerDeadlineLayer::new();
    let fault = FaultLayer::new(Default::default())?;
    let dedup = DedupLayer::new(MemoryStore::new(), methods);
    let server = Server::builder();
    macro_rules! serve {
        ($($layer:expr),*) => {{
            let adder = CalculatorServer::new(Adder);
            let mut server = server$(.layer($layer))*;
            server.add_service(adder).serve_with_incoming_shutdown(incoming, stop).await?
        }};
    }
    match name {
        "plain" => serve!(),
        "observe" => serve!(observe),
        "shed" => serve!(shed),
        "deadline" => serve!(deadline),
        "fault" => serve!(fault),
        "dedup" => serve!(dedup),
        "five layers" => serve!(observe, shed, deadline, fault, dedup),
        _ => return Err(format!("servers: {SERVERS:?}").into()),
    }
    Ok(())
}
