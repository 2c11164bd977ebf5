//! What a call costs with our layers, in a process of its own: `cargo xtask bench cost`.
//!
//! # What is measured
//!
//! * *instructions* of a call, where valgrind is installed: what callgrind counts in the process
//!   of the client, or of the server, by the slope between 1,200 calls and 2,800, one after another.
//!   What connecting costs, and the end, is in neither. The least of three runs counts, which
//!   differs from the next by about 1 %; another compiler, C library or valgrind gives other
//!   numbers.
//! * *CPU* of a call of 64 callers on one connection: the client's in a process with one thread,
//!   the server's with two. The variants take turns, so that all see the same machine; the median
//!   of their rounds counts, for servers that of their ratios to the plain one in the same round.
//!   Servers are started several times. Only ratios of one run mean anything.
//! * *allocs* are the allocations of a call, counted by programs of their own.
//!
//! `--cpu ROW..` measures the CPU of these servers alone.
//!
//! Client and server talk over loopback; each call has a timeout, so that there is a deadline. The
//! plain server does the work for all clients, and tonic's own client makes the calls to all
//! servers.
//!
//! # How it is kept fair
//!
//! * None of tokio's `test-util` is in it, as in no program of a user: with it, each look at the
//!   clock takes a lock.
//! * No server returns memory between bursts of calls, as glibc's allocator does or does not,
//!   however its heap happens to lie. The shipped program allocates with mimalloc, and no other
//!   does.
//! * What others offer cannot be put around a tonic channel as it is, since its requests cannot be
//!   cloned: the adapter that reads them first is in their rows.
//! * Their layers take an error for a failure, but no status, so they look at no header.

mod baseline;
mod callgrind;
mod process;
mod table;
mod tools;

use baseline::Baseline;
use cinchona::core::BoxError;
use cinchona_cost::{
    clients::CLIENTS,
    cpu,
    load::{Load, plain},
    median,
    servers::{SERVERS, SHIPPED},
    slope,
};
use process::{Process, program};
use std::{collections::BTreeMap, env, process::ExitCode};
use table::Table;

/// The name of a row.
pub(crate) type Name = (Side, &'static str);

/// Which process is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    Client,
    Server,
}

/// What is done, by the arguments.
#[derive(Clone, Debug, Default)]
struct Args {
    /// Instructions alone, of the rows whose names begin so.
    only: Vec<String>,
    /// Instructions of those that say most, and allocations.
    quick: bool,
    /// Compares these with the baseline.
    check: bool,
    /// Makes them the baseline.
    write: bool,
    /// The CPU time of servers alone.
    cpu: bool,
}

const ROUNDS: usize = 70;
/// How often the servers are started for them: how the memory of a process lies makes a difference
/// of up to 3 %.
const STARTS: usize = 7;
/// The calls of one turn of a server.
const CALLS: u32 = 6_400;
const QUICK: [Name; 5] = [
    (Side::Client, CLIENTS[0]),
    (Side::Client, CLIENTS[4]),
    (Side::Client, CLIENTS[7]),
    (Side::Server, SERVERS[0]),
    (Side::Server, SERVERS[6]),
];

fn main() -> Result<ExitCode, BoxError> {
    let args = Args::parse()?;
    let mut table = Table::default();
    if args.cpu {
        table.cpu = of_servers(&args)?;
        println!("{table}");
        return Ok(ExitCode::SUCCESS);
    }
    if callgrind::is_installed() {
        table.instructions = instructions(&args)?;
    } else if args.check || args.write {
        return Err("instructions are counted by callgrind: install valgrind".into());
    }
    if args.only.is_empty() {
        table.allocations = allocations()?;
        if !args.quick && !args.check {
            table.cpu = cpu_times(&args)?;
        }
    }
    println!("{table}");
    if args.write {
        Baseline::write(&table)?;
    }
    let differences = match args.check {
        true => Baseline::read()?.compare(&table),
        false => Vec::new(),
    };
    for difference in &differences {
        eprintln!("{difference}");
    }
    Ok(ExitCode::from(u8::from(!differences.is_empty())))
}

fn all() -> impl Iterator<Item = Name> {
    let clients = CLIENTS.into_iter().map(|name| (Side::Client, name));
    let servers = SERVERS.into_iter().chain([SHIPPED]).map(|name| (Side::Server, name));
    clients.chain(servers)
}

fn instructions(args: &Args) -> Result<BTreeMap<Name, f64>, BoxError> {
    let rows = all().filter(|row| args.wants(*row));
    rows.map(|(side, name)| Ok(((side, name), least(side, name)?))).collect()
}

/// The least of three: what a run has more than that is how its heap happened to lie.
fn least(side: Side, name: &'static str) -> Result<f64, BoxError> {
    let mut slopes = [0.0; 3];
    for own in &mut slopes {
        *own = slope(callgrind::counts(side, name)?);
    }
    Ok(slopes.into_iter().fold(f64::INFINITY, f64::min))
}

/// Microseconds of a call.
fn cpu_times(args: &Args) -> Result<BTreeMap<Name, f64>, BoxError> {
    let mut times = of_servers(args)?;
    let server = Process::serve(program("cost-server")?.args([SERVERS[0], "2"]))?;
    let mut clients = program("cost-client")?;
    let output = process::output(clients.args(["cpu", "15", &server.address]))?;
    for line in output.lines() {
        let (time, name) = line.split_once('\t').ok_or("no time and name")?;
        times.insert(named(Side::Client, name)?, time.parse()?);
    }
    Ok(times)
}

/// Each round compares with the first of the servers, the plain one: what else the machine does is
/// much the same for both. The ratio is the median of all rounds.
fn of_servers(args: &Args) -> Result<BTreeMap<Name, f64>, BoxError> {
    let is_wanted = |row: &Name| row.0 == Side::Server && args.wants(*row);
    let names: Vec<_> = all().filter(is_wanted).collect();
    let mut times = vec![Vec::new(); names.len()];
    for start in 0..STARTS {
        let serve = |(_, name): &Name| Process::serve(&mut process::server(name, 2)?);
        let servers: Vec<_> = names.iter().map(serve).collect::<Result<_, _>>()?;
        for round in 0..ROUNDS / STARTS {
            for turn in 0..names.len() {
                let server = (turn + round + start) % names.len();
                times[server].push(time_of(&servers[server])?);
            }
        }
    }
    let Some(plain) = times.first().cloned() else { return Ok(BTreeMap::new()) };
    let ratio =
        |own: Vec<f64>| median(own.iter().zip(&plain).map(|(own, plain)| own / plain).collect());
    let base = median(plain.clone());
    Ok(names.into_iter().zip(times.into_iter().map(|own| base * ratio(own))).collect())
}

/// Microseconds of a call that the server takes.
fn time_of(server: &Process) -> Result<f64, BoxError> {
    process::runtime()?.block_on(async {
        let client = plain(&server.address)?;
        Load::many(256).run(&client).await?;
        let before = cpu::of(server.id())?;
        Load::many(CALLS).run(&client).await?;
        let nanos = cpu::of(server.id())? - before;
        Ok(nanos as f64 / 1e3 / f64::from(CALLS))
    })
}

fn allocations() -> Result<BTreeMap<Name, f64>, BoxError> {
    let output = process::output(&mut program("cost-allocations")?)?;
    let row = |line: &str| {
        let words: Vec<_> = line.split('\t').collect();
        let [count, side, name] = words[..] else { return Err("not three words".into()) };
        let side = if side == "client" { Side::Client } else { Side::Server };
        Ok((named(side, name)?, count.parse()?))
    };
    output.lines().map(row).collect()
}

fn named(side: Side, name: &str) -> Result<Name, BoxError> {
    let found = all().find(|row| *row == (side, name));
    found.ok_or_else(|| format!("there is no {name}").into())
}

// === impl Args ===

impl Args {
    fn parse() -> Result<Self, BoxError> {
        let mut args = Self::default();
        for arg in env::args().skip(1) {
            match arg.as_str() {
                "--quick" => args.quick = true,
                "--check" => args.check = true,
                "--write" => args.write = true,
                "--cpu" => args.cpu = true,
                option if option.starts_with('-') => {
                    return Err("usage: [--quick] [--check] [--write] [--cpu] [row..]".into());
                }
                row => args.only.push(row.to_owned()),
            }
        }
        Ok(args)
    }

    fn wants(&self, row: Name) -> bool {
        let is_named = self.only.is_empty() || self.only.iter().any(|only| row.1.starts_with(only));
        is_named && (!self.quick || QUICK.contains(&row))
    }
}
