//! One port for gRPC and for what axum serves beside it, with the layers around both.

use crate::{check, methods};
use axum::routing::get;
use cinchona::server::Settings;
use cinchona_testkit::Network;
use http_body_util::BodyExt;
use tonic::{body::Body, service::Routes};
use tower::ServiceExt;

#[tokio::test(start_paused = true)]
async fn one_router_serves_grpc_and_http() {
    let layers = Settings::new(methods()).layers().unwrap();
    let (_, health) = tonic_health::server::health_reporter();
    let metrics = layers.metrics.clone();
    let router = Routes::new(health)
        .into_axum_router()
        .route("/metrics", get(move || async move { metrics.render() }))
        .layer(layers);
    let network = Network::new();
    let _serving = network.serve_service(router);
    check(network.channel()).await.unwrap();
    let request = http::Request::get("http://any/metrics").body(Body::empty()).unwrap();
    let answer = network.channel().oneshot(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    let text = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&text).contains("grpc_server_call_started_total"));
}
