//! Which members are expected, and which of them are reachable.

use super::{peer::Peer, state::View};
use crate::cluster::{
    Event, Seen,
    facts::{self, HEARS},
    partition::{self, Electorate},
    suspicion::State,
};
use std::collections::{BTreeMap, BTreeSet};
use tokio::time::Instant;

// === impl View ===

impl<A: PartialEq> View<A> {
    /// The expected members, the reachable ones, and whose votes make a majority.
    pub(super) fn count(
        &mut self,
        seen: &[Seen<A>],
        events: &mut Vec<Event>,
        now: Instant,
    ) -> Electorate {
        self.take_leave(seen, events);
        self.replace(seen, events);
        self.reach(now);
        self.take_over(now);
        let electorate = self.electorate();
        if !self.settings.observer && !self.is_refused() {
            self.admit(electorate, events);
        }
        electorate
    }

    /// Takes in the nodes that others know to be gone.
    fn take_leave(&mut self, seen: &[Seen<A>], events: &mut Vec<Event>) {
        let gone = seen.iter().flat_map(|seen| seen.facts.gone.iter());
        for (id, generation) in gone.filter_map(|life| facts::of_life(life)) {
            let is_own = id == self.settings.node_id;
            let known = match is_own {
                true => Some(self.settings.generation),
                false => self.heartbeats.get(id).map(|(generation, _)| *generation),
            };
            // A node that is not known yet cannot be gone: the claim cannot be checked.
            let is_known = known.is_some() || self.members.all().contains(id);
            let is_it = known.is_none_or(|known| known == generation);
            if is_known && is_it && self.members.remove(id, generation) {
                // This may be the node itself, which then is no member any more.
                if self.depart(id, generation) {
                    events.push(Event::NodeLeft { node: id.to_owned() });
                }
            }
        }
    }

    /// A silent node gives way to the one that lives, or lived, at its address after it.
    fn replace(&mut self, seen: &[Seen<A>], events: &mut Vec<Event>) {
        let silent = self.peers.iter().filter(|(_, peer)| peer.state() == State::Failed);
        let replaced = silent.filter_map(|(id, peer)| {
            let by = self.heir(peer).or_else(|| self.successor(peer))?;
            Some((id.clone(), peer.generation, by.to_owned()))
        });
        // A silent member that another heard node has replaced.
        let unheard = seen.iter().filter(|seen| {
            !self.peers.contains_key(&seen.id) && self.members.all().contains(&seen.id)
        });
        let taken = unheard.filter_map(|seen| {
            let is_it = |peer: &Peer<A>| peer.state() == State::Alive && peer.gossip == seen.gossip;
            let by = self.peers.iter().find(|(_, peer)| seen.gossip.is_some() && is_it(peer));
            Some((seen.id.clone(), seen.generation, by?.0.clone()))
        });
        for (node, generation, by) in replaced.chain(taken).collect::<Vec<_>>() {
            match self.peers.get(&by).is_some_and(|peer| peer.has_left) {
                true => self.members.remove(&node, generation),
                false => self.members.replace(&node, generation, &by),
            };
            self.depart(&node, generation);
            events.push(Event::NodeReplaced { node, by });
        }
    }

    /// The node that received gossip at the same address and outlived it, even if it is gone by
    /// now: two nodes cannot share the address at one time.
    fn heir(&self, gone: &Peer<A>) -> Option<&str> {
        let is_it = |peer: &Peer<A>| {
            let is_later = peer.met_at > gone.met_at && peer.heard_at > gone.heard_at;
            gone.gossip.is_some() && peer.gossip == gone.gossip && is_later
        };
        self.peers.iter().find(|(_, peer)| is_it(peer)).map(|(id, _)| id.as_str())
    }

    /// The node that serves at the same address. An address shared by several live nodes, such as
    /// that of a proxy, identifies none.
    fn successor(&self, gone: &Peer<A>) -> Option<&str> {
        let serves = gone.facts.address.as_ref()?;
        let lives_there = |peer: &Peer<A>| {
            peer.state() == State::Alive && peer.facts.address.as_ref() == Some(serves)
        };
        let mut there = self.peers.iter().filter(|(_, peer)| lives_there(peer));
        let (id, peer) = there.next()?;
        let is_shared = self.settings.address.as_ref() == Some(serves) || there.next().is_some();
        (!is_shared && peer.met_at > gone.heard_at).then_some(id.as_str())
    }

    /// The nodes that this node hears, and that hear it.
    fn reach(&mut self, now: Instant) {
        let within = self.settings.reachable_within;
        let is_fresh = |peer: &Peer<A>| {
            let age = peer.beat_at.map(|at| now.saturating_duration_since(at));
            !peer.has_left && age.is_some_and(|age| age <= within)
        };
        let fresh = || self.peers.iter().filter(|(_, peer)| is_fresh(peer));
        let heard: BTreeMap<_, _> =
            fresh().map(|(id, peer)| (id.as_str(), &**peer.facts.hears)).collect();
        let own = self.settings.node_id.as_str();
        let reachable = match self.settings.observer {
            // No node lists an observer as heard.
            true => heard.keys().map(|id| (*id).to_owned()).collect(),
            false => partition::two_way(own, &facts::life(own, self.settings.generation), &heard),
        };
        let lives: Vec<_> = fresh().map(|(id, peer)| facts::life(id, peer.generation)).collect();
        self.reachable = reachable;
        self.stage(HEARS, facts::list(lives.iter().map(String::as_str)));
    }

    /// Adopts the members that reachable nodes expect: a heard one immediately, others when they
    /// have been named for some time. A forged name is refuted by then.
    fn take_over(&mut self, now: Instant) {
        let mut named = BTreeSet::new();
        let is_founded = self.members.is_founded();
        let mut at_once = BTreeSet::new();
        let gone = self.members.gone_count();
        let is_heard = |peer: &Peer<A>| !peer.has_left;
        for (_, peer) in self.peers.iter().filter(|(id, _)| self.reachable.contains(*id)) {
            let list = &peer.facts.members;
            if peer.has_adopted(gone) {
                continue;
            }
            let new = list.iter().filter(|id| self.is_to_take_over(id));
            let (heard, others): (Vec<_>, Vec<_>) =
                new.partition(|id| is_founded && self.peers.get(*id).is_some_and(is_heard));
            at_once.extend(heard.into_iter().cloned());
            named.extend(others.into_iter().cloned());
        }
        self.listed.retain(|id, _| named.contains(id));
        for id in named {
            let since = *self.listed.entry(id.clone()).or_insert(now);
            if now.saturating_duration_since(since) >= self.settings.reachable_within {
                at_once.insert(id);
            }
        }
        self.members.adopt(&at_once);
        // One that is not a member is gone, and may come back in another life.
        for (_, peer) in self.peers.iter_mut().filter(|(id, _)| self.reachable.contains(*id)) {
            let list = &peer.facts.members;
            let is_whole = || list.iter().all(|id| self.members.all().contains(id));
            if !peer.has_adopted(gone) && is_whole() {
                peer.adopted = Some((list.clone(), gone));
            }
        }
    }

    fn is_to_take_over(&self, id: &str) -> bool {
        let known = match id == self.settings.node_id {
            true => Some(self.settings.generation),
            false => self.heartbeats.get(id).map(|(generation, _)| *generation),
        };
        !self.members.all().contains(id) && !self.members.is_gone(id, known)
    }

    /// The expected number, or all live nodes where those are more.
    fn electorate(&self) -> Electorate {
        let Some(expected) = self.external.expected else { return Electorate::Members };
        let lives = |peer: &&Peer<A>| matches!(peer.state(), State::Alive | State::Suspected);
        let own = usize::from(!self.settings.observer);
        let alive = own + self.peers.values().filter(lives).count();
        Electorate::Count(match expected {
            0 => usize::MAX,
            expected => expected.max(alive),
        })
    }

    fn admit(&mut self, electorate: Electorate, events: &mut Vec<Event>) {
        let (strategy, members) = (&self.settings.strategy, self.members.all());
        let has_quorum = partition::has_quorum(strategy, electorate, members, &self.reachable);
        match (electorate, self.external.expected) {
            (Electorate::Count(_), Some(expected)) => {
                if has_quorum {
                    self.members.adopt(&self.reachable);
                }
                if has_quorum && self.reachable.len() >= expected {
                    self.drop_silent(events);
                }
            }
            _ => {
                let names_members =
                    |peer: &Peer<A>| peer.state() == State::Alive && !peer.facts.members.is_empty();
                let is_known = self.peers.values().any(names_members);
                self.members.admit(&self.reachable, has_quorum, is_known);
            }
        }
    }

    /// As many as are expected are reachable: a silent node was replaced.
    fn drop_silent(&mut self, events: &mut Vec<Event>) {
        let is_silent = |id: &&String| {
            let peer = self.peers.get(*id);
            peer.is_none_or(|peer| peer.state() == State::Failed) && !self.reachable.contains(*id)
        };
        let silent: Vec<_> = self.members.all().iter().filter(is_silent).cloned().collect();
        for node in silent {
            let peer = self.peers.get(&node).map(|peer| peer.generation);
            let known = self.heartbeats.get(&node).map(|(generation, _)| *generation);
            let generation = peer.or(known).unwrap_or_default();
            self.members.remove(&node, generation);
            self.depart(&node, generation);
            events.push(Event::NodeLeft { node });
        }
    }

    /// Removes a node from the expected members by an operator's decision, in its known life;
    /// `None` if it is not known or not expected.
    pub fn forget(&mut self, id: &str) -> Option<(Event, u64)> {
        let known = self.heartbeats.get(id).map(|(generation, _)| *generation);
        let is_member = self.members.all().contains(id);
        let generation = known.or(is_member.then_some(0))?;
        self.forget_life(id, generation).map(|event| (event, generation))
    }

    /// Removes this life of a node from the expected members.
    pub fn forget_life(&mut self, id: &str, generation: u64) -> Option<Event> {
        let is_own = id == self.settings.node_id;
        let known = self.heartbeats.get(id).map(|(generation, _)| *generation);
        let known = known.or(is_own.then_some(self.settings.generation));
        let is_known = known.is_some() || self.members.all().contains(id);
        let is_it = known.is_none_or(|known| known == generation);
        if !is_known || !is_it || !self.members.remove(id, generation) {
            return None;
        }
        self.depart(id, generation);
        Some(Event::NodeLeft { node: id.to_owned() })
    }
}
