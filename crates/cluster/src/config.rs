//! The settings of a node.

use crate::{Expected, Phi, Strategy, seal::Seal};
use cinchona_core::{Invalid, Secret};
use cinchona_policy::cluster::Settings;
use http::Uri;
use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

/// What a node is, and how it watches the cluster. All nodes of a cluster should use the same
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
#[derive(Clone, Debug)]
pub struct Config {
    /// The name of the cluster; nodes of other clusters are refused. 1 to 64 of `A-Z a-z 0-9 . _ :
    /// -`.
    pub cluster_id: String,
    /// Unique in the cluster, and the same after a restart. 1 to 64 of the same characters.
    pub node_id: String,
    /// Identifies one life of the node: another number after each restart. The numbers are not
    /// ordered, so a clock may be set back. Default: a random number.
    pub generation: Option<u64>,
    /// The UDP address that receives gossip: one of a private network, see the crate's docs. Port 0
    /// takes any free port.
    pub listen: SocketAddr,
    /// The address to which others send gossip. Default: `listen`, as bound.
    pub advertise: Option<SocketAddr>,
    /// The address at which the node serves gRPC, such as `http://10.0.0.7:50051`; at most 1,024
    /// bytes. Default: it does not serve.
    pub address: Option<Uri>,
    /// Tags by which others select the node, such as `role=worker`. `capacity` is its weight, and
    /// `draining=true` removes it from every selection. A name is 1 to 64 of the same characters, a
    /// value at most 1,024 bytes; at most 64 tags, which take at most 8,192 bytes in all.
    pub tags: BTreeMap<String, String>,
    /// Secrets that all nodes share. Datagrams are sealed with the first (HMAC-SHA256); those
    /// sealed with none of them are [counted](crate::Cluster::forged) and dropped. To change a
    /// secret, append the new one on all nodes, then move it to the front, then remove the old one.
    /// At least 16 bytes each. Default: none, and every datagram is accepted.
    pub secrets: Vec<Secret>,
    /// The interval of gossip and of heartbeats. Default 200 ms (memberlist's gossip interval on a
    /// LAN); 10 ms to 10 s.
    pub heartbeat: Duration,
    /// When silent nodes are suspected and convicted.
    pub phi: Phi,
    /// A peer is reachable if it has reported within this time that it hears this node. Default 1
    /// s; 3 to 100 heartbeats.
    pub reachable_within: Duration,
    /// How long a change must last before it is an event, and before writes are accepted again.
    /// Default 1.2 s, by which both sides of a cut notice it within 3 s; up to 1 h. Pekko's is 7 s
    /// for five nodes.
    pub stable_after: Duration,
    /// Which side may accept writes when some nodes are not reachable. Default: the majority.
    pub strategy: Strategy,
    /// How many nodes found the cluster: writes are refused until more than half of them hear each
    /// other. Default 1, which is safe only where the first node starts first and alone; at least
    /// 1. Ignored where [`expected`](Self::expected) is set.
    pub expect: usize,
    /// How many nodes the cluster should have, whatever their names. Default: none, and members are
    /// expected by name until they leave.
    pub expected: Option<Expected>,
    /// Whether the node only observes, as a client does: others do not list it, and it counts for
    /// no quorum. Default false.
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
        let settings = Settings::<Uri>::new(node_id);
        Self {
            cluster_id: cluster_id.into(),
            node_id: settings.node_id,
            generation: None,
            listen,
            advertise: None,
            address: None,
            tags: BTreeMap::new(),
            secrets: Vec::new(),
            heartbeat: settings.heartbeat,
            phi: settings.phi,
            reachable_within: settings.reachable_within,
            stable_after: settings.stable_after,
            strategy: settings.strategy,
            expect: settings.expect,
            expected: None,
            observer: settings.observer,
        }
    }

    /// What decides is told; `generation` must be set.
    pub(crate) fn settings(&self) -> Settings<Uri> {
        Settings {
            node_id: self.node_id.clone(),
            generation: self.generation.unwrap_or_default(),
            address: self.address.clone(),
            heartbeat: self.heartbeat,
            phi: self.phi,
            reachable_within: self.reachable_within,
            stable_after: self.stable_after,
            strategy: self.strategy.clone(),
            expect: self.expect,
            observer: self.observer,
        }
    }

    pub(crate) fn checked(self) -> Result<Self, Invalid> {
        let hour = Duration::from_secs(3600);
        let millis = Duration::from_millis;
        named("cluster_id", &self.cluster_id)?;
        named("node_id", &self.node_id)?;
        if let Strategy::Leader(leader) = &self.strategy {
            named("leader", leader)?;
        }
        tagged(&self.tags)?;
        let size = self.address.as_ref().map_or(0, |uri| uri.to_string().len());
        if size > LONGEST_TEXT {
            let size = format!("one of {size} bytes");
            return Err(Invalid::new("address", size, "at most 1024 bytes"));
        }
        Seal::checked(&self.secrets)?;
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
        if self.expected.as_ref().is_some_and(Expected::is_none) {
            return Err(Invalid::new("expected", 0, "at least 1"));
        }
        let advertised = self.advertise.unwrap_or(self.listen);
        // Port 0 is resolved when the socket is bound.
        if advertised.ip().is_unspecified() || self.advertise.is_some_and(|at| at.port() == 0) {
            let allowed = "an address that others can send to";
            return Err(Invalid::new("advertise", advertised, allowed));
        }
        Ok(self)
    }
}

impl PartialEq for Config {
    fn eq(&self, other: &Self) -> bool {
        fn identity(of: &Config) -> impl PartialEq + '_ {
            (&of.cluster_id, &of.node_id, of.generation, &of.address, &of.tags, of.observer)
        }
        fn behaviour(of: &Config) -> impl PartialEq + '_ {
            let times = (of.heartbeat, of.phi, of.reachable_within, of.stable_after);
            (of.listen, of.advertise, times, &of.strategy, of.expect, &of.expected)
        }
        let is_same = |(own, other): (&Secret, &Secret)| own.is(other.expose().as_bytes());
        identity(self) == identity(other)
            && behaviour(self) == behaviour(other)
            && self.secrets.len() == other.secrets.len()
            && self.secrets.iter().zip(&other.secrets).all(is_same)
    }
}

/// The most bytes of a name.
pub(crate) const LONGEST_NAME: usize = 64;
/// The most bytes of a tag's value, and of an address.
const LONGEST_TEXT: usize = 1024;
const MOST_TAGS: usize = 64;
/// The most bytes of all names and values together.
const LARGEST_TAGS: usize = 8192;

/// Whether `name` can be an element of a list of names.
pub(crate) fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '-');
    (1..=LONGEST_NAME).contains(&name.len()) && name.chars().all(fits)
}

pub(crate) fn named(field: &'static str, name: &str) -> Result<(), Invalid> {
    if is_name(name) {
        return Ok(());
    }
    // An overlong name is not shown in the error.
    let shown: String = name.chars().take(2 * LONGEST_NAME).collect();
    let shown = format!("{shown:?} of {} bytes", name.len());
    Err(Invalid::new(field, shown, "1 to 64 of A-Z a-z 0-9 . _ : -"))
}

/// Whether all of these fit into a datagram, beside all else that a node sends.
pub(crate) fn tagged(tags: &BTreeMap<String, String>) -> Result<(), Invalid> {
    tags.keys().try_for_each(|name| named("tag", name))?;
    if let Some((name, value)) = tags.iter().find(|(_, value)| value.len() > LONGEST_TEXT) {
        let size = format!("{name:?} with a value of {} bytes", value.len());
        return Err(Invalid::new("tag", size, "at most 1024 bytes a value"));
    }
    if tags.len() > MOST_TAGS {
        return Err(Invalid::new("tags", format!("{} of them", tags.len()), "at most 64"));
    }
    let size: usize = tags.iter().map(|(name, value)| name.len() + value.len()).sum();
    if size > LARGEST_TAGS {
        let size = format!("{size} bytes of names and values");
        return Err(Invalid::new("tags", size, "at most 8192 bytes in all"));
    }
    Ok(())
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
        assert_eq!(refused(|config| config.expected = Some(0.into())), "expected");
        assert_eq!(refused(|config| config.secrets = vec!["short".try_into().unwrap()]), "secrets");
        assert_eq!(refused(|config| config.strategy = Strategy::Leader("a,b".into())), "leader");
        assert_eq!(
            refused(|config| config.advertise = Some(([10, 0, 0, 1], 0).into())),
            "advertise"
        );
        assert_eq!(refused(|config| config.listen = ([0, 0, 0, 0], 1).into()), "advertise");
    }

    // catalogue: S-C6
    #[test]
    fn what_does_not_fit_into_a_datagram_is_refused_by_its_field_and_the_limit() {
        let refused = |change: &dyn Fn(&mut Config)| {
            let mut config = Config::new("c", "n1", ([127, 0, 0, 1], 0).into());
            change(&mut config);
            let refused = config.checked().unwrap_err().to_string();
            assert!(refused.len() < 300, "{refused}");
            refused
        };
        let long = "x".repeat(70_000);
        let said = refused(&|config| _ = config.tags.insert("note".into(), long.clone()));
        assert!(said.contains("tag: \"note\" with a value of 70000 bytes"), "{said}");
        assert!(said.contains("at most 1024 bytes"), "{said}");
        let said = refused(&|config| _ = config.tags.insert(long.clone(), "x".into()));
        assert!(said.starts_with("tag: ") && said.contains("of 70000 bytes"), "{said}");
        for change in [
            |config: &mut Config, long: String| config.node_id = long,
            |config: &mut Config, long: String| config.cluster_id = long,
        ] {
            assert!(refused(&|config| change(config, long.clone())).contains("1 to 64"));
        }
        let path = "/x".repeat(600);
        let said = refused(&|config| config.address = format!("http://a{path}").parse().ok());
        assert!(said.contains("address: one of") && said.contains("at most 1024 bytes"), "{said}");
        let tags = |count: usize, size: usize| {
            (0..count).map(move |n| (format!("tag-{n}"), "x".repeat(size)))
        };
        let said = refused(&|config| config.tags = tags(65, 1).collect());
        assert!(said.contains("tags: 65 of them") && said.contains("at most 64"), "{said}");
        let said = refused(&|config| config.tags = tags(20, 1000).collect());
        assert!(said.contains("tags: 20110 bytes") && said.contains("at most 8192"), "{said}");
    }

    #[test]
    fn two_configs_are_the_same_where_all_their_settings_are() {
        let config = Config::new("c", "n1", ([127, 0, 0, 1], 0).into());
        assert_eq!(config, config.clone());
        for change in [
            |config: &mut Config| config.secrets.push("a secret of many bytes".try_into().unwrap()),
            |config: &mut Config| config.expected = Some(3.into()),
            |config: &mut Config| config.stable_after *= 2,
            |config: &mut Config| config.node_id.push('2'),
        ] {
            let mut other = config.clone();
            change(&mut other);
            assert_ne!(config, other);
        }
    }
}
