//! Health checks of an endpoint (gRFC A17).

use crate::{
    State,
    node::{Connection, Node},
};
use cinchona_core::Rng;
use cinchona_plumbing::{Backoff, Jitter, clock::later};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::Status;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

/// How one watch has ended.
enum Ended {
    /// The endpoint does not serve.
    NotServing,
    /// A new one is due.
    InTime,
    By(Status),
}

/// On a TLS connection a GOAWAY is invisible, until another call meets it; a server that stops
/// waits for the watch to end.
const RENEWED: Duration = Duration::from_secs(30);

/// Watches the health of the endpoint on `connection`, and applies it; never completes.
///
/// A watch ends once the endpoint has reported that it does not serve, so that it delays no
/// shutdown; it is repeated after 1 s, 1.6 s, ... 4 s.
pub(crate) async fn follow(
    node: Arc<Node>,
    connection: Arc<Connection>,
    service: String,
    rng: Rng,
) {
    let backoff = Backoff::new(Duration::from_secs(1), 1.6, Duration::from_secs(4));
    let backoff = backoff.unwrap_or_default().with_jitter(Jitter::Grpc);
    let mut failures = 0;
    loop {
        match watch(&node, &connection, &service, &mut failures).await {
            Ended::InTime => continue,
            Ended::NotServing => {}
            Ended::By(status) if status.code() == tonic::Code::Unimplemented => {
                tracing::error!(endpoint = %node.name(), "no health service, taken to be well");
                node.becomes(State::Ready);
                return std::future::pending().await;
            }
            Ended::By(status) => node.fails(format!("health check: {}", status.message())),
        }
        failures += 1;
        let wait = backoff.delay(failures, &mut rng.draw());
        sleep(wait).await;
    }
}

async fn watch(node: &Node, connection: &Connection, service: &str, failures: &mut u32) -> Ended {
    let request = HealthCheckRequest { service: service.to_owned() };
    let mut says = match HealthClient::new(connection.sender.clone()).watch(request).await {
        Ok(says) => says.into_inner(),
        Err(status) => return Ended::By(status),
    };
    let limit = if connection.line.is_readable() { Duration::MAX } else { RENEWED };
    // The limit holds however often the server reports something.
    let renewed = later(Instant::now(), limit);
    loop {
        let said = match timeout_at(renewed, says.message()).await {
            Err(_) => return Ended::InTime,
            Ok(Ok(Some(said))) => said,
            Ok(Ok(None)) => return Ended::By(Status::unavailable("the watch ended")),
            Ok(Err(status)) => return Ended::By(status),
        };
        match said.status() {
            ServingStatus::Serving => {
                *failures = 0;
                node.becomes(State::Ready);
            }
            other => {
                node.fails(format!("health check: the server says {}", other.as_str_name()));
                return Ended::NotServing;
            }
        }
    }
}
