//! A network in memory that can be cut, forged into, and measured.

use crate::{Cluster, Config, Datagrams, Status};
use std::{
    collections::{HashMap, HashSet},
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::{
    sync::mpsc::{Receiver, Sender, channel},
    time::sleep,
};

type Datagram = (Vec<u8>, SocketAddr);

#[derive(Clone, Default)]
pub(super) struct Memory(Arc<Mutex<Wires>>);

#[derive(Default)]
pub(super) struct Wires {
    ports: HashMap<SocketAddr, Sender<Datagram>>,
    /// Which links are cut.
    pub(super) cuts: HashSet<(SocketAddr, SocketAddr)>,
    /// How many datagrams were sent, and how many bytes.
    pub(super) sent: (u64, u64),
    /// The last datagram of each sender.
    pub(super) captured: HashMap<SocketAddr, Vec<u8>>,
}

pub(super) struct Port {
    address: SocketAddr,
    memory: Memory,
    received: tokio::sync::Mutex<Receiver<Datagram>>,
}

pub(super) fn address(n: usize) -> SocketAddr {
    ([10, 0, 0, n as u8], 7946).into()
}

pub(super) fn config(n: usize) -> Config {
    let mut config = Config::new("c", format!("n{n}"), address(n));
    config.address = format!("http://10.0.0.{n}:50051").parse().ok();
    config.tags.insert("role".into(), "worker".into());
    config
}

// === impl Memory ===

impl Memory {
    pub(super) fn wires(&self) -> MutexGuard<'_, Wires> {
        self.0.lock().unwrap()
    }

    pub(super) fn open(&self, address: SocketAddr) -> Port {
        let (sender, received) = channel(1000);
        self.wires().ports.insert(address, sender);
        Port { address, memory: self.clone(), received: received.into() }
    }

    /// Sends as the node at `from`.
    pub(super) fn forge(&self, datagram: &[u8], from: SocketAddr, to: SocketAddr) {
        let port = self.wires().ports.get(&to).cloned();
        // A full queue drops datagrams, as a socket's does.
        port.map(|port| port.try_send((datagram.to_vec(), from)).ok());
    }

    /// Node `n`, with the first five as seeds.
    pub(super) fn join(&self, n: usize, change: impl FnOnce(&mut Config)) -> Cluster {
        let mut config = config(n);
        change(&mut config);
        let seeds: Vec<_> =
            (0..5).filter(|seed| *seed != n).map(|n| address(n).to_string()).collect();
        let seeds: Vec<_> = seeds.iter().map(String::as_str).collect();
        let port = self.open(config.listen);
        Cluster::join_over(config, &seeds, port).unwrap()
    }

    pub(super) async fn cluster(&self, n: usize) -> Vec<Cluster> {
        self.cluster_with(n, |_| {}).await
    }

    pub(super) async fn cluster_with(
        &self,
        n: usize,
        change: impl Fn(&mut Config),
    ) -> Vec<Cluster> {
        let mut nodes = Vec::new();
        for i in 0..n {
            nodes.push(self.join(i, |config| {
                config.expect = n;
                change(config);
            }));
        }
        sleep(Duration::from_secs(6)).await;
        for node in &nodes {
            assert_eq!((node.status(), node.reachable()), (Status::Healthy, (n, n)));
            assert_eq!(node.refusal(), None);
        }
        nodes
    }

    pub(super) fn cut(&self, from: &[usize], to: &[usize]) {
        let pairs = from.iter().flat_map(|a| to.iter().map(|b| (address(*a), address(*b))));
        self.wires().cuts.extend(pairs);
    }

    pub(super) fn heal(&self) {
        self.wires().cuts.clear();
    }
}

// === impl Port ===

impl Datagrams for Port {
    fn address(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn send(&self, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
        let mut wires = self.memory.wires();
        wires.sent.0 += 1;
        wires.sent.1 += datagram.len() as u64;
        wires.captured.insert(self.address, datagram.to_vec());
        let is_cut = wires.cuts.contains(&(self.address, to));
        drop(wires);
        if !is_cut {
            self.memory.forge(datagram, self.address, to);
        }
        Ok(())
    }

    async fn receive(&self, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let received = self.received.lock().await.recv().await;
        let (datagram, from) = received.ok_or_else(|| io::Error::other("it is closed"))?;
        into[..datagram.len()].copy_from_slice(&datagram);
        Ok((datagram.len(), from))
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        let mut wires = self.memory.wires();
        let is_own = |sender: &Sender<Datagram>| sender.is_closed();
        // Another may have been opened there since.
        self.received.get_mut().close();
        if wires.ports.get(&self.address).is_some_and(is_own) {
            wires.ports.remove(&self.address);
        }
    }
}
