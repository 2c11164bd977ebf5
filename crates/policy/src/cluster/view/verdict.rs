//! Whether this node may accept writes, and if not, why.

use super::state::{Resync, View};
use crate::{
    clock::later,
    cluster::{
        Event, Permission, Twin,
        partition::{Electorate, Standing, Status},
    },
};
use std::fmt::Write;
use tokio::time::Instant;

/// The most names in a message.
const MOST_NAMED: usize = 8;

// === impl View ===

impl<A: PartialEq> View<A> {
    /// Whether an earlier node with this node's id lives.
    pub(super) fn is_refused(&self) -> bool {
        self.external.twin.is_some_and(|twin| twin.is_earlier)
    }

    /// Reports each appearance of a second node with this id once.
    pub(super) fn meet_twin(&self, twin: Option<Twin>) -> Option<Event> {
        let before = self.external.twin.map(|twin| twin.is_earlier);
        let Twin { address, is_earlier: refused } = twin?;
        (before != Some(refused)).then_some(Event::DuplicateId { address, refused })
    }

    /// A node that has lost the quorum for a moment may have missed writes.
    pub(super) fn advance_resync(&mut self, has_quorum: bool, may_write: bool) -> Option<u64> {
        if !has_quorum && !matches!(self.resync, Resync::Needed(_)) {
            self.require_resync();
        }
        let Resync::Needed(number) = self.resync else { return None };
        if may_write {
            self.resync = Resync::Running(number);
        }
        may_write.then_some(number)
    }

    /// Writes wait for another resync.
    pub const fn require_resync(&mut self) {
        let (Resync::Needed(number) | Resync::Running(number) | Resync::Done(number)) = self.resync;
        self.resync = Resync::Needed(number + 1);
    }

    /// The resync of this number has ended. It does not count if the quorum was lost meanwhile.
    pub fn resynced(&mut self, number: u64, succeeded: bool) {
        if self.resync == Resync::Running(number) {
            let next = if succeeded { Resync::Done } else { Resync::Needed };
            self.resync = next(number);
        }
    }

    pub(super) fn permission(
        &self,
        standing: &Standing,
        may_write: bool,
        now: Instant,
    ) -> Permission {
        if may_write && matches!(self.resync, Resync::Done(_)) {
            return Permission::granted(later(now, self.settings.reachable_within));
        }
        Permission::refused(match (standing.status, standing.has_quorum) {
            _ if self.is_refused() => self.duplicate().into(),
            _ if self.external.expected == Some(0) => {
                "the number of nodes to expect is not known yet".into()
            }
            (Status::Unknown, _) => self.no_member(standing).into(),
            (_, false) => self.too_few(standing).into(),
            (_, true) if !may_write => "the cluster is healing".into(),
            (_, true) => "the resync has not finished".into(),
        })
    }

    fn duplicate(&self) -> String {
        let address = self.external.twin.and_then(|twin| twin.address);
        let at = address.map(|address| format!(" at {address}")).unwrap_or_default();
        format!(
            "an earlier node{at} has the id {} and lives: this one is refused",
            self.settings.node_id
        )
    }

    fn no_member(&self, standing: &Standing) -> String {
        if self.members.is_founded() {
            return format!("this node is no member yet, and {}", self.too_few(standing));
        }
        let heard = self.reachable.len();
        let needed = match self.electorate_of(standing) {
            Electorate::Count(of) => of / 2 + 1,
            Electorate::Members => self.members.founders(),
        };
        let heard_ones = names(self.reachable.iter());
        format!(
            "too few nodes were heard to form a cluster: {heard} of the {needed} that it takes \
             ({heard_ones})"
        )
    }

    fn electorate_of(&self, standing: &Standing) -> Electorate {
        let counts = self.external.expected.is_some();
        if counts { Electorate::Count(standing.expected) } else { Electorate::Members }
    }

    fn too_few(&self, standing: &Standing) -> String {
        let Standing { reachable, expected, .. } = standing;
        let mut said = format!("{reachable} of {expected} nodes are reachable");
        let missing: Vec<_> = self.members.all().difference(&self.reachable).collect();
        if !missing.is_empty() {
            let missing = names(missing.into_iter());
            // Writing to a string does not fail.
            let _ = write!(said, "; missing: {missing}");
        }
        said
    }
}

/// The first names, and how many more there are.
fn names<'a>(all: impl ExactSizeIterator<Item = &'a String>) -> String {
    let more = all.len().saturating_sub(MOST_NAMED);
    let first: Vec<_> = all.take(MOST_NAMED).map(String::as_str).collect();
    let first = first.join(", ");
    if more == 0 { first } else { format!("{first} and {more} more") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_a_few_and_counts_the_others() {
        let all: Vec<String> = (0..10).map(|n| format!("n{n}")).collect();
        assert_eq!(names(all[..2].iter()), "n0, n1");
        assert_eq!(names(all.iter()), "n0, n1, n2, n3, n4, n5, n6, n7 and 2 more");
    }
}
