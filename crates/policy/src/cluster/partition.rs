//! Which side of a partition this node is on, and whether it may accept writes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};
use tokio::time::Instant;

/// The state of the cluster as this node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// Every expected member hears this node, and is heard by it.
    Healthy,
    /// The reachable members have changed, but not for `stable_after` yet.
    Suspect,
    /// Too few members are reachable for writes.
    Minority,
    /// Some members are not reachable, but enough are for writes.
    Majority,
    /// The node is not a member yet: too few nodes were ever heard to know how many there are.
    Unknown,
}

/// Which side may accept writes when some nodes are not reachable; the other side refuses them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Strategy {
    /// More than half of the expected members; of two equal halves, the one with the lowest node
    /// id. As Pekko's keep-majority.
    #[default]
    Majority,
    /// The nodes that reach the node with this id, however few.
    Leader(String),
}

/// The electorate: whose votes make a majority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Electorate {
    /// The members, by their names.
    Members,
    /// This many nodes, whatever their names.
    Count(usize),
}

/// The expected members and which of them are reachable, over time.
#[derive(Clone, Debug)]
pub struct Partition {
    own: String,
    strategy: Strategy,
    stable_after: Duration,
    settled: Settled,
    /// The status that would be settled next, and since when it has held.
    next: Option<(Settled, Instant)>,
}

/// A settled status, and the members it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The status of this side.
    pub status: Status,
    /// The members that are reachable.
    pub ours: BTreeSet<String>,
    /// The members that are not.
    pub others: BTreeSet<String>,
}

/// The status with hysteresis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// With hysteresis.
    pub status: Status,
    /// The status without hysteresis: whether enough members are reachable now.
    pub has_quorum: bool,
    /// How many members are reachable.
    pub reachable: usize,
    /// How many are expected.
    pub expected: usize,
    /// The status that has just been settled, if any.
    pub changed: Option<Settled>,
}

/// Whether `reachable`, this node included, may accept writes for `expected`.
///
/// Of two halves of a number neither side knows which has the lowest id, so neither may.
pub fn has_quorum(
    strategy: &Strategy,
    electorate: Electorate,
    expected: &BTreeSet<String>,
    reachable: &BTreeSet<String>,
) -> bool {
    let count = reachable.intersection(expected).count();
    match (strategy, electorate) {
        (Strategy::Leader(leader), Electorate::Count(_)) => reachable.contains(leader),
        (Strategy::Leader(leader), Electorate::Members) => {
            reachable.contains(leader) && expected.contains(leader)
        }
        (Strategy::Majority, Electorate::Count(of)) => reachable.len() > of / 2,
        (Strategy::Majority, Electorate::Members) if 2 * count == expected.len() => {
            expected.first().is_some_and(|lowest| reachable.contains(lowest))
        }
        (Strategy::Majority, Electorate::Members) => 2 * count > expected.len(),
    }
}

/// The nodes that this node and they hear each other, itself included: `heard` are those that it
/// hears, each with the lives that these hear; `life` is its own.
pub fn two_way(
    own: &str,
    life: &str,
    heard: &BTreeMap<&str, &BTreeSet<String>>,
) -> BTreeSet<String> {
    let mutual = heard.iter().filter(|(_, hears)| hears.contains(life));
    mutual.map(|(id, _)| (*id).to_owned()).chain([own.to_owned()]).collect()
}

// === impl Partition ===

impl Partition {
    /// Of a node that is no member yet.
    pub fn new(own: String, strategy: Strategy, stable_after: Duration) -> Self {
        let (ours, others) = (BTreeSet::new(), BTreeSet::new());
        let settled = Settled { status: Status::Unknown, ours, others };
        Self { own, strategy, stable_after, settled, next: None }
    }

    /// Takes in which members are expected and reachable now.
    pub fn observe(
        &mut self,
        electorate: Electorate,
        expected: &BTreeSet<String>,
        reachable: &BTreeSet<String>,
        now: Instant,
    ) -> Standing {
        let ours: BTreeSet<_> = reachable.intersection(expected).cloned().collect();
        let others: BTreeSet<_> = expected.difference(reachable).cloned().collect();
        let is_member = expected.contains(&self.own);
        let has_quorum = is_member && has_quorum(&self.strategy, electorate, expected, reachable);
        let count = match electorate {
            Electorate::Members => expected.len(),
            Electorate::Count(of) => of.max(expected.len()),
        };
        let is_whole = others.is_empty() && ours.len() >= count;
        let status = match (is_member, has_quorum, is_whole) {
            (false, ..) => Status::Unknown,
            (true, false, _) => Status::Minority,
            (true, true, false) => Status::Majority,
            (true, true, true) => Status::Healthy,
        };
        let (reachable, expected) = (ours.len(), count);
        let changed = self.settle(Settled { status, ours, others }, now);
        let status = if self.next.is_some() { Status::Suspect } else { self.settled.status };
        Standing { status, has_quorum, reachable, expected, changed }
    }

    /// A status is settled when it has been the same for long enough, or nothing was known before.
    fn settle(&mut self, current: Settled, now: Instant) -> Option<Settled> {
        if current.status == self.settled.status && current.others == self.settled.others {
            self.settled.ours = current.ours;
            self.next = None;
            return None;
        }
        let since = match &self.next {
            Some((next, since)) if next.status == current.status => *since,
            _ => now,
        };
        let begins = self.settled.status == Status::Unknown && current.status == Status::Healthy;
        if !begins && now.saturating_duration_since(since) < self.stable_after {
            self.next = Some((current, since));
            return None;
        }
        self.next = None;
        self.settled = current.clone();
        Some(current)
    }

    /// The status that has lasted.
    pub const fn settled(&self) -> &Settled {
        &self.settled
    }
}

// === impl Status ===

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Healthy => "healthy",
            Self::Suspect => "suspect",
            Self::Minority => "minority",
            Self::Majority => "majority",
            Self::Unknown => "unknown",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn ids(all: impl IntoIterator<Item = usize>) -> BTreeSet<String> {
        all.into_iter().map(|n| format!("n{n}")).collect()
    }

    fn partition() -> Partition {
        Partition::new("n1".into(), Strategy::Majority, 2000 * MS)
    }

    #[test]
    fn no_split_in_two_leaves_two_writable_sides_and_a_strict_majority_always_writes() {
        let mut splits = 0;
        for n in 1..=7_usize {
            let expected = ids(0..n);
            for mask in 0..1_usize << n {
                let side = |bit| ids((0..n).filter(|i| (mask >> i) & 1 == bit));
                let (left, right) = (side(0), side(1));
                let writes = |side: &BTreeSet<String>| {
                    !side.is_empty()
                        && has_quorum(&Strategy::Majority, Electorate::Members, &expected, side)
                };
                assert!(!(writes(&left) && writes(&right)), "{left:?} | {right:?}");
                if left.len() != right.len() {
                    let (more, fewer) =
                        if left.len() > right.len() { (&left, &right) } else { (&right, &left) };
                    assert!(writes(more) && !writes(fewer), "{left:?} | {right:?}");
                } else {
                    assert!(
                        writes(&left) == left.contains("n0") && writes(&left) != writes(&right)
                    );
                }
                for leader in &expected {
                    let led = |side| {
                        let strategy = Strategy::Leader(leader.clone());
                        has_quorum(&strategy, Electorate::Members, &expected, side)
                    };
                    assert!(led(&left) != led(&right));
                }
                splits += 1;
            }
        }
        assert_eq!(splits, 254);
    }

    #[test]
    fn no_split_in_three_leaves_two_writable_sides() {
        for n in 1..=7_usize {
            let expected = ids(0..n);
            for number in 0..3_usize.pow(n as u32) {
                let side_of = |i: &usize| number / 3_usize.pow(*i as u32) % 3;
                let writable = (0..3).filter(|side| {
                    let members = ids((0..n).filter(|i| side_of(i) == *side));
                    has_quorum(&Strategy::Majority, Electorate::Members, &expected, &members)
                });
                assert!(writable.count() <= 1, "{n} {number}");
            }
        }
    }

    #[test]
    fn of_a_number_of_nodes_any_more_than_half_may_write() {
        for of in 1..=9_usize {
            for left in 0..=of {
                let writes = |count: usize, first: usize| {
                    let side = ids(first..first + count);
                    has_quorum(&Strategy::Majority, Electorate::Count(of), &ids([]), &side)
                };
                assert_eq!(writes(left, 0), 2 * left > of, "{left} of {of}");
                assert!(!(writes(left, 0) && writes(of - left, 90)), "{left} of {of}");
            }
        }
    }

    #[test]
    fn a_number_that_is_not_reached_is_not_whole() {
        let (mut partition, now) = (partition(), Instant::now());
        let count = Electorate::Count(4);
        partition.observe(count, &ids(0..3), &ids(0..3), now);
        let standing = partition.observe(count, &ids(0..3), &ids(0..3), now + 2000 * MS);
        assert_eq!((standing.status, standing.expected), (Status::Majority, 4));
    }

    #[test]
    fn strangers_add_nothing_to_a_quorum() {
        let expected = ids(0..5);
        assert!(!has_quorum(
            &Strategy::Majority,
            Electorate::Members,
            &expected,
            &ids([0, 1, 7, 8, 9])
        ));
    }

    #[test]
    fn a_peer_counts_only_if_it_hears_this_node() {
        let (one, two) = (ids([1]), ids([2]));
        let heard = BTreeMap::from([("n2", &one), ("n3", &two)]);
        assert_eq!(two_way("n1", "n1", &heard), ids([1, 2]));
        assert_eq!(two_way("n1", "n1@7", &heard), ids([1]), "another life of it is heard");
    }

    #[test]
    fn a_status_must_last_before_it_is_reported() {
        let (mut partition, now) = (partition(), Instant::now());
        let expected = ids(0..5);
        let first = partition.observe(Electorate::Members, &expected, &expected, now);
        assert_eq!(first.status, Status::Healthy, "nothing was known before");
        let cut = |partition: &mut Partition, ms| {
            partition.observe(Electorate::Members, &expected, &ids([0, 1]), now + ms * MS)
        };
        let at_once = cut(&mut partition, 100);
        assert_eq!((at_once.status, at_once.has_quorum), (Status::Suspect, false));
        assert_eq!(cut(&mut partition, 2000).status, Status::Suspect);
        let settled = cut(&mut partition, 2100);
        assert_eq!((settled.status, settled.reachable), (Status::Minority, 2));
        assert_eq!(settled.changed.unwrap().others, ids([2, 3, 4]));
        let healed = partition.observe(Electorate::Members, &expected, &expected, now + 2200 * MS);
        assert_eq!((healed.status, healed.has_quorum), (Status::Suspect, true));
        let healed = partition.observe(Electorate::Members, &expected, &expected, now + 4200 * MS);
        assert_eq!(healed.status, Status::Healthy);
    }

    #[test]
    fn a_short_change_is_not_reported() {
        let (mut partition, now) = (partition(), Instant::now());
        let expected = ids(0..3);
        for ms in (0..60_000).step_by(1000) {
            let reachable = if ms % 2000 == 0 { ids(0..3) } else { ids([0, 1]) };
            let standing =
                partition.observe(Electorate::Members, &expected, &reachable, now + ms * MS);
            assert_eq!(standing.changed.is_some(), ms == 0, "{ms}");
        }
    }

    #[test]
    fn a_status_begins_anew_where_another_was_between() {
        let (mut partition, now) = (partition(), Instant::now());
        let expected = ids(0..5);
        let mut observe = |reachable: std::ops::Range<usize>, ms| {
            let reachable = ids(reachable);
            partition.observe(Electorate::Members, &expected, &reachable, now + ms * MS).status
        };
        assert_eq!(observe(0..5, 0), Status::Healthy);
        assert_eq!(observe(0..4, 100), Status::Suspect);
        assert_eq!(observe(0..2, 1500), Status::Suspect);
        assert_eq!(observe(0..2, 3499), Status::Suspect, "not for 2 s yet");
        assert_eq!(observe(0..2, 3500), Status::Minority);
    }

    #[test]
    fn a_node_that_is_no_member_has_an_unknown_status() {
        let (mut partition, now) = (partition(), Instant::now());
        let standing = partition.observe(Electorate::Members, &ids([2, 3]), &ids([1, 2, 3]), now);
        assert_eq!((standing.status, standing.has_quorum), (Status::Unknown, false));
    }
}
