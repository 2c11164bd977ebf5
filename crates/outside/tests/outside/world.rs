//! Processes, and namespaces to run them in.

use crate::{MS, SECOND};
use outside::{needed, program};
use std::{
    env, fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
};
use tempfile::TempDir;
use tokio::{
    net::TcpSocket,
    time::{Instant, sleep},
};

/// A port that refuses connections, as long as the socket is kept: a server of another test cannot
/// get it meanwhile.
pub(crate) fn refusing() -> (SocketAddr, TcpSocket) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    (socket.local_addr().unwrap(), socket)
}

/// A process that is killed when it is dropped.
pub(crate) struct Process(Child);

/// A `calculator-server` with an address of its own.
pub(crate) struct Server {
    process: Process,
    pub(crate) addr: SocketAddr,
}

/// The names of our own resolver, which answers on port 53 of this namespace.
pub(crate) struct Resolver {
    process: Option<Process>,
    dir: TempDir,
}

/// The variable that is set in a test process with namespaces of its own.
const ALONE: &str = "CINCHONA_TEST_IS_ALONE";

/// Whether the test `name` has networks and mounts of its own. If not, it is run in them by a
/// process of its own, and passes here if it passes there.
pub(crate) fn is_alone(name: &str) -> bool {
    if env::var_os(ALONE).is_some() {
        run("ip", &["link", "set", "lo", "up"]);
        return true;
    }
    needed("iptables", "iptables");
    let mut inner = Command::new(needed("unshare", "util-linux"));
    inner.args(["--map-root-user", "--mount", "--net"]).arg(env::current_exe().unwrap());
    inner.args([name, "--include-ignored", "--nocapture"]).env(ALONE, "1");
    assert!(inner.status().unwrap().success(), "{name}, in namespaces of its own");
    false
}

pub(crate) fn run(program: &str, args: &[&str]) {
    let status = Command::new(program).args(args).status();
    assert!(status.is_ok_and(|status| status.success()), "{program} {args:?}");
}

// === impl Process ===

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    /// The first line that it says.
    pub(crate) fn first_line(&mut self) -> String {
        let mut line = String::new();
        let said = self.0.stdout.take().unwrap();
        BufReader::new(said).read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    pub(crate) fn signal(&self, signal: &str) {
        run("kill", &[&format!("-{signal}"), &self.0.id().to_string()]);
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

// === impl Server ===

impl Server {
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::on("127.0.0.1:0", args)
    }

    pub(crate) fn on(addr: &str, args: &[&str]) -> Self {
        let mut command = Command::new(program("calculator-server"));
        command.args(["--addr", addr]).args(args).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = Process::spawn(&mut command);
        let line = process.first_line();
        let addr = line.strip_prefix("listening on ").unwrap().parse().unwrap();
        Self { process, addr }
    }

    pub(crate) fn signal(&self, signal: &str) {
        self.process.signal(signal);
    }
}

// === impl Resolver ===

impl Resolver {
    /// Answers `addresses` for `name`, and is the resolver of this process from now on, in its
    /// mount namespace.
    pub(crate) async fn start(name: &str, addresses: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut resolver = Self { process: None, dir };
        resolver.is_told(name, addresses);
        for (file, text) in
            [("resolv.conf", "nameserver 127.0.0.1\n"), ("nsswitch.conf", "hosts: files dns\n")]
        {
            let ours = resolver.dir.path().join(file);
            fs::write(&ours, text).unwrap();
            run("mount", &["--bind", ours.to_str().unwrap(), &format!("/etc/{file}")]);
        }
        resolver.begins().await;
        resolver
    }

    /// Begins, or begins again after it was stopped.
    pub(crate) async fn begins(&mut self) {
        let mut dnsmasq = Command::new(needed("dnsmasq", "dnsmasq-base"));
        dnsmasq.args(["--keep-in-foreground", "--user=", "--group=", "--port=53"]);
        dnsmasq.args(["--listen-address=127.0.0.1", "--bind-interfaces", "--no-resolv"]);
        dnsmasq.args(["--no-hosts", "--conf-file=/dev/null", "--pid-file", "--local-ttl=0"]);
        dnsmasq.arg(format!("--addn-hosts={}", self.hosts().display()));
        let mut process = Process::spawn(&mut dnsmasq);
        let began = Instant::now();
        while tokio::net::TcpStream::connect("127.0.0.1:53").await.is_err() {
            assert!(process.is_running() && Instant::now() - began < 10 * SECOND, "no dnsmasq");
            sleep(10 * MS).await;
        }
        self.process = Some(process);
    }

    /// Dies.
    pub(crate) fn ends(&mut self) {
        self.process = None;
    }

    /// Stops (`STOP`), or goes on (`CONT`).
    pub(crate) fn signal(&self, signal: &str) {
        self.process.as_ref().unwrap().signal(signal);
    }

    /// Answers these addresses from now on; with none, that the name does not exist.
    pub(crate) fn is_told(&self, name: &str, addresses: &[&str]) {
        let lines: String = addresses.iter().map(|addr| format!("{addr} {name}\n")).collect();
        fs::write(self.hosts(), lines).unwrap();
        if let Some(process) = &self.process {
            process.signal("HUP");
        }
    }

    fn hosts(&self) -> PathBuf {
        self.dir.path().join("hosts")
    }
}
