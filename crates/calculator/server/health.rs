//! The health that a server reports.

use crate::pb::{calculator_server, store_server};
use cinchona::redb::RedbStore;
use std::{future::Future, time::Duration};
use tokio::{sync::watch, time::sleep};
use tonic_health::{ServingStatus, server::HealthReporter};

/// The server as a whole, and its services.
const SERVICES: [&str; 3] = ["", calculator_server::SERVICE_NAME, store_server::SERVICE_NAME];

/// How often the store's health is checked.
const LOOK: Duration = Duration::from_millis(500);

/// Whether the store accepts writes; checked as long as the receiver exists.
///
/// A file belongs to one server: if it fails, other servers can still do what this one cannot, so
/// this server reports `NOT_SERVING`. A failed file is tried every 500 ms, because clients that
/// watch health send no writes that would try it.
///
/// A store that servers share (Redis) has no part in their health: if it is down, all servers would
/// report `NOT_SERVING` at once, and clients would have no server left for the calls that need no
/// store. The server refuses each call that does need it, at once. A liveness probe should be one
/// of TCP: a restart frees no space on a disk.
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

/// Reports whether the store is well whenever that changes, if there is a store to watch, and
/// `NOT_SERVING` when `shutdown` ends.
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
    // Clients that watch health use other servers while the calls in progress end.
    say(&reporter, false).await;
}

pub(super) async fn say(reporter: &HealthReporter, is_well: bool) {
    let status = if is_well { ServingStatus::Serving } else { ServingStatus::NotServing };
    for service in SERVICES {
        reporter.set_service_status(service, status).await;
    }
}
