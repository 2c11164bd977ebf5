//! A crate outside the workspace, built and run as its author would.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Duration,
};
use tempfile::TempDir;

/// A crate in its own folder.
pub(crate) struct Project {
    folder: TempDir,
    /// Where it listens and calls, in place of the port that the documents have.
    address: SocketAddr,
}

/// A program that ends with the test.
pub(crate) struct Running(Child);

/// The workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Where the workspace is built: what the two have in common is built once.
fn target() -> PathBuf {
    let test = std::env::current_exe().unwrap(); // target/debug/deps/stranger-..
    test.ancestors().nth(3).unwrap().to_owned()
}

// === impl Project ===

impl Project {
    /// With the versions that the workspace is tested with.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::copy(root().join("Cargo.lock"), folder.path().join("Cargo.lock")).unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Self { folder, address }
    }

    /// Writes a file, with this checkout for the version of cinchona.
    pub(crate) fn write(&self, file: &str, text: &str) {
        let checkout = format!("cinchona = {{ path = {:?} }}", env!("CARGO_MANIFEST_DIR"));
        let text = text
            .replace("cinchona = \"0.1\"", &checkout)
            .replace("127.0.0.1:50051", &self.address.to_string());
        let path = self.folder.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Builds its programs.
    #[track_caller]
    pub(crate) fn build(&self) {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--offline", "--bins"]).current_dir(self.folder.path());
        // As the workspace has it, so that what both need is built once.
        cargo.env("CARGO_TARGET_DIR", target()).env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only");
        let built = cargo.output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    }

    /// Keeps a program that was built, under another name.
    pub(crate) fn keep(&self, name: &str, kept: &str) {
        fs::copy(target().join("debug").join(name), self.folder.path().join(kept)).unwrap();
    }

    /// Runs a program to its end; what it printed, and what it complained of.
    pub(crate) fn run(&self, name: &str) -> (String, String) {
        let kept = self.folder.path().join(name);
        let built = target().join("debug").join(name);
        let output = Command::new(if kept.exists() { kept } else { built }).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr))
    }

    /// Starts a server, and waits until it accepts connections.
    pub(crate) async fn serve(&self, name: &str) -> Running {
        let running = Running(Command::new(target().join("debug").join(name)).spawn().unwrap());
        for _ in 0..200 {
            if TcpStream::connect(self.address).is_ok() {
                return running;
            }
            // The real clock: another process starts.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{name} does not accept connections");
    }
}

// === impl Running ===

impl Running {
    /// Whether it ends well on this signal.
    #[cfg(unix)]
    pub(crate) fn ends_on(mut self, signal: &str) -> bool {
        let (signal, pid) = (format!("-{signal}"), self.0.id().to_string());
        assert!(Command::new("kill").args([signal, pid]).status().unwrap().success());
        self.0.wait().unwrap().success()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}
