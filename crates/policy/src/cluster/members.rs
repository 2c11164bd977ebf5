//! The expected members: the set grows by joining, and shrinks only when one leaves, is replaced,
//! or is forgotten by an operator.

use std::collections::{BTreeMap, BTreeSet};

/// The expected members, as this node knows them; empty until it learns of them or they found a
/// cluster.
#[derive(Clone, Debug)]
pub struct Members {
    own: String,
    /// How many nodes must hear each other to found a cluster.
    founders: usize,
    all: BTreeSet<String>,
    gone: Gone,
}

/// Which life of a node has left, was replaced or forgotten; the latest last.
#[derive(Clone, Debug, Default)]
struct Gone {
    lives: BTreeMap<String, (u64, u64)>,
    count: u64,
}

/// The most nodes of a cluster.
pub const MOST_NODES: usize = 256;

/// The most lives known to be gone, and the most of them that are sent.
const MOST_GONE: usize = 2 * MOST_NODES;
const MOST_SENT: usize = 64;

// === impl Members ===

impl Members {
    /// More than half of `expect` found a cluster, and at least two where there are seeds: a node
    /// that knows of others must not found one alone.
    pub fn new(own: String, expect: usize, has_seeds: bool) -> Self {
        let founders = (expect / 2 + 1).max(1 + usize::from(has_seeds));
        Self { own, founders, all: BTreeSet::new(), gone: Gone::default() }
    }

    /// Their ids.
    pub const fn all(&self) -> &BTreeSet<String> {
        &self.all
    }

    /// How many nodes must hear each other to found a cluster.
    pub const fn founders(&self) -> usize {
        self.founders
    }

    /// Whether there is a cluster, as far as this node knows.
    pub fn is_founded(&self) -> bool {
        !self.all.is_empty()
    }

    /// Adds the members that a peer expects: the union never loses a member.
    pub fn adopt<'a>(&mut self, ids: impl IntoIterator<Item = &'a String>) {
        ids.into_iter().for_each(|id| self.insert(id.clone()));
    }

    /// Nodes with a quorum admit the nodes that they reach: a minority must not grow into a
    /// majority. Where no cluster is known, enough nodes that reach each other found one.
    pub fn admit(&mut self, reachable: &BTreeSet<String>, has_quorum: bool, is_known: bool) {
        let founds = !is_known && self.all.is_empty() && reachable.len() >= self.founders;
        let is_member = self.all.contains(&self.own);
        if founds || is_member && has_quorum {
            self.adopt(reachable);
        }
    }

    /// Removes this generation of `id` from the expected members. Returns whether that is news.
    pub fn remove(&mut self, id: &str, generation: u64) -> bool {
        let is_news = self.gone.lives.get(id).is_none_or(|gone| gone.0 != generation);
        if is_news {
            self.gone.insert(id, generation);
            self.all.remove(id);
        }
        is_news
    }

    /// Replaces `id` by `by` in the expected members. Returns whether that is news.
    pub fn replace(&mut self, id: &str, generation: u64, by: &str) -> bool {
        let was_member = self.all.contains(id);
        let is_news = self.remove(id, generation);
        if is_news && was_member {
            self.insert(by.to_owned());
        }
        is_news
    }

    /// Whether it has left, was replaced or forgotten, and has not come back in another life. The
    /// life of a node that was never heard is not known.
    pub fn is_gone(&self, id: &str, generation: Option<u64>) -> bool {
        let gone = self.gone.lives.get(id);
        gone.is_some_and(|gone| generation.is_none_or(|generation| gone.0 == generation))
    }

    /// How often a node was found to be gone.
    pub const fn gone_count(&self) -> u64 {
        self.gone.count
    }

    /// The latest lives that are gone, by node and generation: those that are worth sending.
    pub fn latest_gone(&self) -> impl Iterator<Item = (&str, u64)> {
        let mut latest: Vec<_> = self.gone.lives.iter().collect();
        latest.sort_unstable_by_key(|(_, (_, number))| std::cmp::Reverse(*number));
        let latest = latest.into_iter().take(MOST_SENT);
        latest.map(|(id, (generation, _))| (id.as_str(), *generation))
    }

    fn insert(&mut self, id: String) {
        if self.all.len() < MOST_NODES {
            self.all.insert(id);
        }
    }
}

// === impl Gone ===

impl Gone {
    fn insert(&mut self, id: &str, generation: u64) {
        self.count += 1;
        self.lives.insert(id.to_owned(), (generation, self.count));
        if self.lives.len() > MOST_GONE {
            let oldest = self.lives.iter().min_by_key(|(_, (_, number))| *number);
            let oldest = oldest.map(|(id, _)| id.clone());
            oldest.map(|id| self.lives.remove(&id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids<const N: usize>(all: [&str; N]) -> BTreeSet<String> {
        all.into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn a_node_without_seeds_founds_a_cluster_alone_and_others_do_not() {
        let mut first = Members::new("a".into(), 1, false);
        first.admit(&ids(["a"]), false, false);
        assert_eq!(first.all(), &ids(["a"]));
        let mut other = Members::new("b".into(), 1, true);
        other.admit(&ids(["b"]), false, false);
        assert_eq!(other.all(), &ids([]));
    }

    #[test]
    fn a_cluster_is_founded_where_any_member_is_expected() {
        let mut members = Members::new("a".into(), 1, true);
        assert!(!members.is_founded());
        members.adopt(&ids(["b"]));
        assert!(members.is_founded());
    }

    #[test]
    fn more_than_half_of_the_expected_nodes_found_a_cluster() {
        let mut members = Members::new("a".into(), 5, true);
        assert_eq!(members.founders(), 3);
        members.admit(&ids(["a", "b"]), false, false);
        assert_eq!(members.all(), &ids([]));
        members.admit(&ids(["a", "b", "c"]), false, false);
        assert_eq!(members.all(), &ids(["a", "b", "c"]));
    }

    #[test]
    fn no_cluster_is_founded_beside_one_that_others_know() {
        let mut members = Members::new("a".into(), 1, true);
        members.admit(&ids(["a", "b", "c"]), false, true);
        assert_eq!(members.all(), &ids([]));
    }

    #[test]
    fn a_minority_admits_no_member() {
        let mut members = Members::new("a".into(), 1, true);
        members.adopt(&ids(["a", "b", "c"]));
        members.admit(&ids(["a", "d", "e"]), false, false);
        assert_eq!(members.all(), &ids(["a", "b", "c"]));
        members.admit(&ids(["a", "b", "d"]), true, false);
        assert_eq!(members.all(), &ids(["a", "b", "c", "d"]));
    }

    #[test]
    fn a_node_that_left_returns_only_in_another_life_even_of_a_lower_number() {
        let mut members = Members::new("a".into(), 1, true);
        members.adopt(&ids(["a", "b"]));
        assert!(members.remove("b", 7));
        assert!(!members.remove("b", 7), "no news");
        assert_eq!(members.all(), &ids(["a"]));
        assert!(members.is_gone("b", Some(7)) && members.is_gone("b", None));
        assert!(!members.is_gone("b", Some(8)) && !members.is_gone("b", Some(6)));
    }

    #[test]
    fn a_replaced_member_gives_up_its_place_and_a_non_member_has_none() {
        let mut members = Members::new("a".into(), 1, true);
        members.adopt(&ids(["a", "b", "c"]));
        assert!(members.replace("b", 1, "d") && !members.replace("b", 1, "e"));
        assert!(members.replace("x", 1, "y"));
        assert_eq!(members.all(), &ids(["a", "c", "d"]));
        assert_eq!(members.latest_gone().collect::<Vec<_>>(), [("x", 1), ("b", 1)]);
    }

    #[test]
    fn the_number_of_names_kept_is_bounded() {
        let mut members = Members::new("a".into(), 1, true);
        for n in 0..10_000 {
            members.remove(&format!("n{n}"), 1);
            members.adopt([&format!("n{n}")]);
        }
        let kept = (members.gone.lives.len(), members.all.len());
        assert_eq!(kept, (2 * MOST_NODES, MOST_NODES), "twice as many that are gone");
        assert_eq!((members.latest_gone().count(), members.gone_count()), (MOST_SENT, 10_000));
        assert!(members.is_gone("n9999", None) && !members.is_gone("n1", None));
    }
}
