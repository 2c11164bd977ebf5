//! Several clients and servers in one registry: they are added up, and leave when they are dropped.

use crate::{check, methods, ok, scripted};
use cinchona::{
    Channel,
    client::Settings,
    fault::Faults,
    observe::{Metrics, Value},
    server,
    shed::BulkheadSettings,
};
use cinchona_testkit::Network;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

/// The sum of all series of one name; `None` without one.
fn sum(metrics: &Metrics, name: &str) -> Option<f64> {
    let found = metrics.collect().into_iter().find(|metric| metric.name == name)?;
    let value = |value| match value {
        Value::Gauge(value) | Value::Counter(value) => value,
        other => panic!("{other:?}"),
    };
    Some(found.series.into_iter().map(|(_, found)| value(found)).sum())
}

fn lines(metrics: &Metrics) -> usize {
    metrics.render().lines().count()
}

/// A client of `orders` that lets nothing through, and has turned one call away.
async fn turned_away(metrics: &Metrics) -> Channel<tonic::transport::Channel> {
    let (_, network, serving) = scripted([ok()]);
    let none = BulkheadSettings::new(1, Duration::ZERO).unwrap();
    let settings = Settings::new(methods()).with_target("orders").with_metrics(metrics);
    let channel = settings.with_bulkhead(none).layers().unwrap().around(network.channel());
    // One of the two gets the only place.
    let (one, other) = tokio::join!(check(channel.clone()), check(channel.clone()));
    assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
    drop(serving);
    channel
}

#[tokio::test(start_paused = true)]
async fn two_clients_of_one_target_are_added_up_and_one_that_is_dropped_leaves_its_counts() {
    let metrics = Metrics::new(methods());
    let (tokens, away) = ("cinchona.retry.budget_tokens", "cinchona.shed.bulkhead_turned_away");
    let one = turned_away(&metrics).await;
    assert_eq!(sum(&metrics, away), Some(1.0));
    let of_one = sum(&metrics, tokens).unwrap();
    let other = turned_away(&metrics).await;
    assert_eq!(sum(&metrics, away), Some(2.0));
    assert_eq!(sum(&metrics, tokens), Some(2.0 * of_one));
    drop(one);
    assert_eq!(sum(&metrics, away), Some(2.0));
    assert_eq!(sum(&metrics, tokens), Some(of_one));
    drop(other);
    assert_eq!((sum(&metrics, away), sum(&metrics, tokens)), (Some(2.0), None));
    assert_eq!(sum(&metrics, "grpc.client.attempt.started"), Some(2.0));
}

#[tokio::test(start_paused = true)]
async fn a_hundred_clients_that_come_and_go_do_not_grow_the_page() {
    let metrics = Metrics::new(methods());
    drop(turned_away(&metrics).await);
    let before = lines(&metrics);
    for _ in 0..100 {
        drop(turned_away(&metrics).await);
    }
    assert_eq!(lines(&metrics), before);
    assert_eq!(sum(&metrics, "cinchona.shed.bulkhead_turned_away"), Some(101.0));
}

// real clock: sockets, and a balancer that connects to them.
#[tokio::test]
async fn the_calls_of_a_balancer_that_nobody_has_looked_at_stay() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (_, health) = tonic_health::server::health_reporter();
    let serving = Server::builder().add_service(health);
    tokio::spawn(serving.serve_with_incoming(TcpListenerStream::new(listener)));
    let metrics = Metrics::new(methods());
    for n in 1..=3 {
        let channel: Channel =
            Settings::new(methods()).with_metrics(&metrics).connect(&*address).unwrap();
        check(channel.clone()).await.unwrap();
        drop(channel);
        assert_eq!(sum(&metrics, "cinchona.balance.calls"), Some(f64::from(n)));
        assert_eq!(sum(&metrics, "cinchona.balance.in_flight"), None);
    }
}

/// A server that fails each call, and has failed one; it serves until its network is dropped.
async fn failed(settings: &server::Settings) -> Network {
    let (network, layers) = (Network::new(), settings.layers().unwrap());
    let (_, health) = tonic_health::server::health_reporter();
    let server = Server::builder().layer(layers).add_service(health);
    let incoming = network.incoming();
    tokio::spawn(async move { server.serve_with_incoming(incoming).await.unwrap() });
    check(network.channel()).await.unwrap_err();
    network
}

#[tokio::test(start_paused = true)]
async fn servers_are_added_up_and_what_they_share_is_counted_once() {
    let metrics = Metrics::new(methods());
    let faults = || Faults { failure_rate: 1.0, health_too: true, ..Faults::default() };
    let settings = server::Settings::new(methods()).with_metrics(&metrics);
    // Servers of the same settings have the same faults.
    let settings = settings.with_faults(faults()).unwrap();
    let limit = "cinchona.shed.limit";
    let one = failed(&settings).await;
    let of_one = sum(&metrics, limit).unwrap();
    let other = failed(&settings).await;
    assert_eq!(sum(&metrics, limit), Some(2.0 * of_one));
    assert_eq!(sum(&metrics, "cinchona.fault.matched"), Some(2.0));
    let third = failed(&settings.clone().with_faults(faults()).unwrap()).await;
    assert_eq!(sum(&metrics, "cinchona.fault.matched"), Some(3.0));
    drop([one, other, third]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(sum(&metrics, limit), None);
    assert_eq!(sum(&metrics, "cinchona.fault.matched"), Some(3.0));
}
