//! Looks the names of the seeds up repeatedly, as pods come and go.

use crate::shared::Shared;
use std::{future::Future, io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};
use tokio::{
    net::lookup_host,
    task::JoinSet,
    time::{Instant, sleep},
};

/// Resolves a `host:port`.
pub(crate) type LookUp = Arc<dyn Fn(String) -> LookingUp + Send + Sync>;
type LookingUp = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// How often names are looked up while the node hears no other, and otherwise.
const WHILE_ALONE: Duration = Duration::from_secs(1);
const OTHERWISE: Duration = Duration::from_secs(60);

/// Uses the resolver of this machine.
pub(crate) fn resolver() -> LookUp {
    Arc::new(|name| Box::pin(async move { Ok(lookup_host(name).await?.collect()) }))
}

/// Looks names up until aborted.
pub(crate) async fn run(shared: Arc<Shared>, look_up: LookUp) {
    let mut looking = JoinSet::new();
    for name in shared.seeds.names().to_vec() {
        looking.spawn(follow(shared.clone(), look_up.clone(), name));
    }
    while looking.join_next().await.is_some() {}
}

/// Each name has its own loop, in which a lookup is not cancelled and restarted: one that takes 20
/// s delays no other name.
async fn follow(shared: Arc<Shared>, look_up: LookUp, name: String) {
    let mut looked: Option<Instant> = None;
    loop {
        let since = looked.map(|at| Instant::now().saturating_duration_since(at));
        let is_due = since.is_none_or(|since| since >= OTHERWISE);
        if is_due || shared.is_alone(Instant::now()) {
            looked = Some(Instant::now());
            shared.seeds.put(&name, look_up(name.clone()).await);
        }
        sleep(WHILE_ALONE).await;
    }
}
