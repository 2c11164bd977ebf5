//! What a node is told before it joins.

use crate::{Phi, Strategy};
use cinchona_core::Invalid;
use http::Uri;
use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

/// Who a node is, and how the cluster is watched. All nodes of a cluster should be given the same
/// [`heartbeat`](Self::heartbeat), [`strategy`](Self::strategy) and [`expect`](Self::expect).
///
/// ```
/// use cinchona_cluster::Config;
///
/// let mut config = Config::new("orders", "orders-1", ([10, 0, 0, 7], 7946).into());
/// config.address = "http://10.0.0.7:50051".parse().ok();
/// config.tags.insert("role".into(), "worker".into());
/// assert_eq!(config.heartbeat.as_millis(), 200);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Nodes of another cluster are refused. 1 to 64 of `A-Z a-z 0-9 . _ : -`.
    pub cluster_id: String,
    /// Unique in the cluster, and the same after a restart. 1 to 64 of the same characters.
    pub node_id: String,
    /// Which of the node's lives this is: greater after each restart, or others do not hear it.
    /// Default: milliseconds of the wall clock since 1970.
    pub generation: Option<u64>,
    /// Where gossip is received, by UDP: an address of a private network, see the crate's docs.
    /// Port 0 takes any that is free.
    pub listen: SocketAddr,
    /// Where others send their gossip to. Default: `listen`, as it was bound.
    pub advertise: Option<SocketAddr>,
    /// Where the node serves gRPC, such as `http://10.0.0.7:50051`. Default: it does not serve.
    pub address: Option<Uri>,
    /// What others select it by, such as `role=worker`. `capacity` is its weight, and
    /// `draining=true` takes it out of every selection. A name is 1 to 64 of the same characters.
    pub tags: BTreeMap<String, String>,
    /// How often it gossips, and says whom it hears. Default 200 ms (memberlist's gossip interval
    /// on a LAN); 10 ms to 10 s.
    pub heartbeat: Duration,
    /// When the silent are suspected and convicted.
    pub phi: Phi,
    /// A peer is reachable if it has said within this time that it hears this node. Default 1 s;
    /// 3 to 100 heartbeats.
    pub reachable_within: Duration,
    /// How long a change must last before it is told, and before writes are taken again. Default
    /// 1.2 s, by which both sides of a cut know within 3 s; up to 1 h. Pekko's is 7 s for five
    /// nodes.
    pub stable_after: Duration,
    /// Who may take writes when not all are reachable. Default: the majority.
    pub strategy: Strategy,
    /// How many nodes found the cluster: until more than half of them hear each other, no writes
    /// are taken. Default 1, which is safe only where the first node starts first and alone; at
    /// least 1.
    pub expect: usize,
    /// It only looks on, as a client does: others take no notice of it, and it counts for no
    /// quorum. Default false.
    pub observer: bool,
}

// === impl Config ===

impl Config {
    /// A node of the cluster that receives gossip at `listen`.
    pub fn new(
        cluster_id: impl Into<String>,
        node_id: impl Into<String>,
        listen: SocketAddr,
    ) -> Self {
        Self {
            cluster_id: cluster_id.into(),
            node_id: node_id.into(),
            generation: None,
            listen,
            advertise: None,
            address: None,
            tags: BTreeMap::new(),
            heartbeat: Duration::from_millis(200),
            phi: Phi::default(),
            reachable_within: Duration::from_secs(1),
            stable_after: Duration::from_millis(1200),
            strategy: Strategy::default(),
            expect: 1,
            observer: false,
        }
    }

    /// How often the state of the others is looked at.
    pub(crate) fn tick(&self) -> Duration {
        self.heartbeat / 2
    }

    pub(crate) fn checked(self) -> Result<Self, Invalid> {
        let hour = Duration::from_secs(3600);
        let millis = Duration::from_millis;
        named("cluster_id", &self.cluster_id)?;
        named("node_id", &self.node_id)?;
        self.tags.keys().try_for_each(|name| named("tag", name))?;
        self.phi.checked()?;
        if !(millis(10)..=millis(10_000)).contains(&self.heartbeat) {
            return Err(outside("heartbeat", self.heartbeat, "10ms to 10s"));
        }
        if !(3 * self.heartbeat..=100 * self.heartbeat).contains(&self.reachable_within) {
            return Err(outside("reachable_within", self.reachable_within, "3 to 100 heartbeats"));
        }
        if self.stable_after > hour {
            return Err(outside("stable_after", self.stable_after, "0s to 1h"));
        }
        if self.expect == 0 {
            return Err(Invalid::new("expect", 0, "at least 1"));
        }
        if self.advertise.unwrap_or(self.listen).ip().is_unspecified() {
            let allowed = "an address that others can send to";
            return Err(Invalid::new("advertise", self.listen, allowed));
        }
        Ok(self)
    }
}

/// Whether `name` can stand in a list of names.
pub(crate) fn named(field: &'static str, name: &str) -> Result<(), Invalid> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '-');
    if (1..=64).contains(&name.len()) && name.chars().all(fits) {
        return Ok(());
    }
    Err(Invalid::new(field, format!("{name:?}"), "1 to 64 of A-Z a-z 0-9 . _ : -"))
}

fn outside(field: &'static str, value: Duration, allowed: &'static str) -> Invalid {
    Invalid::new(field, format!("{value:?}"), allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_outside_its_range_is_refused() {
        let refused = |change: fn(&mut Config)| {
            let mut config = Config::new("c", "n1", ([127, 0, 0, 1], 0).into());
            assert!(config.clone().checked().is_ok());
            change(&mut config);
            config.checked().unwrap_err().field()
        };
        assert_eq!(refused(|config| config.cluster_id.clear()), "cluster_id");
        assert_eq!(refused(|config| config.node_id = "a,b".into()), "node_id");
        assert_eq!(refused(|config| _ = config.tags.insert("a b".into(), "c".into())), "tag");
        assert_eq!(refused(|config| config.phi.max_samples = 0), "max_samples");
        assert_eq!(refused(|config| config.heartbeat = Duration::ZERO), "heartbeat");
        assert_eq!(
            refused(|config| config.reachable_within = config.heartbeat),
            "reachable_within"
        );
        assert_eq!(refused(|config| config.stable_after = Duration::MAX), "stable_after");
        assert_eq!(refused(|config| config.expect = 0), "expect");
        assert_eq!(refused(|config| config.listen = ([0, 0, 0, 0], 1).into()), "advertise");
    }
}
