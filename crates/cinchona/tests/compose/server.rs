//! The whole server: what it is by default, what changes it, and what it refuses.

use crate::{CHECK, check, methods};
use cinchona::{
    core::Mode,
    fault::Faults,
    idempotency::MemoryStore,
    server::{Layers, Part, Settings},
};
use cinchona_testkit::Network;
use http::{Request, Response};
use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tonic::{Status, body::Body, transport::Server};
use tower::{Layer, ServiceExt, service_fn};

fn settings() -> Settings {
    Settings::new(methods())
}

fn serve(layers: &Layers) -> Network {
    let network = Network::new();
    let (_, health) = tonic_health::server::health_reporter();
    let server = Server::builder().layer(layers.clone()).add_service(health);
    tokio::spawn(server.serve_with_incoming(network.incoming()));
    network
}

fn request(path: &str, key: Option<&'static str>) -> Request<Body> {
    let mut request = Request::post(format!("http://any{path}"));
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    let body = http_body_util::Full::from(&b"\0\0\0\0\0"[..]);
    request.header("content-type", "application/grpc").body(Body::new(body)).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_server_counts_by_default() {
    let layers = settings().layers().unwrap();
    let network = serve(&layers);
    check(network.channel()).await.unwrap();
    let text = layers.metrics.render();
    let counted = "grpc_server_call_started_total{grpc_method=\"grpc.health.v1.Health/Check\"} 1";
    assert!(text.contains(counted), "{text}");
    assert!(text.contains("cinchona_shed_limit"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_panic_costs_one_call() {
    let layers = settings().layers().unwrap();
    let panics = service_fn(|request: Request<Body>| async move {
        assert_ne!(request.uri().path(), CHECK, "oh");
        Ok::<_, Infallible>(Status::ok("").into_http::<Body>())
    });
    let service = layers.layer(panics);
    let answer = service.clone().oneshot(request(CHECK, None)).await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "13");
    let answer = service.oneshot(request("/shop.Order/Read", None)).await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "0");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_panics_ends_with_internal() {
    use http_body_util::BodyExt;
    let layers = settings().layers().unwrap();
    let panics = service_fn(|_: Request<Body>| async {
        let body =
            http_body_util::StreamBody::new(tokio_stream::iter([()]).map(
                |()| -> Result<http_body::Frame<bytes::Bytes>, Status> { panic!("in its body") },
            ));
        Ok::<_, Infallible>(Response::new(body))
    });
    use tokio_stream::StreamExt;
    let service = layers.layer(panics);
    // The body of a unary call is read before its head is sent, that of a stream after it.
    let answer = service.clone().oneshot(request(CHECK, None)).await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "13");
    let answer = service.oneshot(request("/grpc.health.v1.Health/Watch", None)).await.unwrap();
    let trailers = answer.into_body().collect().await.unwrap();
    assert_eq!(trailers.trailers().unwrap()["grpc-status"], "13");
}

#[tokio::test(start_paused = true)]
async fn each_part_can_be_turned_off_while_calls_run() {
    for part in Part::ALL {
        let layers = settings().with_mode(part, Mode::Off).layers().unwrap();
        let network = serve(&layers);
        assert_eq!(check(network.channel()).await.unwrap(), 1, "{part:?}");
        layers.switch(part).set(Mode::Enforce);
        assert_eq!(check(network.channel()).await.unwrap(), 1, "{part:?}");
    }
    let faults = Faults { failure_rate: 1.0, ..Faults::default() };
    let layers = settings().with_faults(faults).unwrap().layers().unwrap();
    let service = layers.layer(service_fn(|_: Request<Body>| async {
        Ok::<_, Infallible>(Status::ok("").into_http::<Body>())
    }));
    for (mode, code) in [(Mode::Enforce, "14"), (Mode::Off, "0")] {
        layers.switch(Part::Faults).set(mode);
        let answer = service.clone().oneshot(request("/shop.Order/Read", None)).await.unwrap();
        assert_eq!(answer.headers()["grpc-status"], code);
    }
}

#[tokio::test(start_paused = true)]
async fn a_quota_is_for_each_caller() {
    let layers = settings().with_quota(1, 1).unwrap().layers().unwrap();
    let service = layers.layer(service_fn(|_: Request<Body>| async {
        Ok::<_, Infallible>(Status::ok("").into_http::<Body>())
    }));
    let mut codes = vec![];
    for _ in 0..2 {
        let answer = service.clone().oneshot(request("/shop.Order/Read", None)).await.unwrap();
        codes.push(answer.headers()["grpc-status"].clone());
    }
    assert_eq!(codes, ["0", "8"]);
    assert!(settings().with_quota(0, 1).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_repeated_call_has_its_effect_once() {
    let executed = Arc::new(AtomicU32::new(0));
    let counts = executed.clone();
    let place = service_fn(move |_: Request<Body>| {
        counts.fetch_add(1, Ordering::Relaxed);
        async { Ok::<_, Infallible>(Status::ok("").into_http::<Body>()) }
    });
    let layers = settings().with_store(MemoryStore::new()).layers().unwrap();
    let service = layers.layer(place);
    for _ in 0..3 {
        service.clone().oneshot(request("/shop.Order/Place", Some("one"))).await.unwrap();
    }
    assert_eq!(executed.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_ends_within_its_grace() {
    let layers = settings().with_grace(Duration::from_secs(3)).layers().unwrap();
    let network = Network::new();
    let (_, health) = tonic_health::server::health_reporter();
    let server = Server::builder().layer(layers.clone()).add_service(health);
    let incoming = layers.drain.incoming(network.incoming());
    let serving = server.serve_with_incoming_shutdown(incoming, layers.drain.begun());
    let (drain, stop) = (layers.drain.clone(), tokio::time::sleep(Duration::from_secs(5)));
    let served = tokio::spawn(async move { drain.serve(stop, serving).await.is_some() });
    check(network.channel()).await.unwrap();
    assert!(served.await.unwrap());
}

#[test]
fn a_limit_of_nothing_is_refused() {
    assert_eq!(settings().with_limit(Duration::ZERO).layers().unwrap_err().field(), "limit");
}

#[tokio::test(start_paused = true)]
async fn each_server_of_some_settings_ends_for_itself() {
    let settings = settings().with_grace(Duration::from_secs(3)).with_store(MemoryStore::new());
    let [ended, serving] = [settings.layers().unwrap(), settings.layers().unwrap()];
    ended.drain.begin();
    ended.drain.cut();
    check(serve(&serving).channel()).await.unwrap();
    assert_eq!(serving.drain.grace(), Duration::from_secs(3));
    // The store is one, so each recognises what the other has executed.
    let put = service_fn(|_: Request<Body>| async {
        Ok::<_, Infallible>(Status::ok("").into_http::<Body>())
    });
    let domain = |layers: &Layers| {
        let service = layers.dedup.layer(put);
        async move {
            let answered = service.oneshot(request("/shop.Order/Place", Some("k"))).await.unwrap();
            answered.headers().get("idempotency-domain").cloned().unwrap()
        }
    };
    assert_eq!(domain(&ended).await, domain(&serving).await);
}
