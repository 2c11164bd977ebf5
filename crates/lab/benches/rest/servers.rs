//! The two servers, each on a socket of its own whose bytes are counted.

use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::post,
};
use calculator::{
    incoming::Connection,
    pb::{
        BinaryOperation, calculator_server::Calculator as _, calculator_server::CalculatorServer,
    },
    server::{Layers, dedup, listen, serve},
    service::Calculator,
    state::Memory,
};
use cinchona::{core::BoxError, fault::FaultLayer};
use http::StatusCode;
use lab::{pb, rest::around};
use std::{
    future::pending,
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_stream::{Stream, StreamExt};
use tonic::{
    Request,
    service::Routes,
    transport::server::{Connected, Server},
};

/// A server that runs until the program ends.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) wire: Wire,
}

/// The bytes that have come in and gone out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wire(Arc<[AtomicU64; 2]>);

/// A connection whose bytes are counted.
struct Counted {
    io: Connection,
    wire: Wire,
}

/// tonic and axum, and nothing else.
pub(crate) fn bare() -> Result<Running, BoxError> {
    let (running, incoming) = counted()?;
    let calculator = Calculator::new(Memory::new());
    let rest = Router::new().route("/v1/add", post(add)).with_state(calculator.clone());
    let routes = Routes::from(rest).add_service(CalculatorServer::new(calculator));
    let server = Server::builder().accept_http1(true).add_routes(routes.prepare());
    tokio::spawn(server.serve_with_incoming(incoming));
    Ok(running)
}

async fn add(
    State(calculator): State<Calculator>,
    Json(pb::BinaryOperation { a, b }): Json<pb::BinaryOperation>,
) -> Response {
    match calculator.add(Request::new(BinaryOperation { a, b })).await {
        Ok(sum) => Json(pb::Result { value: sum.into_inner().value }).into_response(),
        Err(status) => (StatusCode::BAD_REQUEST, status.message().to_owned()).into_response(),
    }
}

/// The worked example, with REST.
pub(crate) fn whole() -> Result<Running, BoxError> {
    let (running, incoming) = counted()?;
    let (faults, state) = (FaultLayer::new(Default::default())?, Memory::new());
    let layers = Layers { around: Some(around()), ..Layers::new(faults, dedup(state.clone())) };
    tokio::spawn(serve(incoming, state, layers, pending()));
    Ok(running)
}

fn counted() -> io::Result<(Running, impl Stream<Item = io::Result<Counted>> + Send)> {
    let incoming = listen(([127, 0, 0, 1], 0).into())?;
    let running = Running { address: incoming.local_addr()?, wire: Wire::default() };
    let wire = running.wire.clone();
    Ok((running, incoming.map(move |io| io.map(|io| Counted { io, wire: wire.clone() }))))
}

// === impl Wire ===

impl Wire {
    /// What has come in, and what has gone out.
    pub(crate) fn now(&self) -> (u64, u64) {
        (self.0[0].load(Relaxed), self.0[1].load(Relaxed))
    }

    fn add(&self, way: usize, bytes: usize) {
        self.0[way].fetch_add(bytes as u64, Relaxed);
    }
}

// === impl Counted ===

impl Connected for Counted {
    type ConnectInfo = <Connection as Connected>::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.io.connect_info()
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, into));
        self.wire.add(0, into.filled().len() - before);
        Poll::Ready(read)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, bytes));
        self.wire.add(1, *written.as_ref().unwrap_or(&0));
        Poll::Ready(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, bytes));
        self.wire.add(1, *written.as_ref().unwrap_or(&0));
        Poll::Ready(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
