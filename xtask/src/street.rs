//! `cargo xtask street`: the scripts of `xtask/peers/suite`, run with every client that is here.

use crate::command::{cargo_command, root, run as run_command};
use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const GRPC_JS: &str = "@grpc/grpc-js@1.14.7";
/// Where Debian puts Go packages (golang-google-grpc-dev).
const GO_PATH: &str = "/usr/share/gocode";

/// A client, and the command that starts it; or why it is not here.
type Client = (&'static str, Result<String, &'static str>);

/// Builds the clients and runs the scripts; `args` are those of `xtask/peers/src/bin/suite`, and
/// `--write` for `xtask/peers/suite/RESULTS.md`.
pub(crate) fn run(args: &[&str]) -> u8 {
    let (root, target) = (root(), target());
    let mut build = cargo_command();
    build.args(["build", "--quiet", "--manifest-path", "xtask/peers/Cargo.toml", "--target-dir"]);
    let code = run_command(build.arg(&target).args(["--bin", "suite", "--bin", "suite-client"]));
    if code != 0 {
        return code;
    }
    let programs = target.join("debug");
    let modules = root.join("target/node/node_modules");
    let mut suite = Command::new(programs.join("suite"));
    suite.current_dir(&root).args(["--scripts", "xtask/peers/suite", "--out", "target/street"]);
    // grpc-go of this age retries only where it is asked to.
    suite.env("NODE_PATH", &modules).env("GRPC_GO_RETRY", "on");
    for (name, client) in clients(&root, &target, &modules) {
        match client {
            Ok(command) => suite.arg("--client").arg(format!("{name}={command}")),
            Err(why) => suite.arg("--absent").arg(format!("{name}={why}")),
        };
    }
    for arg in args {
        match *arg {
            "--write" => suite.args(["--summary", "xtask/peers/suite/RESULTS.md"]),
            arg => suite.arg(arg),
        };
    }
    run_command(&mut suite)
}

/// Where cargo builds, seen from anywhere.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

fn clients(root: &Path, target: &Path, modules: &Path) -> [Client; 6] {
    let of_rust = |name| Ok(format!("{} {name}", target.join("debug/suite-client").display()));
    [
        ("cinchona", of_rust("cinchona")),
        ("tonic", of_rust("tonic")),
        ("tower-resilience", of_rust("tower-resilience")),
        ("grpcio", grpcio()),
        ("grpc-js", grpc_js(root, modules)),
        ("grpc-go", grpc_go(root, target)),
    ]
}

fn works(command: &mut Command) -> bool {
    let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

fn grpcio() -> Result<String, &'static str> {
    let mut pythons = ["python3", "/usr/bin/python3"].into_iter();
    let python = pythons.find(|python| works(Command::new(python).args(["-c", "import grpc"])));
    python
        .map(|python| format!("{python} xtask/peers/suite/clients/grpcio.py"))
        .ok_or("no python3 with grpcio (Debian: python3-grpcio)")
}

fn grpc_js(root: &Path, modules: &Path) -> Result<String, &'static str> {
    if !works(Command::new("node").arg("--version")) {
        return Err("no node");
    }
    if !modules.join("@grpc/grpc-js").exists() {
        let mut install = Command::new("npm");
        install.args(["install", "--silent", "--no-audit", "--no-fund", "--prefix", "target/node"]);
        if !works(install.arg(GRPC_JS).current_dir(root)) {
            return Err("npm could not install @grpc/grpc-js");
        }
    }
    Ok("node xtask/peers/suite/clients/grpc-js.js".to_owned())
}

fn grpc_go(root: &Path, target: &Path) -> Result<String, &'static str> {
    let has_grpc = Path::new(GO_PATH).join("src/google.golang.org/grpc").exists();
    if !has_grpc || !works(Command::new("go").arg("version")) {
        return Err("no Go with grpc-go (Debian: golang-go, golang-google-grpc-dev)");
    }
    let program = target.join("street/grpc-go");
    let mut build = Command::new("go");
    build
        .args(["build", "-o"])
        .arg(&program)
        .current_dir(root.join("xtask/peers/suite/clients/grpc-go"));
    build.env("GO111MODULE", "off").env("GOPATH", GO_PATH).env("GOFLAGS", "-buildvcs=false");
    if works(&mut build) { Ok(program.display().to_string()) } else { Err("it does not build") }
}
