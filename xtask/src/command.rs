//! The commands of which tasks are made.

use std::{env, ffi::OsString, path::PathBuf, process::Command};

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
        Ok(status) => status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1),
        Err(error) => {
            eprintln!("cannot run {}: {error}", command.get_program().display());
            1
        }
    }
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
