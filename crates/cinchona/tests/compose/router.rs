//! One port for gRPC and for what axum serves beside it, with the layers around both.

use crate::{check, methods};
use axum::routing::get;
use cinchona::{
    fault::Faults,
    server::{Layers, Settings},
};
use cinchona_testkit::Network;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use std::convert::Infallible;
use tokio_stream::StreamExt;
use tonic::{Code, body::Body, codegen::Bytes, service::Routes};
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

async fn panics() -> &'static str {
    panic!("a fault of the page")
}

/// Asks `/page`, as a browser or as a program that sends JSON, and returns the status, the type of
/// the answer and its text.
async fn page(layers: &Layers, method: &str) -> (u16, String, String) {
    let routes = Routes::default().into_axum_router();
    let router = routes
        .route("/page", get(|| async { "a page" }).post(|| async { "a page" }))
        .route("/panics", get(panics))
        .layer(layers.clone());
    let path = if method == "PANIC" { "/panics" } else { "/page" };
    let request = match method {
        "POST" => http::Request::post(path).header("content-type", "application/json"),
        _ => http::Request::get(path),
    };
    let answer = router.oneshot(request.body(axum::body::Body::empty()).unwrap()).await.unwrap();
    let (status, kind) = (answer.status().as_u16(), answer.headers()["content-type"].clone());
    let text = answer.into_body().collect().await.unwrap().to_bytes();
    (status, kind.to_str().unwrap().into(), String::from_utf8(text.into()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_page_that_breaks_off_does_not_look_whole() {
    let half = || async {
        let frames = tokio_stream::iter([1, 2]).map(|n| match n {
            1 => Ok::<_, Infallible>(Frame::data(Bytes::from("half"))),
            _ => panic!("a fault of the page"),
        });
        axum::body::Body::new(StreamBody::new(frames))
    };
    let layers = Settings::new(methods()).layers().unwrap();
    let router = Routes::default().into_axum_router().route("/half", get(half)).layer(layers);
    let request = http::Request::get("/half").body(axum::body::Body::empty()).unwrap();
    let mut body = router.oneshot(request).await.unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
    assert!(body.frame().await.unwrap().is_err(), "an error, which closes the connection");
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_beside_grpc_is_answered_in_http() {
    let plain = "text/plain; charset=utf-8";
    let settings = || Settings::new(methods());
    for method in ["GET", "POST"] {
        let answer = page(&settings().layers().unwrap(), method).await;
        assert_eq!(answer, (200, plain.into(), "a page".into()));
        for (code, http) in [(Code::Unavailable, 503), (Code::ResourceExhausted, 429)] {
            let faults = Faults { failure_rate: 1.0, code, ..Faults::default() };
            let refusing = settings().with_faults(faults).unwrap().layers().unwrap();
            let (status, kind, text) = page(&refusing, method).await;
            assert_eq!((status, &*kind), (http, plain), "{text}");
        }
        let ended = settings().layers().unwrap();
        ended.drain.begin();
        assert_eq!(page(&ended, method).await.0, 200, "the router's own end it is");
    }
    let (status, kind, text) = page(&settings().layers().unwrap(), "PANIC").await;
    assert_eq!((status, &*kind, &*text), (500, plain, "INTERNAL: the service panicked\n"));
}
