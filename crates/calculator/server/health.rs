//! What a server says of its health.

use crate::pb::{calculator_server, store_server};
use cinchona::redb::RedbStore;
use std::{future::Future, time::Duration};
use tokio::{sync::watch, time::sleep};
use tonic_health::{ServingStatus, server::HealthReporter};

/// The server as a whole, and its services.
const SERVICES: [&str; 3] = ["", calculator_server::SERVICE_NAME, store_server::SERVICE_NAME];

/// How often a store is asked how it is.
const LOOK: Duration = Duration::from_millis(500);

/// Whether the store can be written to, as long as somebody wants to know.
///
/// A file is one server's own: where it has failed, other servers can still do what this one
/// cannot, so it says `NOT_SERVING`. While it has failed it is tried each 500 ms, since clients
/// that heed health send no writes that would try it.
///
/// A store that servers share (Redis) has no part in their health: where it is down, all of them
/// would go out at once, and clients had nobody left for the calls that need no store. Those that
/// do are refused one by one, at once. A probe that restarts what does not live is best one of TCP:
/// to start again makes no room on a disk.
pub fn of_store(store: &RedbStore) -> watch::Receiver<bool> {
    let (says, heard) = watch::channel(store.failure().is_none());
    let store = store.clone();
    tokio::spawn(async move {
        let look = async {
            loop {
                sleep(LOOK).await;
                let is_well = store.failure().is_none() || store.probe().await.is_ok();
                let has_changed = |said: &mut bool| std::mem::replace(said, is_well) != is_well;
                if says.send_if_modified(has_changed) {
                    tracing::warn!(is_well, "the store has failed, or is back");
                }
            }
        };
        tokio::select! {
            () = says.closed() => {}
            () = look => {}
        }
    });
    heard
}

/// Says, whenever that changes, whether the store is well, if it has a part in this, and
/// `NOT_SERVING` once `shutdown` is over.
pub(super) async fn until(
    shutdown: impl Future<Output = ()>,
    reporter: HealthReporter,
    store: Option<watch::Receiver<bool>>,
) {
    let follow = async {
        let Some(mut store) = store else { return std::future::pending().await };
        while store.changed().await.is_ok() {
            let is_well = *store.borrow_and_update();
            say(&reporter, is_well).await;
        }
        std::future::pending().await
    };
    tokio::select! {
        () = shutdown => {}
        () = follow => {}
    }
    // Whoever watches goes elsewhere while the calls that have begun are ended.
    say(&reporter, false).await;
}

pub(super) async fn say(reporter: &HealthReporter, is_well: bool) {
    let status = if is_well { ServingStatus::Serving } else { ServingStatus::NotServing };
    for service in SERVICES {
        reporter.set_service_status(service, status).await;
    }
}
