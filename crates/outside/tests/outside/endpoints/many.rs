//! Lists of thousands of endpoints, and lists that never stop to change.

use super::*;
use crate::world::Server;
use cinchona::{balance::Picker, core::Discover};
use std::{fs, net::SocketAddr};
use tokio::time::sleep;

/// A list of two that is another with each look: one endpoint stays, and one comes and goes.
struct Changing {
    stays: Target,
    looks: u32,
    most: u32,
}

impl Discover for Changing {
    async fn next(&mut self) -> Option<Vec<Target>> {
        if self.looks == self.most {
            return None;
        }
        self.looks += 1;
        Some(vec![self.stays.clone(), target(nobody(self.looks))])
    }
}

/// A port of this machine that refuses; another one for each of 15 million numbers.
fn nobody(n: u32) -> SocketAddr {
    ([127, 1 + (n / 62_500) as u8, (n / 250 % 250) as u8, 1 + (n % 250) as u8], 9).into()
}

/// What this process has of the machine's memory, in kB.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

// catalogue: S-B10
// real clock: the sockets are the kernel's.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a release build for its full count"]
async fn one_endpoint_of_ten_thousand_is_found_at_once() {
    let most = if cfg!(debug_assertions) { 4 * SECOND } else { SECOND / 5 };
    for picker in [Picker::PeakEwma, Picker::RoundRobin, Picker::WeightedRoundRobin] {
        let server = Server::start(&[]);
        let mut all: Vec<Target> = (0..9_999).map(|n| target(nobody(n))).collect();
        all.insert(7_777, target(server.addr));
        let began = Instant::now();
        let channel = Balance::new(all, Options { picker, ..Options::default() }).unwrap();
        add(channel, 20 * SECOND).await.unwrap();
        let took = Instant::now() - began;
        println!("{picker:?}: the first call over 10,000 endpoints took {took:?}");
        assert!(took <= most, "{picker:?}: {took:?}");
    }
}

// catalogue: S-B10
// real clock: the sockets are the kernel's.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a release build for its full count"]
async fn changes_without_end_leave_nothing_behind() {
    let most = if cfg!(debug_assertions) { 20_000 } else { 1_000_000 };
    let server = Server::start(&[]);
    let source = Changing { stays: target(server.addr), looks: 0, most };
    let channel = Balance::new(source, Options::default()).unwrap();
    let (began, last) = (Instant::now(), target(nobody(most)).to_string());
    let mut held = Vec::new();
    loop {
        add(channel.clone(), 10 * SECOND).await.unwrap();
        held.push(resident());
        if channel.states().iter().any(|endpoint| endpoint.target.to_string() == last) {
            break;
        }
        assert!(Instant::now() - began < 600 * SECOND, "{:?}", channel.states());
        sleep(SECOND / 2).await;
    }
    println!("{most} changes in {:?}, kB: {held:?}", Instant::now() - began);
    // What the allocator keeps has settled by the first look.
    let (early, late) = (held[held.len().min(3) - 1], held[held.len() - 1]);
    assert!(late < early + 20_000, "{held:?}");
}
