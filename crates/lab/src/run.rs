//! A scenario, played.

use crate::{
    scenario::{Operation, PACE, Scenario},
    site::{Boxed, Site, boxed},
    tally::{Record, Summary},
};
use calculator::{client, methods, pb::calculator_client::CalculatorClient};
use cinchona::{
    core::{BoxError, Invalid},
    deadline::{AttemptTimeoutLayer, CallDeadlineSettings},
    fault::FaultLayer,
    retry::RetrySettings,
};
use std::sync::Arc;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tower::Layer;

/// A layer of the client that a run can do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Without {
    Nothing,
    Deadline,
    Retry,
    AttemptTimeout,
    Reconnect,
}

/// Plays `scenario` on a site that `site` makes, without one of the layers; calls `done` when a
/// call has ended.
pub(crate) async fn play(
    scenario: Arc<Scenario>,
    site: impl FnOnce(FaultLayer) -> Result<Site, BoxError>,
    without: Without,
    done: impl Fn(),
) -> Result<Summary, BoxError> {
    let faults = FaultLayer::new(scenario.faults.clone())?;
    let mut site = site(faults.clone())?;
    let channel = site.channel(without != Without::Reconnect)?;
    let client = CalculatorClient::new(stack(channel, &scenario, without)?);

    let calls = calls(&scenario, client, done);
    let (records, left) = tokio::join!(calls, leave(&mut site, &scenario));
    left?;
    Ok(Summary::new(&records?, &faults.counters(), site.connects()))
}

async fn leave(site: &mut Site, scenario: &Scenario) -> Result<(), BoxError> {
    let Some(when) = scenario.away_at else { return Ok(()) };
    sleep(when).await;
    site.leave().await
}

/// Starts each call at its time, whether or not others have ended.
async fn calls(
    scenario: &Arc<Scenario>,
    client: CalculatorClient<Boxed>,
    done: impl Fn(),
) -> Result<Vec<Record>, BoxError> {
    let began = Instant::now();
    let mut calls = JoinSet::new();
    for n in 0..scenario.calls {
        let (scenario, client) = (scenario.clone(), client.clone());
        calls.spawn(async move {
            sleep_until(began + n * PACE).await;
            call(&scenario, client, n).await
        });
    }
    let mut records = Vec::new();
    while let Some(record) = calls.join_next().await {
        records.push(record?);
        done();
    }
    Ok(records)
}

async fn call(scenario: &Scenario, mut client: CalculatorClient<Boxed>, n: u32) -> Record {
    let began = Instant::now();
    let request = scenario.request(n);
    let outcome = match scenario.operation {
        Operation::Add => client.add(request).await,
        Operation::DivideByZero => client.divide(request).await,
    };
    Record::new(Instant::now() - began, outcome.as_ref().map(|response| response.extensions()))
}

/// The client's stack, or what is left of it.
fn stack(channel: Boxed, scenario: &Scenario, without: Without) -> Result<Boxed, Invalid> {
    let settings = &scenario.settings;
    if matches!(without, Without::Nothing | Without::Reconnect) {
        return Ok(boxed(client::stack(channel, &settings.clone().layers()?)));
    }
    let mut service = channel;
    if without != Without::AttemptTimeout {
        service = boxed(AttemptTimeoutLayer::new(settings.timeout).layer(service));
    }
    if without != Without::Retry {
        let retry =
            RetrySettings::new(settings.retry, methods()).with_rng(settings.rng.clone()).layer();
        service = boxed(retry.layer(service));
    }
    if let (Some(limit), true) = (settings.deadline, without != Without::Deadline) {
        service = boxed(CallDeadlineSettings::new().with_limit(limit).layer().layer(service));
    }
    Ok(service)
}

// === impl Without ===

impl Without {
    /// Each layer, and its name.
    pub(crate) const LAYERS: [(Self, &'static str); 4] = [
        (Self::Deadline, "call deadline"),
        (Self::Retry, "retry"),
        (Self::AttemptTimeout, "attempt timeout"),
        (Self::Reconnect, "reconnect"),
    ];
}
