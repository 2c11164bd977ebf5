//! What a node says of itself, and its encoding in gossip.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    ops::Deref,
    str::FromStr,
    sync::Arc,
};

/// The facts that a node publishes by gossip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts<A> {
    /// The address at which it serves, if any.
    pub address: Option<A>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Whether it has left.
    pub has_left: bool,
    /// The count of its heartbeats. It arrives after all that the node published before it.
    pub beat: Option<u64>,
    /// The lives that it hears.
    pub hears: Arc<Ids>,
    /// The members that it expects, itself included once it is a member.
    pub members: Arc<Ids>,
    /// The lives that have left, were replaced, or were forgotten by an operator.
    pub gone: Arc<Ids>,
}

/// A list of ids; parsed again only when it has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ids {
    text: String,
    set: BTreeSet<String>,
}

/// A node in gossip at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen<A> {
    /// Its id.
    pub id: String,
    /// Which life of it this is.
    pub generation: u64,
    /// Rises while the node is heard.
    pub heartbeat: u64,
    /// The address at which it receives gossip, if known.
    pub gossip: Option<SocketAddr>,
    /// What it publishes.
    pub facts: Arc<Facts<A>>,
}

/// The key: the address at which it serves.
pub const ADDRESS: &str = "address";
/// The key: the count of its heartbeats.
pub const BEAT: &str = "beat";
/// The key: the lives that it hears.
pub const HEARS: &str = "hears";
/// The key: the members that it expects.
pub const MEMBERS: &str = "members";
/// The key: it has left.
pub const LEFT: &str = "left";
/// The key: the lives that it knows to be gone.
pub const GONE: &str = "gone";
const TAG: &str = "tag/";

/// The key of a tag.
pub fn tag_key(name: &str) -> String {
    format!("{TAG}{name}")
}

/// One life of a node, as an element of a list. No id has an `@`.
pub fn life(id: &str, generation: u64) -> String {
    format!("{id}@{generation:x}")
}

/// The node and the generation of a life in a list.
pub(super) fn of_life(life: &str) -> Option<(&str, u64)> {
    let (id, generation) = life.split_once('@')?;
    Some((id, u64::from_str_radix(generation, 16).ok()?))
}

/// A list of lives in gossip's format.
pub(super) fn lives<'a>(lives: impl Iterator<Item = (&'a str, u64)>) -> String {
    let mut lives: Vec<_> = lives.map(|(id, generation)| life(id, generation)).collect();
    lives.sort_unstable();
    list(lives.iter().map(String::as_str))
}

/// A list of ids in gossip's format.
pub(super) fn list<'a>(ids: impl Iterator<Item = &'a str>) -> String {
    ids.collect::<Vec<_>>().join(",")
}

// === impl Facts ===

impl<A: FromStr> Facts<A> {
    /// Applies the pairs to the earlier facts; invalid ones are ignored.
    pub fn parse<'a>(
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

impl<A> Default for Facts<A> {
    /// Those of a node that has published nothing.
    fn default() -> Self {
        Self {
            address: None,
            tags: BTreeMap::new(),
            has_left: false,
            beat: None,
            hears: Arc::default(),
            members: Arc::default(),
            gone: Arc::default(),
        }
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
            ("address", "7"),
            ("beat", "7"),
            ("hears", "a,,b"),
            ("members", ""),
            ("tag/role", "worker"),
            ("gone", "c,d@5"),
            ("other", "?"),
        ];
        let facts = Facts::<u8>::parse(pairs.into_iter(), None);
        assert_eq!(facts.address, Some(7));
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
        let nonsense = Facts::<u8>::parse(pairs.into_iter(), None);
        assert_eq!(nonsense, Facts::default());
    }
}
