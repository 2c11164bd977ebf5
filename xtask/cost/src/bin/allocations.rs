//! `cost-allocations` prints the allocations of a call, of each client and of each server.

use cinchona::core::BoxError;
use cinchona_cost::{
    SLOPE,
    clients::{CLIENTS, Job, run},
    load::Load,
    servers::{SERVERS, listen, serve},
    slope,
};
use std::{future::Future, sync::mpsc, thread};
use tokio::{runtime::Builder, sync::oneshot};

/// What both sides of some calls have allocated.
struct Counts {
    client: u64,
    server: u64,
}

fn main() -> Result<(), BoxError> {
    for name in CLIENTS {
        let runs = runs(name, SERVERS[0])?;
        println!("{}\tclient\t{name}", slope(runs.each_ref().map(|run| run.client)));
    }
    for name in SERVERS {
        let runs = runs(CLIENTS[0], name)?;
        println!("{}\tserver\t{name}", slope(runs.each_ref().map(|run| run.server)));
    }
    Ok(())
}

fn runs(client: &str, server: &str) -> Result<[Counts; 2], BoxError> {
    let [short, long] = SLOPE;
    Ok([calls(client, server, short)?, calls(client, server, long)?])
}

/// Each side has a thread of its own, as the counter has a count for each thread.
fn calls(client: &str, server: &str, calls: u32) -> Result<Counts, BoxError> {
    let (says, heard) = mpsc::channel();
    let (stop, stopped) = oneshot::channel::<()>();
    thread::scope(|scope| {
        let serving = scope.spawn(|| {
            counted(async move {
                let incoming = listen()?;
                says.send(incoming.local_addr()?.to_string())?;
                serve(server, incoming, async { _ = stopped.await }).await
            })
        });
        let calling = counted(async {
            let job = Job { load: Load::one_by_one(calls), used: || 0 };
            run(client, &heard.recv()?, job).await
        });
        drop(stop);
        let server = serving.join().map_err(|_| "the server panicked")??;
        Ok(Counts { client: calling?, server })
    })
}

/// What this thread allocates until that is done.
fn counted<T>(done: impl Future<Output = Result<T, BoxError>>) -> Result<u64, BoxError> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut result = Ok(());
    let counts = allocation_counter::measure(|| result = runtime.block_on(done).map(drop));
    result.map(|()| counts.count_total)
}
