//! What a team with tonic services tries first.

use crate::{asked, check, descriptors, methods, ok, scripted, unavailable};
use cinchona::{
    Channel,
    client::{self, Settings},
    config::ServiceConfig,
    core::{Methods, Safety},
    server,
};
use cinchona_testkit::Network;
use std::error::Error;
use tonic::{Request, Status, service::Routes};
use tonic_health::pb::health_client::HealthClient;
use tower::Layer;
use tower_http::{map_response_body::MapResponseBodyLayer, trace::TraceLayer};

// catalogue: S-D1
#[tokio::test(start_paused = true)]
async fn a_generated_client_with_an_interceptor_takes_the_whole_client_and_keeps_its_retries() {
    let (server, network, _serving) = scripted([unavailable(), ok()]);
    let channel: Channel<tonic::transport::Channel> =
        Settings::new(methods()).layers().unwrap().around(network.channel());
    let mut client = HealthClient::with_interceptor(channel, |mut request: Request<()>| {
        request.metadata_mut().insert("authorization", "Bearer t".parse().unwrap());
        Ok::<_, Status>(request)
    });
    client.check(asked()).await.unwrap();
    let received = server.received();
    let tokens = received.iter().map(|request| request.headers["authorization"].to_str().unwrap());
    assert_eq!(tokens.collect::<Vec<_>>(), ["Bearer t", "Bearer t"]);
}

// catalogue: S-D2
#[tokio::test(start_paused = true)]
async fn an_axum_router_takes_the_whole_server_with_other_layers_under_it_and_over_it() {
    let layers = server::Settings::new(methods()).layers().unwrap();
    for is_outside in [false, true] {
        let (_, health) = tonic_health::server::health_reporter();
        let routes = Routes::new(health).into_axum_router();
        let traced = TraceLayer::new_for_grpc();
        let network = Network::new();
        let _serving = match is_outside {
            false => network.serve_service(routes.layer(traced).layer(layers.clone())),
            true => network.serve_service(routes.layer(layers.clone()).layer(traced)),
        };
        let bodies = MapResponseBodyLayer::new(tonic::body::Body::new);
        assert_eq!(check(bodies.layer(network.channel())).await.unwrap(), 1);
    }
}

// catalogue: S-D4
#[tokio::test(start_paused = true)]
async fn one_method_of_somebody_elses_proto_is_declared_safe() {
    let known = Methods::unknown().with("grpc.health.v1.Health", "Check", Safety::NoSideEffects);
    let known = known.unwrap();
    for (methods, attempts) in [(Methods::unknown(), 1), (known, 2)] {
        let (server, network, _serving) = scripted([unavailable(), ok()]);
        let layers = Settings::new(methods).layers().unwrap();
        _ = check(layers.around(network.channel())).await;
        assert_eq!(server.attempts(), attempts);
    }
}

// catalogue: S-D10
#[test]
fn every_error_of_a_set_up_is_one_that_a_question_mark_takes_under_anyhow() {
    /// As `anyhow::Error: From<E>` asks for.
    fn taken<T, E: Error + Send + Sync + 'static>(_: Result<T, E>) {}
    taken(Methods::from_file_descriptor_set(&descriptors()));
    taken(Methods::unknown().with("a.B", "C", Safety::Idempotent));
    taken(Settings::new(methods()).connect("http://a:1"));
    taken(Settings::new(methods()).layers());
    taken(server::Settings::new(methods()).layers());
    taken(server::Settings::new(methods()).with_quota(1, 1));
    taken(ServiceConfig::parse("{}"));
    taken(client::CallOptions::new().with_key("k"));
}
