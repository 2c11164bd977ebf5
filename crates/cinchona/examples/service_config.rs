//! gRPC's service config in a file, changed while calls run.
//!
//! `cargo run -p cinchona --example service_config`

use cinchona::{client::Settings, core::Methods};
use example_proto::{
    DESCRIPTORS,
    greeter::{
        HelloReply, HelloRequest,
        greeter_client::GreeterClient,
        greeter_server::{Greeter, GreeterServer},
    },
};
use std::{error::Error, fs, time::Duration};
use tokio::time::sleep;
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

/// Answers only the fourth attempt of a call: gRPC's clients send the number of earlier attempts in
/// a header.
struct Unsteady;

#[tonic::async_trait]
impl Greeter for Unsteady {
    async fn say_hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<HelloReply>, Status> {
        let before = request.metadata().get("grpc-previous-rpc-attempts");
        if before.is_none_or(|before| before != "3") {
            return Err(Status::unavailable("not this time"));
        }
        let message = format!("Hello, {}!", request.into_inner().name);
        Ok(Response::new(HelloReply { message }))
    }
}

/// The same JSON as in grpc-go, grpc-java and the C core (gRFC A6).
fn config(max_attempts: u32) -> String {
    format!(
        r#"{{
            "methodConfig": [{{
                "name": [{{ "service": "greeter.Greeter" }}],
                "timeout": "5s",
                "retryPolicy": {{
                    "maxAttempts": {max_attempts},
                    "initialBackoff": "0.01s",
                    "maxBackoff": "0.1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"]
                }}
            }}]
        }}"#
    )
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse()?)?;
    let address = format!("http://{}", incoming.local_addr()?);
    let server = Server::builder().add_service(GreeterServer::new(Unsteady));
    tokio::spawn(server.serve_with_incoming(incoming));

    let directory = tempfile::tempdir()?;
    let file = directory.path().join("service_config.json");
    fs::write(&file, config(2))?;

    let settings = Settings::new(Methods::from_file_descriptor_set(DESCRIPTORS)?);
    let channel = settings.connect(address)?;
    // Checks the file each 20 ms; a program would use 10 s. Mistakes in the file are logged, and
    // change nothing.
    let (follower, path) = (channel.clone(), file.clone());
    tokio::spawn(async move { follower.follow(path, Duration::from_millis(20)).await });
    // So that the first call has it as well.
    sleep(Duration::from_millis(200)).await;

    let mut greeter = GreeterClient::new(channel);
    let hello = || HelloRequest { name: "world".into() };
    match greeter.say_hello(hello()).await {
        Ok(reply) => println!("with 2 attempts: {}", reply.into_inner().message),
        Err(status) => println!("with 2 attempts: {} ({})", status.code(), status.message()),
    }

    fs::write(&file, config(5))?;
    // Until the new config is in force, calls fail as before.
    loop {
        if let Ok(reply) = greeter.say_hello(hello()).await {
            println!("with 5 attempts: {}", reply.into_inner().message);
            return Ok(());
        }
        sleep(Duration::from_millis(20)).await;
    }
}
