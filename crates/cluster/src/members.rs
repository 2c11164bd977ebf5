//! Who is expected: it grows by join, and shrinks only by leave or an operator's decision.

use std::collections::{BTreeMap, BTreeSet};

/// The expected members, as this node knows them; empty until it is told or they found a cluster.
#[derive(Clone, Debug)]
pub(crate) struct Members {
    own: String,
    /// So many must hear each other to found a cluster.
    founders: usize,
    all: BTreeSet<String>,
    /// Who left or was forgotten, and in which generation at most.
    gone: BTreeMap<String, u64>,
}

// === impl Members ===

impl Members {
    /// More than half of `expect` found a cluster, and at least two where there are seeds: a node
    /// that knows of others must not begin alone.
    pub(crate) fn new(own: String, expect: usize, has_seeds: bool) -> Self {
        let founders = (expect / 2 + 1).max(1 + usize::from(has_seeds));
        Self { own, founders, all: BTreeSet::new(), gone: BTreeMap::new() }
    }

    pub(crate) const fn all(&self) -> &BTreeSet<String> {
        &self.all
    }

    /// What a peer expects is expected: the union never loses a member.
    pub(crate) fn adopt(&mut self, told: &BTreeSet<String>, generation_of: impl Fn(&str) -> u64) {
        for id in told {
            if !self.is_gone(id, generation_of(id)) {
                self.all.insert(id.clone());
            }
        }
    }

    /// Those who have a quorum take in whom they reach: a minority must not grow into a majority.
    /// Where nobody knows of a cluster, enough nodes that reach each other found one.
    pub(crate) fn admit(&mut self, reachable: &BTreeSet<String>, has_quorum: bool) {
        let founds = self.all.is_empty() && reachable.len() >= self.founders;
        let is_member = self.all.contains(&self.own);
        if founds || is_member && has_quorum {
            self.all.extend(reachable.iter().cloned());
        }
    }

    /// Expects `id` no more, up to this generation of it. Whether that is news.
    pub(crate) fn remove(&mut self, id: &str, generation: u64) -> bool {
        let was_gone = self.gone.get(id).is_some_and(|&gone| generation <= gone);
        if !was_gone {
            self.gone.insert(id.to_owned(), generation);
            self.all.remove(id);
        }
        !was_gone
    }

    /// Whether it has left, or was forgotten, and has not come back since.
    pub(crate) fn is_gone(&self, id: &str, generation: u64) -> bool {
        self.gone.get(id).is_some_and(|&gone| generation <= gone)
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
        first.admit(&ids(["a"]), false);
        assert_eq!(first.all(), &ids(["a"]));
        let mut other = Members::new("b".into(), 1, true);
        other.admit(&ids(["b"]), false);
        assert_eq!(other.all(), &ids([]));
    }

    #[test]
    fn more_than_half_of_those_who_are_expected_found_a_cluster() {
        let mut members = Members::new("a".into(), 5, true);
        members.admit(&ids(["a", "b"]), false);
        assert_eq!(members.all(), &ids([]));
        members.admit(&ids(["a", "b", "c"]), false);
        assert_eq!(members.all(), &ids(["a", "b", "c"]));
    }

    #[test]
    fn a_minority_takes_nobody_in() {
        let mut members = Members::new("a".into(), 1, true);
        members.adopt(&ids(["a", "b", "c"]), |_| 0);
        members.admit(&ids(["a", "d", "e"]), false);
        assert_eq!(members.all(), &ids(["a", "b", "c"]));
        members.admit(&ids(["a", "b", "d"]), true);
        assert_eq!(members.all(), &ids(["a", "b", "c", "d"]));
    }

    #[test]
    fn who_has_left_comes_back_only_in_a_later_life() {
        let mut members = Members::new("a".into(), 1, true);
        members.adopt(&ids(["a", "b"]), |_| 7);
        assert!(members.remove("b", 7));
        assert!(!members.remove("b", 7), "no news");
        members.adopt(&ids(["a", "b"]), |_| 7);
        assert_eq!(members.all(), &ids(["a"]));
        members.adopt(&ids(["a", "b"]), |_| 8);
        assert_eq!(members.all(), &ids(["a", "b"]));
    }
}
