//! `cargo xtask <task>`: what a contributor runs, in plain Rust, so that it runs everywhere.
//!
//! Standard library only, so that it builds in a second.

mod campaign;
mod ci;
mod command;
mod left_out;
mod manifest;
mod mutants;
mod release;
mod street;
mod tidy;
#[cfg(test)]
mod tree;

use command::{cargo_command, root, run};
use std::{
    env, fs,
    path::PathBuf,
    process::{Command, ExitCode},
};

const HELP: &str = "\
Usage: cargo xtask <task> [args..]

Tasks:
  demo [args..]       run the calculator demo (`demo --virtual` is the short one)
  demo --dashboard    run servers, a client and faults that come and go, all on one live page
  demo cluster        run three servers that find each other, and kill, pause and dismiss one each
  top [args..]        print what a dashboard shows as text (`--dashboard HOST:PORT`, `--once`)
  load [args..]       call a server at a fixed rate, and report latencies and failures
  sim storm [args..]  run the retry storm, a simulation in virtual time
  campaign NAME       run a campaign: crash (servers that are killed, over a file, a Redis, a
                      cluster of Redis and sentinels), partition, churn, endpoints, soak or
                      storm; `--long` runs the long form, `--seed N` another run
  soak [args..]       run three servers, a client and faults for half an hour (`--duration 1m` is a
                      short one), and chart memory and descriptors
  bench [name]        run the benchmarks, or one: happy_path, observe, balance, dedup, redis,
                      throughput, rest (`rest --quick` is the short one), peers (beside other
                      crates, which it downloads), cost (clients and servers in processes of their
                      own; `--quick` counts the instructions of some, `--check` compares with the
                      baseline, `--write` writes it)
  fuzz [--seconds N]  run each fuzz target for so long, by default 600 s (cargo-fuzz, nightly)
  mutants [crate..]   change what decides, in one place at a time, and run the tests that should
                      notice (cargo-mutants lists the places); only what no run has killed yet
                      (`--short` leaves out the tests that take more than half a second, and the
                      mutants that need a build of their own)
  release --dry-run   pack all crates, and build them from their packages
  street [args..]     run the scripts of xtask/peers/suite with our client and with those of others,
                      and print which are right (`--quick` leaves out what takes seconds,
                      `--only NAME` runs one client, `--entry TEXT` some scripts, `--write` writes
                      RESULTS.md)
  tidy                check the house rules
  left-out            say which tests `cargo test --workspace` leaves out, and what they need
  ci                  run everything that a change must pass
  help                print this
";

fn main() -> ExitCode {
    let args: Vec<_> =
        env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        // It starts servers, which are programs of their own.
        ["demo", "cluster", args @ ..] => match programs("calculator", &[]) {
            ExitCode::SUCCESS => lab(&[], "cluster", args),
            failed => failed,
        },
        ["demo", args @ ..] => cargo(&["run", "--quiet", "-p", "lab", "--"], args),
        ["top", args @ ..] => lab(&[], "top", args),
        // Released programs: so they hold what those of a user would.
        ["soak", args @ ..] => match programs("lab", &["--release"]) {
            ExitCode::SUCCESS => lab(&["--release"], "soak", args),
            failed => failed,
        },
        ["load", args @ ..] => program("calculator-load", args),
        ["campaign", name, args @ ..] => ExitCode::from(campaign::run(name, args)),
        ["sim", "storm", args @ ..] => lab(&[], "storm", args),
        ["bench"] => {
            let all = [
                bench_apart("cost", "*", &[]),
                bench_apart("peers", "redis", &[]),
                peers(&["--", "picks"]),
                bench("calculator", "*", &[]),
                bench("lab", "*", &[]),
            ];
            all.into_iter().find(|code| *code != ExitCode::SUCCESS).unwrap_or_default()
        }
        ["bench", "throughput", args @ ..] => bench("calculator", "throughput", args),
        ["bench", "rest", args @ ..] => bench("lab", "rest", args),
        // A workspace of its own, so that no other build has its dependencies.
        ["bench", "peers"] => peers(&[]),
        ["bench", "balance"] => peers(&["--", "picks"]),
        ["bench", "cost", args @ ..] => cost(args),
        // What reads the clock is in a build of its own: tokio's `test-util` would slow it down.
        ["bench", name @ ("happy_path" | "dedup" | "observe"), args @ ..] => {
            bench_apart("cost", name, args)
        }
        ["bench", "redis", args @ ..] => bench_apart("peers", "redis", args),
        ["fuzz"] => fuzz("600"),
        ["fuzz", "--seconds", seconds] => fuzz(seconds),
        ["mutants", args @ ..] => ExitCode::from(mutants::run(args)),
        ["release", "--dry-run"] => ExitCode::from(release::dry_run()),
        ["street", args @ ..] => ExitCode::from(street::run(args)),
        ["left-out"] => ExitCode::from(left_out::print(&root())),
        ["tidy"] => ExitCode::from(tidy::run(&root())),
        ["ci"] => ExitCode::from(ci::run(&root())),
        ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        _ => {
            eprint!("{HELP}");
            ExitCode::from(2)
        }
    }
}

/// Builds the programs of a package as they are shipped: by themselves, and not in virtual time,
/// since what others of the workspace want of tokio would be in them as well.
fn programs(package: &str, profile: &[&str]) -> ExitCode {
    let bins = ["build", "--quiet", "--no-default-features", "-p", package, "--bins"];
    cargo(&bins, profile)
}

/// Runs a program of the lab as it is shipped.
fn program(name: &str, args: &[&str]) -> ExitCode {
    let run = ["run", "--quiet", "--no-default-features", "-p", "lab", "--bin", name, "--"];
    cargo(&run, args)
}

/// Runs a subcommand of the lab.
fn lab(profile: &[&str], what: &str, args: &[&str]) -> ExitCode {
    let command = [&["run", "--quiet", "-p", "lab"], profile, &["--", what]].concat();
    cargo(&command, args)
}

fn bench(package: &str, name: &str, args: &[&str]) -> ExitCode {
    // Not in virtual time.
    let features: &[_] = if package == "lab" { &["--no-default-features"] } else { &[] };
    let command = [&["bench", "-p", package], features, &["--bench", name, "--"]].concat();
    cargo(&command, args)
}

/// Runs the program that measures ours beside others.
fn peers(args: &[&str]) -> ExitCode {
    let run = ["run", "--quiet", "--release", "--manifest-path", "xtask/peers/Cargo.toml"];
    cargo(&run, args)
}

/// Runs a benchmark of a workspace of its own.
fn bench_apart(workspace: &str, name: &str, args: &[&str]) -> ExitCode {
    let manifest = format!("xtask/{workspace}/Cargo.toml");
    cargo(&["bench", "--manifest-path", &manifest, "--bench", name, "--"], args)
}

/// A workspace of its own, so that no feature of a test is in it; and the shipped server, beside
/// whose program its own are put.
fn cost(args: &[&str]) -> ExitCode {
    let target =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let package = ["--release", "--manifest-path", "xtask/cost/Cargo.toml"];
    let release = |task, with: &[&str], args: &[&str]| {
        let mut command = cargo_command();
        command.args([task, "--quiet"]).args(with).arg("--target-dir").arg(&target).args(args);
        run(&mut command)
    };
    let is_quick = args.contains(&"--quick");
    let codes = [
        &mut || match is_quick {
            true => 0,
            false => release("build", &["--release", "--bin", "calculator-server"], &[]),
        },
        &mut || release("build", &package, &[]),
        &mut || release("run", &package, &[&["--"], args].concat()),
    ] as [&mut dyn FnMut() -> u8; 3];
    let failed = codes.into_iter().map(|step| step()).find(|code| *code != 0);
    ExitCode::from(failed.unwrap_or(0))
}

/// Runs every target, up to the first that finds something.
fn fuzz(seconds: &str) -> ExitCode {
    let Ok(files) = fs::read_dir(root().join("fuzz/fuzz_targets")) else {
        return ExitCode::FAILURE;
    };
    let files = files.filter_map(|file| file.ok()?.path().file_stem()?.to_str().map(String::from));
    let mut targets: Vec<_> = files.collect();
    targets.sort();
    let limit = format!("-max_total_time={seconds}");
    let found = targets.iter().find(|target| {
        println!("== {target}");
        // What it finds goes into the first directory; it begins with what is in both.
        let corpora = ["corpus", "seeds"].map(|name| root().join("fuzz").join(name).join(target));
        if fs::create_dir_all(&corpora[0]).is_err() {
            return true;
        }
        let mut command = Command::new("cargo");
        command.current_dir(root()).args(["+nightly", "fuzz", "run", target]).args(&corpora);
        // A text that takes seconds is a fault as well.
        command.args(["--", &limit, "-timeout=10", "-rss_limit_mb=2048"]);
        run(&mut command) != 0
    });
    ExitCode::from(u8::from(found.is_some()))
}

fn cargo(command: &[&str], args: &[&str]) -> ExitCode {
    ExitCode::from(run(cargo_command().args(command).args(args)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_is_in_the_help() {
        let tasks =
            ["demo", "campaign", "sim storm", "load", "soak", "bench", "fuzz", "release", "street"];
        for task in tasks.into_iter().chain(["tidy", "left-out", "ci", "help"]) {
            assert!(HELP.contains(&format!("\n  {task} ")), "{task}");
        }
    }
}
