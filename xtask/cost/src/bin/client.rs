//! `cost-client run NAME CALLS ADDRESS` makes calls, for callgrind to count.
//! `cost-client cpu ROUNDS ADDRESS` prints the CPU time of a call of each client, in microseconds.

use cinchona::core::BoxError;
use cinchona_cost::{
    clients::{CLIENTS, Job, run},
    cpu,
    load::Load,
    median,
};
use std::env;

const CALLS: u32 = 6400;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["run", name, calls, address] => {
            let load = Load::one_by_one(calls.parse()?);
            run(name, address, Job { load, used: || 0 }).await?;
        }
        ["cpu", rounds, address] => times(rounds.parse()?, address).await?,
        _ => return Err("run NAME CALLS ADDRESS, or cpu ROUNDS ADDRESS".into()),
    }
    Ok(())
}

/// All take turns, and begin with another in each round.
async fn times(rounds: usize, address: &str) -> Result<(), BoxError> {
    let job = Job { load: Load::many(CALLS), used: cpu::own };
    let mut times = CLIENTS.map(|_| Vec::new());
    for round in 0..rounds {
        for turn in 0..CLIENTS.len() {
            let client = (turn + round) % CLIENTS.len();
            let nanos = run(CLIENTS[client], address, job).await?;
            times[client].push(nanos as f64 / 1e3 / f64::from(CALLS));
        }
    }
    for (name, times) in CLIENTS.into_iter().zip(times) {
        println!("{}\t{name}", median(times));
    }
    Ok(())
}
