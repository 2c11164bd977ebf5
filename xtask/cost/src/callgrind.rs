//! Instructions, as valgrind's callgrind counts them.

use crate::{
    Side,
    process::{self, Process, program},
};
use cinchona::core::BoxError;
use cinchona_cost::{
    SLOPE,
    load::{Load, plain},
    servers::SERVERS,
};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

pub(crate) fn is_installed() -> bool {
    let mut valgrind = Command::new("valgrind");
    valgrind.arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Instructions of the shorter and of the longer run.
pub(crate) fn counts(side: Side, name: &str) -> Result<[u64; 2], BoxError> {
    let count = |calls| match side {
        Side::Client => of_client(name, calls),
        Side::Server => of_server(name, calls),
    };
    Ok([count(SLOPE[0])?, count(SLOPE[1])?])
}

fn of_client(name: &str, calls: u32) -> Result<u64, BoxError> {
    let server = Process::serve(&mut process::server(SERVERS[0], 1)?)?;
    let mut client = program("cost-client")?;
    client.args(["run", name, &calls.to_string(), &server.address]);
    let found = profile(Side::Client, name, calls);
    process::output(&mut under(&client, &found))?;
    total(&found)
}

fn of_server(name: &str, calls: u32) -> Result<u64, BoxError> {
    let found = profile(Side::Server, name, calls);
    let mut server = Process::serve(&mut under(&process::server(name, 1)?, &found))?;
    process::runtime()?
        .block_on(async { Load::one_by_one(calls).run(&plain(&server.address)?).await })?;
    server.end()?;
    total(&found)
}

/// The same command, counted.
fn under(command: &Command, found: &Path) -> Command {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--quiet", "--tool=callgrind"]);
    valgrind.arg(format!("--callgrind-out-file={}", found.display()));
    valgrind.arg(command.get_program()).args(command.get_args());
    valgrind.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
    valgrind
}

/// Where a profile lies, which callgrind_annotate reads: `COST_PROFILES`, or among what is
/// temporary.
fn profile(side: Side, name: &str, calls: u32) -> PathBuf {
    let directory = env::var_os("COST_PROFILES").map_or_else(env::temp_dir, PathBuf::from);
    let name: String = name.chars().take_while(|c| *c != ':').collect();
    directory.join(format!("cost.{side:?}.{name}.{calls}").to_lowercase().replace(' ', "-"))
}

fn total(found: &Path) -> Result<u64, BoxError> {
    let profile = fs::read_to_string(found)?;
    let line = profile.lines().find_map(|line| line.strip_prefix("totals: "));
    let line = line.or_else(|| profile.lines().find_map(|line| line.strip_prefix("summary: ")));
    Ok(line.ok_or("a profile without a total")?.trim().parse()?)
}
