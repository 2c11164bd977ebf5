//! Outages from beginning to end, also with the real client.

use super::*;
use cinchona_testkit::{Logs, Network};
use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic_prost::ProstCodec;

#[tokio::test(start_paused = true)]
async fn a_live_answer_after_recovery_is_unmarked_and_each_change_is_reported_once() {
    let logs = Logs::of("cinchona_fallback");
    let server = ScriptedServer::new([ok(7), down(), down(), ok(8), ok(9)]);
    let client = caching().layer(server);
    assert_eq!(ask(&client, balance()).await, live(7));
    advance(3 * SECOND).await;
    for _ in 0..2 {
        assert_eq!(ask(&client, balance()).await, cached(7, 3));
    }
    assert_eq!(ask(&client, balance()).await, live(8));
    assert_eq!(ask(&client, balance()).await, live(9));
    let events = logs.events();
    let of = |level| events.iter().filter(move |event| event.level == level).collect::<Vec<_>>();
    let [degraded, recovered] = &of(tracing::Level::INFO)[..] else { panic!("{events:?}") };
    assert_eq!(degraded.message, "live answers fail: degraded");
    assert_eq!(degraded.fields["rpc.method"], BALANCE);
    assert_eq!((&*degraded.fields["degraded"], &*degraded.fields["age"]), ("cached", "3"));
    assert_eq!(recovered.message, "live answers again: recovered");
    assert_eq!(recovered.fields["rpc.method"], BALANCE);
    assert_eq!(of(tracing::Level::DEBUG).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn in_shadow_second_answers_are_only_counted_and_off_not_looked_for() {
    let switch = Switch::new(Mode::Shadow);
    let alternate = ScriptedServer::new([ok(3)]);
    let settings = settings().with_switch(switch.clone());
    let layer = settings.layer();
    let client = layer.layer(ScriptedServer::new([ok(7), down()]));
    let asking = settings.with_alternate(alternate.clone()).layer();
    let asking = asking.layer(ScriptedServer::new([down()]));
    assert_eq!(ask(&client, balance()).await, live(7));
    assert_eq!(ask(&client, balance()).await, unavailable());
    assert_eq!(switch.shadowed(), 1);
    assert_eq!(ask(&client, request(BALANCE, 2)).await, unavailable());
    assert_eq!(switch.shadowed(), 1, "there was none");
    assert_eq!(ask(&asking, request(BALANCE, 2)).await, unavailable());
    assert_eq!((switch.shadowed(), alternate.attempts()), (2, 0));
    switch.set(Mode::Off);
    assert_eq!(ask(&client, balance()).await, unavailable());
    assert_eq!(switch.shadowed(), 2);
    assert_eq!(layer.counters().served_cached, 0);
    switch.set(Mode::Enforce);
    assert_eq!(ask(&client, balance()).await, unavailable(), "it may be another by now");
}

#[tokio::test(start_paused = true)]
async fn a_generated_client_finds_the_marks_in_the_metadata() {
    let net = Network::new();
    let serving = net.serve_service(ScriptedServer::new([ok(7), ok(7)]));
    let other = Network::new();
    let _other = other.serve_service(ScriptedServer::new([ok(3)]));
    let cached = caching().layer(net.channel());
    let alternate = settings().with_alternate(other.channel()).layer().layer(net.channel());
    let call = async |client: &Fallback<tonic::transport::Channel>| {
        let mut client = Grpc::with_origin(client.clone(), http::Uri::from_static("http://bank"));
        client.ready().await.unwrap();
        let path = PathAndQuery::from_static(BALANCE);
        let codec = ProstCodec::<u32, u32>::default();
        client.unary(tonic::Request::new(1), path, codec).await
    };
    let response = call(&cached).await.unwrap();
    assert!(response.metadata().get("degraded").is_none());
    net.refuse(true);
    net.reset();
    drop(serving);
    advance(5 * SECOND).await;
    let response = call(&cached).await.unwrap();
    assert_eq!(response.metadata().get("degraded").unwrap(), "cached");
    assert_eq!(response.metadata().get("age").unwrap(), "5");
    assert_eq!(response.into_inner(), 7);
    let response = call(&alternate).await.unwrap();
    assert_eq!(response.metadata().get("degraded").unwrap(), "alternate");
    assert_eq!(response.into_inner(), 3);
}
