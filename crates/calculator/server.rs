//! The server's stack.

use crate::{DESCRIPTORS, pb::calculator_server::CalculatorServer, service::Calculator};
use cinchona::{core::BoxError, deadline::ServerDeadlineLayer, fault::FaultLayer};
use std::{any::Any, future::Future, io, net::SocketAddr, time::Duration};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_stream::Stream;
use tonic::{
    Status,
    body::Body,
    transport::server::{Connected, Server, TcpIncoming},
};
use tower_http::{catch_panic::CatchPanicLayer, trace::TraceLayer};

/// Makes a response of a panic's payload.
pub type Panicked = fn(Box<dyn Any + Send>) -> http::Response<Body>;

/// Serves the calculator, health and reflection on `incoming` until `shutdown`, then ends the
/// calls that have begun.
///
/// # Errors
/// When `incoming` fails for good.
pub async fn serve<I, IO>(
    incoming: I,
    faults: FaultLayer,
    shutdown: impl Future<Output = ()>,
) -> Result<(), BoxError>
where
    I: Stream<Item = io::Result<IO>>,
    IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<CalculatorServer<Calculator>>().await;
    let reflection_service = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let draining = async move {
        shutdown.await;
        // Whoever watches goes elsewhere while the calls that have begun are ended.
        health.set_not_serving::<CalculatorServer<Calculator>>().await;
    };
    Server::builder()
        // A client that has gone silently is noticed, and its calls are dropped.
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        // Outermost: sees each call, and what came of it.
        .layer(TraceLayer::new_for_grpc())
        // A panic answers INTERNAL; without this it resets the stream and says nothing.
        .layer(catching_panics())
        // Drops the work that nobody waits for any more, and tells the handler how long it has.
        .layer(ServerDeadlineLayer::new())
        // Innermost: what is injected looks as if the service had done it.
        .layer(faults)
        .add_service(health_service)
        .add_service(reflection_service)
        .add_service(CalculatorServer::new(Calculator))
        .serve_with_incoming_shutdown(incoming, draining)
        .await?;
    Ok(())
}

/// Listens on `addr` with `TCP_NODELAY`, so that no answer waits for an acknowledgement.
///
/// # Errors
/// When the address cannot be bound; the error names it.
pub fn listen(addr: SocketAddr) -> io::Result<TcpIncoming> {
    let incoming = TcpIncoming::bind(addr).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot listen on {addr}: {error}"))
    })?;
    Ok(incoming.with_nodelay(Some(true)))
}

/// Answers `INTERNAL` where the service below panics.
pub fn catching_panics() -> CatchPanicLayer<Panicked> {
    CatchPanicLayer::custom(panicked)
}

fn panicked(panic: Box<dyn Any + Send>) -> http::Response<Body> {
    let said = panic.downcast_ref::<&str>().copied();
    let said = said.or_else(|| panic.downcast_ref().map(String::as_str));
    tracing::error!(panic = said, "the service panicked");
    Status::internal("the service panicked").into_http()
}
