//! Five servers in network namespaces of their own, and cuts between them.

use crate::SECOND;
use outside::{needed, program};
use std::{
    env, fs,
    path::PathBuf,
    process::{self, Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};
use tempfile::TempDir;
use tokio::time::Instant;

/// Five namespaces around a switch, and a server in each.
struct World {
    names: Vec<String>,
    servers: Vec<Child>,
    dir: TempDir,
}

const NODES: usize = 5;

// === impl World ===

impl World {
    fn new() -> Self {
        static WORLDS: AtomicU32 = AtomicU32::new(0);
        let world = WORLDS.fetch_add(1, Ordering::Relaxed);
        let names = (0..=NODES).map(|n| format!("cin{}-{world}-{n}", process::id())).collect();
        let dir = tempfile::tempdir().unwrap();
        let mut world = Self { names, servers: Vec::new(), dir };
        needed("ip", "iproute2");
        needed("iptables", "iptables");
        assert!(world.is_wired(), "network namespaces need root and a kernel that has them");
        for n in 1..=NODES {
            world.start(n);
        }
        world
    }

    /// The first namespace is a switch; each of the others has a cable to it.
    fn is_wired(&self) -> bool {
        let switch = &self.names[0];
        let has_cable = |(n, name): (usize, &String)| {
            let (port, address) = (format!("p{n}"), format!("{}/24", address(n)));
            let pair =
                ["link", "add", "eth0", "netns", name, "type", "veth", "peer", "name", &port];
            ip(&[&pair[..], &["netns", switch]].concat())
                && ip(&["-n", switch, "link", "set", &port, "master", "br0", "up"])
                && ip(&["-n", name, "addr", "add", &address, "dev", "eth0"])
                && ip(&["-n", name, "link", "set", "eth0", "up"])
                && ip(&["-n", name, "link", "set", "lo", "up"])
        };
        self.names.iter().all(|name| ip(&["netns", "add", name]))
            && inside(switch, "iptables", &["-L"])
            && ip(&["-n", switch, "link", "add", "br0", "type", "bridge"])
            && ip(&["-n", switch, "link", "set", "br0", "up"])
            && self.names.iter().enumerate().skip(1).all(has_cable)
    }

    fn start(&mut self, n: usize) {
        let (addr, gossip) = (format!("{}:50051", address(n)), format!("{}:7946", address(n)));
        let log = fs::File::create(self.log(n)).unwrap();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.names[n]]);
        command.arg(program("calculator-server")).args(["--addr", &addr]);
        command.args(["--gossip", &gossip, "--node-id", &format!("n{n}"), "--expect", "5"]);
        if n > 1 {
            command.args(["--join", &format!("{}:7946", address(1))]);
        }
        let started = command.stdout(Stdio::null()).stderr(log).env("RUST_LOG", "info").spawn();
        self.servers.push(started.unwrap());
    }

    fn log(&self, n: usize) -> PathBuf {
        self.dir.path().join(format!("n{n}.log"))
    }

    /// How often the nodes have said this so far, each.
    fn said(&self, what: &str) -> Vec<usize> {
        let count = |n| fs::read_to_string(self.log(n)).unwrap().matches(what).count();
        (1..=NODES).map(count).collect()
    }

    /// `calculator-client`, beside node `n`.
    fn ask(&self, n: usize, args: &[&str]) -> Result<String, String> {
        let addr = format!("{}:50051", address(n));
        let once = ["--max-retries", "0", "--timeout", "500ms", "--addr", &addr];
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.names[n]]).arg(program("calculator-client"));
        let output = command.args(args).args(once).output().unwrap();
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout).unwrap().trim().to_owned()),
            false => Err(String::from_utf8(output.stderr).unwrap()),
        }
    }

    fn writes(&self, n: usize) -> bool {
        self.ask(n, &["set", "probe", "1"]).is_ok()
    }

    /// How long it takes until exactly these nodes take writes.
    fn until_only(&self, writers: &[usize]) -> Duration {
        let began = Instant::now();
        loop {
            let writing: Vec<usize> = (1..=NODES).filter(|n| self.writes(*n)).collect();
            if writing == writers {
                return Instant::now() - began;
            }
            let waited = Instant::now() - began;
            assert!(waited < 15 * SECOND, "{writing:?} take writes, not {writers:?}");
        }
    }

    /// Node `to` hears nothing of node `from` any more.
    fn deafen(&self, to: usize, from: usize) {
        let rule = ["-A", "INPUT", "-s", &address(from), "-j", "DROP"];
        assert!(inside(&self.names[to], "iptables", &rule));
    }

    fn heal(&self) {
        for name in &self.names[1..] {
            assert!(inside(name, "iptables", &["-F"]));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for server in &mut self.servers {
            _ = server.kill();
            _ = server.wait();
        }
        for name in &self.names {
            ip(&["netns", "del", name]);
        }
    }
}

fn address(n: usize) -> String {
    format!("10.77.0.{n}")
}

fn ip(args: &[&str]) -> bool {
    let quiet = Command::new("ip").args(args).stderr(Stdio::null()).status();
    quiet.is_ok_and(|status| status.success())
}

fn inside(name: &str, program: &str, args: &[&str]) -> bool {
    let output = Command::new("ip").args(["netns", "exec", name, program]).args(args).output();
    output.is_ok_and(|output| output.status.success())
}

// real clock: the servers are processes, and the network is the kernel's.
#[tokio::test]
#[ignore = "needs network namespaces"]
async fn a_minority_serves_reads_refuses_writes_and_comes_back() {
    let world = World::new();
    println!("five found the cluster after {:.1?}", world.until_only(&[1, 2, 3, 4, 5]));
    for n in 1..=NODES {
        world.ask(n, &["set", "before", &n.to_string()]).unwrap();
    }

    // Two against three.
    let before = world.said("PartitionDetected");
    let cut = Instant::now();
    for (left, right) in [1, 2].into_iter().flat_map(|left| [3, 4, 5].map(|right| (left, right))) {
        world.deafen(left, right);
        world.deafen(right, left);
    }
    let writing = world.until_only(&[3, 4, 5]);
    while world.said("PartitionDetected").iter().zip(&before).any(|(now, before)| now == before) {
        assert!(Instant::now() - cut < 15 * SECOND, "{:?}", world.said("PartitionDetected"));
    }
    let known = Instant::now() - cut;
    println!(
        "2|3: only the three take writes after {writing:.1?}, all five know after {known:.1?}"
    );
    for n in [1, 2] {
        assert_eq!(world.ask(n, &["get", "before"]).unwrap(), n.to_string(), "reads go on");
        let refused = world.ask(n, &["set", "during", "x"]).unwrap_err();
        assert!(refused.contains("UNAVAILABLE: read-only: "), "{refused}");
    }
    for n in [3, 4, 5] {
        world.ask(n, &["set", "during", &n.to_string()]).unwrap();
    }
    world.heal();
    println!("healed: all five take writes after {:.1?}", world.until_only(&[1, 2, 3, 4, 5]));
    for n in [3, 4, 5] {
        assert_eq!(world.ask(n, &["get", "during"]).unwrap(), n.to_string());
    }
    assert!(world.ask(1, &["get", "during"]).is_err(), "what was refused was not written");

    // The two are heard and hear no node: with a count of the nodes that are heard, they would take
    // writes.
    for (left, right) in [1, 2].into_iter().flat_map(|left| [3, 4, 5].map(|right| (left, right))) {
        world.deafen(left, right);
    }
    println!("one way: only the three take writes after {:.1?}", world.until_only(&[3, 4, 5]));
    world.heal();
    world.until_only(&[1, 2, 3, 4, 5]);

    // A single link: gossip finds its way round.
    world.deafen(1, 2);
    world.deafen(2, 1);
    thread::park_timeout(3 * SECOND);
    println!("one link: all take writes after {:.1?}", world.until_only(&[1, 2, 3, 4, 5]));
    world.heal();
}

// real clock: the servers are processes, and the network is the kernel's.
#[tokio::test]
#[ignore = "needs network namespaces"]
async fn with_three_in_ten_packets_lost_nobody_is_convicted() {
    let world = World::new();
    world.until_only(&[1, 2, 3, 4, 5]);
    let before = world.said("NodeFailed");
    let lossy = ["-A", "INPUT", "-i", "eth0", "-m", "statistic", "--mode", "random"];
    let lossy = [&lossy[..], &["--probability", "0.3"]].concat();
    for name in &world.names[1..] {
        assert!(inside(name, "iptables", &[&lossy[..], &["-j", "DROP"]].concat()));
    }
    let seconds = env::var("CINCHONA_LOSS_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    let seconds = seconds.unwrap_or(10);
    thread::park_timeout(seconds * SECOND);
    assert_eq!(world.said("NodeFailed"), before, "convicted within {seconds} s");
    println!("{seconds} s with 30 % of the packets lost: no node suspected");
}
