//! Each layer of a server, and all of them, under and over other layers around tonic's.

use crate::{check, methods};
use cinchona::{
    core::BoxError,
    deadline::ServerDeadlineLayer,
    drain::Drain,
    fault::{FaultLayer, Faults},
    idempotency::{DedupLayer, MemoryStore},
    observe::{Metrics, ServerLayer},
    server::Settings,
    shed::{RateLimitLayer, ShedLayer, StatusLimitLayer},
};
use cinchona_testkit::Network;
use std::time::Duration;
use tonic::{
    Request, Status,
    body::Body,
    codegen::Bytes,
    service::{InterceptorLayer, Routes},
    transport::Server,
};
use tonic_web::GrpcWebLayer;
use tower::{
    Layer, Service, ServiceBuilder,
    util::{BoxCloneServiceLayer, MapErrLayer, option_layer},
};
use tower_http::{
    auth::AsyncRequireAuthorizationLayer, compression::CompressionLayer,
    map_response_body::MapResponseBodyLayer, timeout::TimeoutLayer, trace::TraceLayer,
    validate_request::ValidateRequestHeaderLayer,
};

const LONG: Duration = Duration::from_secs(60);

fn allow(request: Request<()>) -> Result<Request<()>, Status> {
    Ok(request)
}

fn timeout() -> TimeoutLayer {
    TimeoutLayer::with_status_code(http::StatusCode::GATEWAY_TIMEOUT, LONG)
}

/// Calls a server with this layer around it.
macro_rules! served {
    ($layer:expr) => {{
        let network = Network::new();
        let (_, health) = tonic_health::server::health_reporter();
        let server = Server::builder().accept_http1(true).layer($layer).add_service(health);
        let serving = tokio::spawn(server.serve_with_incoming(network.incoming()));
        assert_eq!(check(network.channel()).await.unwrap(), 1);
        serving.abort();
    }};
}

/// Any layer around the services of a server.
type Boxed = BoxCloneServiceLayer<Routes, http::Request<Body>, http::Response<Body>, BoxError>;

/// What `Server::layer` takes, as one type: else all of hyper is compiled again for each.
fn boxed<L, S, B>(layer: L) -> Boxed
where
    L: Layer<Routes, Service = S> + Send + Sync + 'static,
    S: Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError> + Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let plain = MapResponseBodyLayer::new(Body::new::<B>);
    let errors = MapErrLayer::new(Into::into);
    BoxCloneServiceLayer::new(ServiceBuilder::new().layer(errors).layer(plain).layer(layer))
}

/// As `served!`, with the layer as one type.
macro_rules! called {
    ($layer:expr) => {
        served!(boxed($layer))
    };
}

/// Calls an axum router with this layer around it.
macro_rules! routed {
    ($router:expr) => {{
        let network = Network::new();
        let _serving = network.serve_service($router);
        assert_eq!(check(network.channel()).await.unwrap(), 1);
    }};
}

fn routes() -> axum::Router {
    let (_, health) = tonic_health::server::health_reporter();
    Routes::new(health).into_axum_router()
}

macro_rules! combined {
    ($test:ident, $layer:expr) => {
        #[tokio::test(start_paused = true)]
        async fn $test() {
            let layer = $layer;
            served!(layer.clone());
            called!(option_layer(Some(layer.clone()).map(|ours| {
                ServiceBuilder::new()
                    .layer(MapResponseBodyLayer::new(Body::new))
                    .layer(ours)
                    .into_inner()
            })));
            let over = ServiceBuilder::new();
            called!(over.layer(InterceptorLayer::new(allow)).layer(layer.clone()).into_inner());
            let over = ServiceBuilder::new();
            called!(over.layer(TraceLayer::new_for_grpc()).layer(layer.clone()).into_inner());
            let over = ServiceBuilder::new();
            called!(over.layer(CompressionLayer::new()).layer(layer.clone()).into_inner());
            let over = ServiceBuilder::new();
            called!(over.layer(GrpcWebLayer::new()).layer(layer.clone()).into_inner());

            let under = ServiceBuilder::new().layer(layer.clone());
            called!(under.layer(InterceptorLayer::new(allow)).into_inner());
            let under = ServiceBuilder::new().layer(layer.clone());
            called!(under.layer(TraceLayer::new_for_grpc()).into_inner());
            let under = ServiceBuilder::new().layer(layer.clone());
            called!(under.layer(timeout()).into_inner());
            let under = ServiceBuilder::new().layer(layer.clone());
            called!(under.layer(CompressionLayer::new()).into_inner());
            let under = ServiceBuilder::new().layer(layer.clone());
            called!(under.layer(GrpcWebLayer::new()).into_inner());

            routed!(routes().layer(layer.clone()));
            routed!(routes().layer(TraceLayer::new_for_grpc()).layer(layer.clone()));
            routed!(routes().layer(layer.clone()).layer(timeout()));
            routed!(routes().layer(layer.clone()).layer(CompressionLayer::new()));
            let (_, health) = tonic_health::server::health_reporter();
            let network = Network::new();
            let single = Server::builder().add_service(layer.layer(health));
            let serving = tokio::spawn(single.serve_with_incoming(network.incoming()));
            assert_eq!(check(network.channel()).await.unwrap(), 1);
            serving.abort();
        }
    };
}

combined!(calls_are_watched, ServerLayer::new(&Metrics::new(methods())));
combined!(statuses_are_cut, StatusLimitLayer::new());
combined!(calls_end_with_the_server, Drain::default().layer());
combined!(callers_have_quotas, RateLimitLayer::default());
combined!(what_is_too_much_is_shed, ShedLayer::default());
combined!(deadlines_are_kept, ServerDeadlineLayer::new());
combined!(faults_are_injected, FaultLayer::new(Faults::default()).unwrap());
combined!(calls_are_recognised, DedupLayer::new(MemoryStore::new(), methods()));
combined!(all_layers_in_their_order, Settings::new(methods()).layers().unwrap());

#[tokio::test(start_paused = true)]
async fn who_may_call_is_asked_outside_of_all_layers() {
    let layers = Settings::new(methods()).layers().unwrap();
    let ask = |request: http::Request<Body>| async {
        match request.headers().contains_key("authorization") {
            true => Ok(request),
            false => Err(Status::unauthenticated("who are you?").into_http()),
        }
    };
    let network = Network::new();
    let (_, health) = tonic_health::server::health_reporter();
    let server = Server::builder()
        .layer(AsyncRequireAuthorizationLayer::new(ask))
        .layer(layers.clone())
        .add_service(health.clone());
    tokio::spawn(server.serve_with_incoming(network.incoming()));
    let refused = check(network.channel()).await.unwrap_err();
    assert_eq!(refused.message(), "who are you?");
    let network = Network::new();
    let server = Server::builder()
        .layer(ValidateRequestHeaderLayer::accept("application/grpc"))
        .layer(layers)
        .add_service(health);
    tokio::spawn(server.serve_with_incoming(network.incoming()));
    _ = check(network.channel()).await;
}
