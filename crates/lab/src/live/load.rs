//! Calls of every kind at a steady rate.

use calculator::{
    client::Stack,
    pb::{BinaryOperation, CounterRequest, Result as Value, calculator_client::CalculatorClient},
    watch::calls::Calls,
};
use cinchona::balance::Balance;
use prost::Message;
use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

/// The client that calls, its rate, and the outcomes.
pub(super) struct Load {
    client: CalculatorClient<Stack<Balance>>,
    calls: Calls,
    rps: AtomicU32,
}

pub(super) const SECOND: Duration = Duration::from_secs(1);

/// The number of calls per second.
pub(super) const USUAL: u32 = 150;

// === impl Load ===

impl Load {
    pub(super) const fn new(client: CalculatorClient<Stack<Balance>>, calls: Calls) -> Self {
        Self { client, calls, rps: AtomicU32::new(USUAL) }
    }

    pub(super) fn set(&self, rps: u32) {
        self.rps.store(rps.max(1), Ordering::Relaxed);
    }
}

/// Starts each call at its time, whether or not others have ended; never ends.
pub(super) async fn run(load: &Load) {
    let (mut due, mut running) = (Instant::now(), JoinSet::new());
    for n in 0u64.. {
        sleep_until(due).await;
        let (client, calls) = (load.client.clone(), load.calls.clone());
        running.spawn(async move { call(client, &calls, n).await });
        while running.try_join_next().is_some() {}
        due += SECOND / load.rps.load(Ordering::Relaxed);
    }
}

/// Of ten calls, seven are retried (one of them has an effect, and a key), two are hedged, and one
/// has a second answer.
async fn call(mut client: CalculatorClient<Stack<Balance>>, calls: &Calls, n: u64) {
    let operation = BinaryOperation { a: n as f64, b: 1.0 };
    let began = Instant::now();
    match n % 10 {
        0 | 5 => calls.note(began, &client.multiply(operation).await),
        3 => calls.note(began, &client.subtract(operation).await),
        7 => {
            let increment = CounterRequest { increment: 1, ..CounterRequest::default() };
            calls.note(began, &client.increment_counter(increment).await);
        }
        _ => calls.note(began, &client.add(operation).await),
    }
}

/// An answer as it goes over the wire.
pub(super) fn answer(value: f64) -> Vec<u8> {
    Value { value }.encode_to_vec()
}
