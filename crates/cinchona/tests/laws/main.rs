//! Laws of every layer: off is off, gauges are correct, and a panic of the user's code fails one
//! call.

#![expect(clippy::unwrap_used, reason = "a test fails where something is missing")]

mod bare;
mod gauges;
#[path = "../common/grafana.rs"]
mod grafana;
mod layers;
mod metrics;
mod off;
mod order;
mod panics;
mod shadow;
mod sizes;
mod wire;

/// Runs in virtual time.
fn virtually<T>(run: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(true).build().unwrap().block_on(run)
}
