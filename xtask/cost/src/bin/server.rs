//! `cost-server NAME THREADS` prints the address on which it serves, until it is killed.

use cinchona::core::BoxError;
use cinchona_cost::servers::{listen, serve};
use std::{env, future::pending};
use tokio::runtime::Builder;

fn main() -> Result<(), BoxError> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [name, threads] = &args[..] else { return Err("NAME THREADS".into()) };
    let threads: usize = threads.parse()?;
    let mut builder = match threads {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    let runtime = builder.worker_threads(threads).enable_all().build()?;
    runtime.block_on(async {
        let incoming = listen()?;
        println!("listening on {}", incoming.local_addr()?);
        serve(name, incoming, pending()).await
    })
}
