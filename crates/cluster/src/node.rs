//! A node as others see it, and its encoding in gossip.

use crate::State;
use http::Uri;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    ops::Deref,
    sync::Arc,
};

/// What is known of a node at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its id.
    pub id: String,
    /// Which life of the node this is: another number after each restart.
    pub generation: u64,
    /// The address at which it serves gRPC, if any.
    pub address: Option<Uri>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Its state in this node's view.
    pub state: State,
    /// Its phi: 0 to about 300; 0 for this node itself.
    pub phi: f64,
    /// Whether it hears this node and is heard by it.
    pub reachable: bool,
}

/// The facts that a node publishes by gossip.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) address: Option<Uri>,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) has_left: bool,
    /// The count of its heartbeats. It arrives after all that the node published before it.
    pub(crate) beat: Option<u64>,
    /// The lives that it hears.
    pub(crate) hears: Arc<Ids>,
    /// The members that it expects, itself included once it is a member.
    pub(crate) members: Arc<Ids>,
    /// The lives that have left, were replaced, or were forgotten by an operator.
    pub(crate) gone: Arc<Ids>,
}

/// A list of ids; parsed again only when it has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Ids {
    text: String,
    set: BTreeSet<String>,
}

/// A node in gossip at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) id: String,
    pub(crate) generation: u64,
    /// Rises while the node is heard.
    pub(crate) heartbeat: u64,
    /// The address at which it receives gossip, if known.
    pub(crate) gossip: Option<SocketAddr>,
    pub(crate) facts: Arc<Facts>,
}

pub(crate) const ADDRESS: &str = "address";
pub(crate) const BEAT: &str = "beat";
pub(crate) const HEARS: &str = "hears";
pub(crate) const MEMBERS: &str = "members";
pub(crate) const LEFT: &str = "left";
pub(crate) const GONE: &str = "gone";
const TAG: &str = "tag/";

/// The key of a tag.
pub(crate) fn tag_key(name: &str) -> String {
    format!("{TAG}{name}")
}

/// One life of a node, as an element of a list. No id has an `@`.
pub(crate) fn life(id: &str, generation: u64) -> String {
    format!("{id}@{generation:x}")
}

/// The node and the generation of a life in a list.
pub(crate) fn of_life(life: &str) -> Option<(&str, u64)> {
    let (id, generation) = life.split_once('@')?;
    Some((id, u64::from_str_radix(generation, 16).ok()?))
}

/// A list of lives in gossip's format.
pub(crate) fn lives<'a>(lives: impl Iterator<Item = (&'a str, u64)>) -> String {
    let mut lives: Vec<_> = lives.map(|(id, generation)| life(id, generation)).collect();
    lives.sort_unstable();
    list(lives.iter().map(String::as_str))
}

/// A list of ids in gossip's format.
pub(crate) fn list<'a>(ids: impl Iterator<Item = &'a str>) -> String {
    ids.collect::<Vec<_>>().join(",")
}

// === impl Node ===

impl Node {
    /// Whether it can take calls: it serves, has not failed, and does not drain.
    pub fn is_ready(&self) -> bool {
        let is_heard = matches!(self.state, State::Alive | State::Suspected);
        is_heard && self.address.is_some() && !self.is_draining()
    }

    /// Whether it is about to leave.
    pub fn is_draining(&self) -> bool {
        self.has_tag("draining", "true")
    }

    /// Whether it has this tag.
    pub fn has_tag(&self, name: &str, value: &str) -> bool {
        self.tags.get(name).is_some_and(|own| own == value)
    }
}

// === impl Facts ===

impl Facts {
    /// Applies the pairs to the earlier facts; invalid ones are ignored.
    pub(crate) fn parse<'a>(
        pairs: impl Iterator<Item = (&'a str, &'a str)>,
        before: Option<&Self>,
    ) -> Self {
        let ids = |text: &str, known: Option<&Arc<Ids>>| {
            let known = known.filter(|known| known.text == text);
            known.cloned().unwrap_or_else(|| Arc::new(Ids::parse(text)))
        };
        let mut facts = Self::default();
        for (key, value) in pairs {
            match key {
                ADDRESS => facts.address = value.parse().ok(),
                BEAT => facts.beat = value.parse().ok(),
                HEARS => facts.hears = ids(value, before.map(|before| &before.hears)),
                MEMBERS => facts.members = ids(value, before.map(|before| &before.members)),
                LEFT => facts.has_left = true,
                GONE => facts.gone = ids(value, before.map(|before| &before.gone)),
                _ => {
                    if let Some(name) = key.strip_prefix(TAG) {
                        facts.tags.insert(name.to_owned(), value.to_owned());
                    }
                }
            }
        }
        facts
    }
}

// === impl Ids ===

impl Ids {
    fn parse(text: &str) -> Self {
        let ids = text.split(',').filter(|id| !id.is_empty());
        Self { text: text.to_owned(), set: ids.map(str::to_owned).collect() }
    }
}

impl Deref for Ids {
    type Target = BTreeSet<String>;

    fn deref(&self) -> &BTreeSet<String> {
        &self.set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_publishes_is_read_and_invalid_pairs_are_ignored() {
        let pairs = [
            ("address", "http://a:1"),
            ("beat", "7"),
            ("hears", "a,,b"),
            ("members", ""),
            ("tag/role", "worker"),
            ("gone", "c,d@5"),
            ("other", "?"),
        ];
        let facts = Facts::parse(pairs.into_iter(), None);
        assert_eq!(facts.address, Some(Uri::from_static("http://a:1")));
        assert_eq!(facts.beat, Some(7));
        assert_eq!(**facts.hears, BTreeSet::from(["a".into(), "b".into()]));
        assert!(facts.members.is_empty() && !facts.has_left);
        assert_eq!(facts.tags, BTreeMap::from([("role".into(), "worker".into())]));
        let gone: Vec<_> = facts.gone.iter().filter_map(|life| of_life(life)).collect();
        assert_eq!(gone, [("d", 5)]);
        assert_eq!(of_life(&life("a:1", u64::MAX)), Some(("a:1", u64::MAX)));
        let again = Facts::parse([("hears", "a,,b"), ("members", "x")].into_iter(), Some(&facts));
        assert!(Arc::ptr_eq(&again.hears, &facts.hears) && again.members.contains("x"));
        let pairs = [("beat", "-1"), ("address", "\u{0}")];
        let nonsense = Facts::parse(pairs.into_iter(), None);
        assert_eq!(nonsense, Facts::default());
    }
}
