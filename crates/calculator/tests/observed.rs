//! The metrics and spans of the two stacks.

use super::{calculator, ok, operation, retrying};
use calculator::{client, server};
use cinchona::{
    breaker::{BreakerLayer, BreakerPolicy},
    fault::{FaultLayer, Faults},
    observe::Metrics,
};
use cinchona_testkit::{Answer, Logs, Network, ScriptedServer};
use std::future::pending;
use tonic::{Code, Request, Status};
use tracing::Level;

/// The value of a line of Prometheus's text.
#[track_caller]
fn value(metrics: &Metrics, line: &str) -> f64 {
    let text = metrics.render();
    let found = text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok());
    found.unwrap_or_else(|| panic!("no {line} in {text}"))
}

#[tokio::test(start_paused = true)]
async fn a_client_counts_calls_and_attempts_and_what_its_layers_do() {
    let failure = Answer::Status(Status::unavailable("simulated failure"));
    let (server, network) = (ScriptedServer::new([failure, ok(15.0)]), Network::new());
    let _serving = network.serve_service(server);
    let layers = retrying([Code::Unavailable]).layers().unwrap();
    client::client(network.channel(), &layers).add(operation(10.0, 5.0)).await.unwrap();
    let labels = "{grpc_method=\"calculator.Calculator/Add\",grpc_target=\"calculator\"";
    let metrics = &layers.metrics;
    assert_eq!(value(metrics, &format!("grpc_client_attempt_started_total{labels}}}")), 2.0);
    assert_eq!(value(metrics, &format!("grpc_client_call_retries_sum{labels}}}")), 1.0);
    let status = ",grpc_status=\"OK\"}";
    let calls = format!("grpc_client_call_duration_seconds_count{labels}{status}");
    assert_eq!(value(metrics, &calls), 1.0);
    let of_layer =
        |name: &str| value(metrics, &format!("cinchona_{name}{{grpc_target=\"calculator\"}}"));
    assert_eq!(of_layer("shed_bulkhead_in_progress"), 0.0);
    assert_eq!(of_layer("shed_throttled_total"), 0.0);
    assert_eq!(of_layer("retry_throttle_tokens"), layers.retry.counters().throttle_tokens);
    let cached = "cinchona_fallback_served_total{grpc_target=\"calculator\",by=\"cached\"}";
    assert_eq!(value(metrics, cached), 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_layer_that_was_replaced_is_registered_again() {
    let mut layers = client::Settings::default().layers().unwrap();
    layers.breaker = BreakerLayer::new(BreakerPolicy::default());
    layers.breaker.circuit("/calculator.Calculator/Add").open();
    assert!(!layers.metrics.render().contains("cinchona_breaker_state{"));
    layers.register().unwrap();
    let text = layers.metrics.render();
    let state = text.lines().find(|line| line.starts_with("cinchona_breaker_state{"));
    assert!(state.is_some_and(|line| line.ends_with("} 3")), "isolated: {text}");
}

#[tokio::test(start_paused = true)]
async fn a_server_counts_calls_and_what_its_layers_do() {
    let (network, state) = (Network::new(), calculator::state::Memory::new());
    let faults = FaultLayer::new(Faults { failure_rate: 1.0, ..Faults::default() }).unwrap();
    let layers = server::Layers::new(faults, server::dedup(state.clone()));
    layers.register(None).unwrap();
    let metrics = layers.metrics.clone();
    tokio::spawn(server::serve(network.incoming(), state, layers, pending()));
    let mut client =
        client::client(network.channel(), &client::Settings::default().layers().unwrap());
    client.add(operation(1.0, 2.0)).await.unwrap_err();
    let labels = "{grpc_method=\"calculator.Calculator/Add\",grpc_status=\"UNAVAILABLE\"}";
    let calls = format!("grpc_server_call_duration_seconds_count{labels}");
    assert_eq!(value(&metrics, &calls), 1.0);
    let injected = metrics.render();
    assert!(injected.lines().any(|line| line.starts_with("cinchona_fault_injected_total{")));
    for gauge in ["limit", "waiting", "in_progress", "turned_away_total", "over_quota_total"] {
        assert!(value(&metrics, &format!("cinchona_shed_{gauge}")) >= 0.0);
    }
    for counter in ["executed_total", "evicted_total", "refused_total{why=\"full\"}"] {
        assert_eq!(value(&metrics, &format!("cinchona_idempotency_{counter}")), 0.0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_says_how_each_call_ended_and_by_which_id_it_is_known() {
    let (network, _) = calculator(Faults::default());
    let logs = Logs::of("cinchona_observe");
    let mut client =
        client::client(network.channel(), &client::Settings::default().layers().unwrap());
    for (b, id) in [(5.0, "r-1"), (0.0, "r-2")] {
        let mut request = Request::new(operation(10.0, b));
        request.metadata_mut().insert("x-request-id", id.parse().unwrap());
        _ = client.divide(request).await;
    }
    let ended: Vec<_> =
        logs.events().into_iter().filter(|event| event.message == "ended").collect();
    let [fine, refused] = &ended[..] else { panic!("{:#?}", logs.events()) };
    for (event, status, id) in [(fine, "OK", "r-1"), (refused, "INVALID_ARGUMENT", "r-2")] {
        assert_eq!(event.level, Level::DEBUG);
        assert_eq!(event.fields["status"], status);
        assert_eq!(event.fields["request_id"], id);
        assert_eq!(event.fields["rpc.method"], "Divide");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_failed_says_so_louder() {
    let (network, _) = calculator(Faults { failure_rate: 1.0, ..Faults::default() });
    let logs = Logs::of("cinchona_observe");
    let mut client =
        client::client(network.channel(), &client::Settings::default().layers().unwrap());
    client.add(operation(1.0, 2.0)).await.unwrap_err();
    let events = logs.events();
    let failed: Vec<_> = events.iter().filter(|event| event.message == "failed").collect();
    let [failed] = &failed[..] else { panic!("{events:#?}") };
    assert_eq!((failed.level, failed.fields["status"].as_str()), (Level::ERROR, "UNAVAILABLE"));
}
