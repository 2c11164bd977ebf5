//! A client with retries, and a server that fails at first.
//!
//! `cargo run -p cinchona --example greeter`

use cinchona::{client::Settings, core::Methods, retry::Ledger};
use example_proto::{
    DESCRIPTORS,
    greeter::{
        HelloReply, HelloRequest,
        greeter_client::GreeterClient,
        greeter_server::{Greeter, GreeterServer},
    },
};
use std::{
    error::Error,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

/// Fails two calls, like a server that restarts, and then greets.
#[derive(Default)]
struct WarmingUp {
    calls: AtomicU32,
}

#[tonic::async_trait]
impl Greeter for WarmingUp {
    async fn say_hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<HelloReply>, Status> {
        if self.calls.fetch_add(1, Ordering::Relaxed) < 2 {
            return Err(Status::unavailable("still warming up"));
        }
        let message = format!("Hello, {}!", request.into_inner().name);
        Ok(Response::new(HelloReply { message }))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse()?)?;
    let address = format!("http://{}", incoming.local_addr()?);
    let server = Server::builder().add_service(GreeterServer::new(WarmingUp::default()));
    tokio::spawn(server.serve_with_incoming(incoming));

    // The .proto declares which methods may be executed twice: others are not retried after a
    // failure if the request may have been executed.
    let methods = Methods::from_file_descriptor_set(DESCRIPTORS)?;
    let channel = Settings::new(methods).with_deadline(Duration::from_secs(10)).connect(address)?;
    let mut greeter = GreeterClient::new(channel.clone());

    let reply = greeter.say_hello(HelloRequest { name: "world".into() }).await?;
    // The attempts: a call that was retried has its ledger among the response's extensions.
    if let Some(ledger) = reply.extensions().get::<Ledger>() {
        println!("{ledger}");
    }
    println!("{}", reply.into_inner().message);

    // Metrics are counted by default.
    let metrics = channel.metrics().render();
    for line in metrics.lines().filter(|line| line.starts_with("grpc_client_call_retries_sum")) {
        println!("{line}");
    }
    Ok(())
}
