//! Servers and clients of `grpc.health.v1.Health`, which has a unary method and a stream.

use cinchona::core::{BoxError, Methods};
use cinchona_testkit::{Answer, Network, ScriptedServer, Serving, encode};
use prost::Message;
use prost_types::{
    FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto, MethodOptions,
    ServiceDescriptorProto, method_options::IdempotencyLevel,
};
use std::pin::Pin;
use tonic::{Status, body::Body, codegen::Bytes};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_client::HealthClient,
};
use tower::{Layer, Service, ServiceExt, util::BoxService};
use tower_http::map_response_body::MapResponseBodyLayer;

pub(crate) fn asked() -> HealthCheckRequest {
    HealthCheckRequest { service: String::new() }
}

pub(crate) fn ok() -> Answer {
    Answer::Ok(encode(&HealthCheckResponse { status: ServingStatus::Serving.into() }))
}

/// `Check` changes nothing; `Watch` streams; of `Order.Place` nothing is said, and `Order.Read`
/// changes nothing.
pub(crate) fn methods() -> Methods {
    Methods::from_file_descriptor_set(&descriptors()).unwrap()
}

pub(crate) fn descriptors() -> Vec<u8> {
    let method = |name: &str, level: Option<IdempotencyLevel>| MethodDescriptorProto {
        name: Some(name.into()),
        server_streaming: Some(name == "Watch"),
        options: level.map(|level| MethodOptions {
            idempotency_level: Some(level.into()),
            ..Default::default()
        }),
        ..Default::default()
    };
    let file = |package: &str, service: &str, method| FileDescriptorProto {
        package: Some(package.into()),
        service: vec![ServiceDescriptorProto {
            name: Some(service.into()),
            method,
            ..Default::default()
        }],
        ..Default::default()
    };
    let safe = Some(IdempotencyLevel::NoSideEffects);
    let health = vec![method("Check", safe), method("Watch", safe)];
    let order = vec![method("Place", None), method("Read", safe)];
    FileDescriptorSet {
        file: vec![file("grpc.health.v1", "Health", health), file("shop", "Order", order)],
    }
    .encode_to_vec()
}

/// A server that answers by a script.
pub(crate) fn scripted(
    script: impl IntoIterator<Item = Answer>,
) -> (ScriptedServer, Network, Serving) {
    let (server, network) = (ScriptedServer::new(script), Network::new());
    let serving = network.serve_service(server.clone());
    (server, network, serving)
}

/// Calls `Check` by the generated client, of one type: else it is compiled again for each channel.
pub(crate) fn check<C, B>(channel: C) -> Pin<Box<dyn Future<Output = Result<i32, Status>> + Send>>
where
    C: Service<http::Request<Body>, Response = http::Response<B>, Error: Into<BoxError>>,
    C: Send + 'static,
    C::Future: Send + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let plain = MapResponseBodyLayer::new(Body::new::<B>).layer(channel);
    // As the client would make it.
    let failed = |error: C::Error| Status::from_error(error.into());
    Box::pin(check_boxed(BoxService::new(plain.map_err(failed))))
}

async fn check_boxed(
    channel: BoxService<http::Request<Body>, http::Response<Body>, Status>,
) -> Result<i32, Status> {
    let response = HealthClient::new(channel).check(asked()).await?;
    Ok(response.into_inner().status)
}
