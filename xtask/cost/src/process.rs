//! The programs beside this one.

use cinchona::core::BoxError;
use cinchona_cost::servers::SHIPPED;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    env,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};
use tokio::runtime::{Builder, Runtime};

/// A server, which ends with this.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pub(crate) address: String,
}

/// The program of that name.
pub(crate) fn program(name: &str) -> Result<Command, BoxError> {
    let path = env::current_exe()?.with_file_name(name);
    match path.exists() {
        true => Ok(Command::new(path)),
        false => {
            Err(format!("there is no {}: `cargo xtask bench cost` builds it", path.display())
                .into())
        }
    }
}

/// The server of that name, with so many threads. Its heap is not trimmed: whether glibc returns
/// memory after each burst of calls, for 0.4 microseconds of a call, depends on how the heap of a
/// process happens to lie, with our layers or without.
pub(crate) fn server(name: &str, threads: usize) -> Result<Command, BoxError> {
    let threads = threads.to_string();
    let mut command;
    if name == SHIPPED {
        command = program(SHIPPED)?;
        command.args(["--addr", "127.0.0.1:0"]).env("TOKIO_WORKER_THREADS", threads);
    } else {
        command = program("cost-server")?;
        command.args([name, &threads]);
    }
    command.env("MALLOC_TRIM_THRESHOLD_", (1 << 30).to_string());
    Ok(command)
}

/// What it has printed.
pub(crate) fn output(command: &mut Command) -> Result<String, BoxError> {
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("{}: {}", command.get_program().display(), output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

pub(crate) fn runtime() -> Result<Runtime, BoxError> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

// === impl Process ===

impl Process {
    /// Starts a server, which prints its address.
    pub(crate) fn serve(command: &mut Command) -> Result<Self, BoxError> {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let stdout = child.stdout.take().ok_or("no stdout")?;
        let mut process = Self { child, address: String::new() };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line.trim().strip_prefix("listening on ").ok_or("it does not serve")?;
        process.address.push_str(address);
        Ok(process)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end, and waits for that.
    pub(crate) fn end(&mut self) -> Result<(), BoxError> {
        kill(Pid::from_raw(self.id().try_into()?), Signal::SIGTERM)?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
