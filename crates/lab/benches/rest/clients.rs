//! The clients: the same sum by each protocol.

use bytes::Bytes;
use calculator::{
    client::{Client, Settings, client},
    pb::{BinaryOperation, calculator_client::CalculatorClient},
};
use cinchona::{
    balance::{Balance, of_endpoint},
    core::BoxError,
};
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lab::pb;
use std::net::SocketAddr;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};

/// By what is called.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Protocol {
    Grpc,
    RestOverHttp2,
    RestOverHttp1,
}

/// A client that waits for each answer before its next call.
pub(crate) enum Caller {
    Grpc(CalculatorClient<Channel>),
    Whole(Box<Client<Balance>>),
    Rest(Rest),
}

/// A client by REST.
pub(crate) struct Rest {
    sender: Sender,
    uri: String,
    /// As the attempts of the client's stack say it to the server's.
    timeout: Option<&'static str>,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// So many callers, of a server that has its layers or has none.
pub(crate) async fn connect(
    protocol: Protocol,
    layers: bool,
    server: SocketAddr,
    callers: usize,
) -> Result<Vec<Caller>, BoxError> {
    let endpoint = Endpoint::from_shared(format!("http://{server}"))?;
    let timeout = layers.then_some("2S");
    match protocol {
        Protocol::Grpc if layers => {
            let layers = Settings::default().layers().expect("the defaults are valid");
            let client = client(of_endpoint(endpoint), &layers);
            Ok((0..callers).map(|_| Caller::Whole(client.clone().into())).collect())
        }
        Protocol::Grpc => {
            let client = CalculatorClient::new(endpoint.connect().await?);
            Ok((0..callers).map(|_| Caller::Grpc(client.clone())).collect())
        }
        Protocol::RestOverHttp2 => {
            let (sender, connection) =
                http2::handshake(TokioExecutor::new(), open(server).await?).await?;
            tokio::spawn(connection);
            let uri = format!("http://{server}/v1/add");
            let sender = || Sender::Http2(sender.clone());
            let rest = |_| Caller::Rest(Rest { sender: sender(), uri: uri.clone(), timeout });
            Ok((0..callers).map(rest).collect())
        }
        Protocol::RestOverHttp1 => {
            let mut all = Vec::new();
            for _ in 0..callers {
                let (sender, connection) = http1::handshake(open(server).await?).await?;
                tokio::spawn(connection);
                let sender = Sender::Http1(sender);
                all.push(Caller::Rest(Rest { sender, uri: "/v1/add".into(), timeout }));
            }
            Ok(all)
        }
    }
}

async fn open(server: SocketAddr) -> Result<TokioIo<TcpStream>, BoxError> {
    let stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    Ok(TokioIo::new(stream))
}

// === impl Protocol ===

impl Protocol {
    pub(crate) const ALL: [Self; 3] = [Self::Grpc, Self::RestOverHttp2, Self::RestOverHttp1];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Grpc => "gRPC",
            Self::RestOverHttp2 => "REST, HTTP/2",
            Self::RestOverHttp1 => "REST, HTTP/1.1",
        }
    }
}

// === impl Caller ===

impl Caller {
    pub(crate) async fn add(&mut self, a: f64, b: f64) -> Result<f64, BoxError> {
        let operation = BinaryOperation { a, b };
        Ok(match self {
            Self::Grpc(client) => client.add(operation).await?.into_inner().value,
            Self::Whole(client) => client.add(operation).await?.into_inner().value,
            Self::Rest(client) => client.add(pb::BinaryOperation { a, b }).await?.value,
        })
    }
}

// === impl Rest ===

impl Rest {
    async fn add(&mut self, operation: pb::BinaryOperation) -> Result<pb::Result, BoxError> {
        let body = serde_json::to_vec(&operation)?;
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(self.uri.as_str())
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(timeout) = self.timeout {
            request = request.header("grpc-timeout", timeout);
        }
        let response: http::Response<Incoming> = match &mut self.sender {
            Sender::Http1(sender) => {
                let request = request.header(header::HOST, "127.0.0.1");
                sender.ready().await?;
                sender.send_request(request.body(Full::new(body.into()))?).await?
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request.body(Full::new(body.into()))?).await?
            }
        };
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            return Err(format!("{status}: {}", String::from_utf8_lossy(&body)).into());
        }
        Ok(serde_json::from_slice(&body)?)
    }
}
