//! gRPC and HTTP on one port, with the layers around gRPC.
//!
//! `cargo run -p cinchona --example axum`

use axum::{
    extract::{ConnectInfo, Request as Http},
    middleware::map_request,
    routing::get,
};
use cinchona::{client, core::Methods, server};
use example_proto::{
    DESCRIPTORS,
    greeter::{
        HelloReply, HelloRequest,
        greeter_client::GreeterClient,
        greeter_server::{Greeter, GreeterServer},
    },
};
use std::{error::Error, future::IntoFuture, net::SocketAddr};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};
use tonic::{Request, Response, Status, service::Routes, transport::server::TcpConnectInfo};

struct Hello;

#[tonic::async_trait]
impl Greeter for Hello {
    async fn say_hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<HelloReply>, Status> {
        let message = format!("Hello, {}!", request.into_inner().name);
        Ok(Response::new(HelloReply { message }))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let methods = Methods::from_file_descriptor_set(DESCRIPTORS)?;
    let layers = server::Settings::new(methods.clone()).layers()?;
    let (metrics, drain) = (layers.metrics.clone(), layers.drain.clone());
    let router = Routes::new(GreeterServer::new(Hello))
        .into_axum_router()
        .layer(layers)
        // The layers tell callers apart by the address that tonic's own server puts here.
        .layer(map_request(with_peer))
        // Routes that come after the layers are not in them: they answer by gRPC's status.
        .route("/", get(|| async { "gRPC is on this port as well\n" }))
        .route("/metrics", get(move || async move { metrics.render() }))
        .into_make_service_with_connect_info::<SocketAddr>();

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let serving = axum::serve(listener, router).with_graceful_shutdown(drain.begun());
    let (stop, stopped) = oneshot::channel::<()>();
    // A program would wait for SIGTERM here.
    let ending = async move { _ = stopped.await };
    let server = tokio::spawn(async move { drain.serve(ending, serving.into_future()).await });

    let channel = client::Settings::new(methods).connect(format!("http://{address}"))?;
    let hello = HelloRequest { name: "world".into() };
    let reply = GreeterClient::new(channel).say_hello(hello).await?;
    println!("gRPC: {}", reply.into_inner().message);

    println!("GET /: {}", fetch(address, "/").await?.lines().last().unwrap_or_default());
    let metrics = fetch(address, "/metrics").await?;
    let counted = metrics.lines().find(|line| line.starts_with("grpc_server_call_started_total"));
    println!("GET /metrics: {}, and more", counted.unwrap_or_default());

    _ = stop.send(());
    match server.await? {
        Some(ended) => println!("the server has ended: {ended:?}"),
        None => println!("the server did not end within its grace"),
    }
    Ok(())
}

async fn with_peer(ConnectInfo(peer): ConnectInfo<SocketAddr>, mut request: Http) -> Http {
    let peer = TcpConnectInfo { local_addr: None, remote_addr: Some(peer) };
    request.extensions_mut().insert(peer);
    request
}

/// What a browser would do.
async fn fetch(address: SocketAddr, path: &str) -> Result<String, Box<dyn Error>> {
    let mut connection = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    Ok(answer)
}
