//! TLS, and a token on each call: checked outside of the server's layers, added below the client's
//! retries.
//!
//! `cargo run -p cinchona --example tls_auth`

use cinchona::{client, core::Methods, server};
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
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};
use tonic::{
    Code, Request, Response, Status,
    service::{InterceptorLayer, interceptor::InterceptedService},
    transport::{
        Certificate, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig,
        server::TcpIncoming,
    },
};

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

/// The server's check.
fn check(request: Request<()>) -> Result<Request<()>, Status> {
    match request.metadata().get("authorization") {
        Some(token) if token == "Bearer token-2" => Ok(request),
        _ => Err(Status::unauthenticated("the token is not valid (any more)")),
    }
}

/// Serves over TLS, and returns its address and the certificate to trust.
async fn serve() -> Result<(String, Certificate), Box<dyn Error>> {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let certificate = own.cert.pem();
    let identity = Identity::from_pem(&certificate, own.signing_key.serialize_pem());

    let incoming = TcpIncoming::bind("127.0.0.1:0".parse()?)?;
    let address = format!("https://localhost:{}", incoming.local_addr()?.port());
    let layers = server::Settings::new(Methods::from_file_descriptor_set(DESCRIPTORS)?).layers()?;
    let server = Server::builder()
        .tls_config(ServerTlsConfig::new().identity(identity))?
        // Outermost: an unauthorized caller costs nothing below, and receives no deduplicated
        // answer.
        .layer(InterceptorLayer::new(check))
        .layer(layers)
        .add_service(GreeterServer::new(Hello));
    tokio::spawn(server.serve_with_incoming(incoming));
    Ok((address, Certificate::from_pem(certificate)))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (address, certificate) = serve().await?;
    let methods = Methods::from_file_descriptor_set(DESCRIPTORS)?;
    let tls = ClientTlsConfig::new().ca_certificate(certificate);
    let hello = || HelloRequest { name: "world".into() };

    // Above the layers, once for each call: all attempts carry this token.
    let token = |mut request: Request<()>| {
        request.metadata_mut().insert("authorization", "Bearer token-2".parse().map_err(bad)?);
        Ok(request)
    };
    let settings = client::Settings::new(methods).with_tls(tls.clone());
    let channel = settings.connect(&address)?;
    let mut greeter = GreeterClient::with_interceptor(channel.clone(), token);
    println!("with a token: {}", greeter.say_hello(hello()).await?.into_inner().message);

    // Without a token: `UNAUTHENTICATED` is an answer, and is not retried.
    let refused = GreeterClient::new(channel).say_hello(hello()).await;
    println!("without: {:?}", refused.map_err(|status| status.code()).err());

    // Below the retries, once for each attempt: a token that has just expired costs one attempt.
    let issued = Arc::new(AtomicU32::new(0));
    let renewed = move |mut request: Request<()>| {
        let token = format!("Bearer token-{}", issued.fetch_add(1, Ordering::Relaxed) + 1);
        request.metadata_mut().insert("authorization", token.parse().map_err(bad)?);
        Ok(request)
    };
    let retry = settings.retry.with_forced_codes([Code::Unavailable, Code::Unauthenticated]);
    let endpoint = Endpoint::from_shared(address)?.tls_config(tls)?;
    let layers = settings.with_retry(retry).layers()?;
    let channel = layers.around(InterceptedService::new(endpoint.connect_lazy(), renewed));
    let reply = GreeterClient::new(channel).say_hello(hello()).await?;
    println!("with a token that is renewed: {}", reply.into_inner().message);
    Ok(())
}

fn bad(error: impl Error) -> Status {
    Status::internal(error.to_string())
}
