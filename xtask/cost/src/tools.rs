//! What instruction counts depend on beside the code.

use std::process::Command;

/// The compiler, the C library and valgrind, each by its version.
pub(crate) fn versions() -> String {
    let tools = [("rustc", "-V"), ("ldd", "--version"), ("valgrind", "--version")];
    tools.map(|(program, option)| first_line(program, option)).join(", ")
}

fn first_line(program: &str, option: &str) -> String {
    let output = Command::new(program).arg(option).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.ok().and_then(|text| Some(text.lines().next()?.to_owned())).unwrap_or_default()
}
