//! A node as others see it, and how it says so by gossip.

use crate::State;
use http::Uri;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    ops::Deref,
    sync::Arc,
};

/// What is known of a node at some moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its id.
    pub id: String,
    /// Which of its lives this is: another number after each restart.
    pub generation: u64,
    /// Where it serves gRPC, if it does.
    pub address: Option<Uri>,
    /// What it says of itself.
    pub tags: BTreeMap<String, String>,
    /// What is held of it.
    pub state: State,
    /// How sure one can be that it is gone: 0 to about 300; 0 for this node itself.
    pub phi: f64,
    /// Whether it hears this node and is heard by it.
    pub reachable: bool,
}

/// What a node says by gossip.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) address: Option<Uri>,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) has_left: bool,
    /// Counts its heartbeats. It arrives after all that the node said before it.
    pub(crate) beat: Option<u64>,
    /// The lives that it hears.
    pub(crate) hears: Arc<Ids>,
    /// Whom it expects, itself included once it is a member.
    pub(crate) members: Arc<Ids>,
    /// The lives that have left, were replaced, or that an operator had forgotten.
    pub(crate) gone: Arc<Ids>,
}

/// A list of ids; it is read again only when it has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Ids {
    text: String,
    set: BTreeSet<String>,
}

/// A node as gossip shows it at some moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) id: String,
    pub(crate) generation: u64,
    /// Grows while the node is heard.
    pub(crate) heartbeat: u64,
    /// Where it receives gossip, if that is known yet.
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

/// One life of a node, in a list. No id has an `@`.
pub(crate) fn life(id: &str, generation: u64) -> String {
    format!("{id}@{generation:x}")
}

/// The node and the generation of a life in a list.
pub(crate) fn of_life(life: &str) -> Option<(&str, u64)> {
    let (id, generation) = life.split_once('@')?;
    Some((id, u64::from_str_radix(generation, 16).ok()?))
}

/// A list of ids as gossip carries it.
pub(crate) fn list<'a>(ids: impl Iterator<Item = &'a str>) -> String {
    ids.collect::<Vec<_>>().join(",")
}

// === impl Node ===

impl Node {
    /// Whether it can be given work: it serves, is not taken to be gone, and does not drain.
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
    /// What the pairs say, after what they said before; what makes no sense is left out.
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
    fn what_a_node_says_is_read_and_nonsense_is_left_out() {
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
