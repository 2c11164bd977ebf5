//! The commands of which tasks are made.

use std::{
    env,
    ffi::OsString,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
};

/// The workspace's root: tasks mean the same from any of its directories.
pub(crate) fn root() -> PathBuf {
    let mut root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.pop();
    root
}

/// The cargo that runs this task, so that a chosen toolchain stays chosen.
pub(crate) fn cargo_command() -> Command {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.current_dir(root());
    command
}

/// Runs `command` with this process's own streams and returns its exit code; 1 when it has none,
/// because it could not start or died of a signal.
pub(crate) fn run(command: &mut Command) -> u8 {
    match command.status() {
        Ok(status) => code(status),
        Err(error) => cannot_run(command, &error),
    }
}

/// As [`run`]; each line of its output is printed, and heard.
pub(crate) fn run_lines(command: &mut Command, mut heard: impl FnMut(&str)) -> u8 {
    let mut child = match command.stdout(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(error) => return cannot_run(command, &error),
    };
    let lines = child.stdout.take().into_iter().flat_map(|out| BufReader::new(out).split(b'\n'));
    for line in lines.map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        heard(&line);
    }
    match child.wait() {
        Ok(status) => code(status),
        Err(error) => cannot_run(command, &error),
    }
}

fn code(status: ExitStatus) -> u8 {
    status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

fn cannot_run(command: &Command, error: &std::io::Error) -> u8 {
    eprintln!("cannot run {}: {error}", command.get_program().display());
    1
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;

    #[test]
    fn a_task_ends_with_the_exit_code_of_its_command() {
        let cargo = |arg| run(cargo_command().arg(arg).stdout(Stdio::null()).stderr(Stdio::null()));
        assert_eq!(cargo("--version"), 0);
        assert_eq!(cargo("this-is-no-command"), 101);
    }
}
