//! What happens in a cluster, in order.

use std::{collections::BTreeMap, net::SocketAddr};
use tokio::sync::broadcast::{self, error::RecvError};

/// A change that this node has noticed; nodes are named by their ids.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The node is heard for the first time, or for the first time since it left or restarted.
    NodeJoined {
        /// Its id.
        node: String,
    },
    /// The node is suspected: its heartbeat is late.
    NodeSuspected {
        /// Its id.
        node: String,
        /// How certain it is that the node is gone.
        phi: f64,
    },
    /// The node is convicted: taken to be gone. It still counts as a member.
    NodeFailed {
        /// Its id.
        node: String,
    },
    /// The node was suspected or had failed, and is heard again.
    NodeRecovered {
        /// Its id.
        node: String,
    },
    /// The node has left, an operator has forgotten it, or the expected number of nodes is
    /// reachable without it.
    NodeLeft {
        /// Its id.
        node: String,
    },
    /// The node is silent and another node lives at its address, so it is expected no more.
    NodeReplaced {
        /// Its id.
        node: String,
        /// The id of the other node.
        by: String,
    },
    /// Another live node uses the id of this one.
    DuplicateId {
        /// The address at which the other receives gossip, if known.
        address: Option<SocketAddr>,
        /// Whether the other was there first; then this node takes no part until it is gone.
        refused: bool,
    },
    /// The tags of the node have changed.
    TagsUpdated {
        /// Its id.
        node: String,
        /// All its tags now.
        tags: BTreeMap<String, String>,
    },
    /// Some expected members and this node have not heard each other for `stable_after`; sent again
    /// when other members are missing. A crash looks the same to this node.
    PartitionDetected {
        /// The members that may not accept writes.
        minority: Vec<String>,
        /// The members that may accept writes, as far as this node knows.
        majority: Vec<String>,
    },
    /// All expected members are reachable again.
    PartitionHealed,
    /// The subscriber was too slow: this many events were dropped here.
    Dropped(u64),
}

/// A subscription to the events of a cluster, from its creation. It buffers 1,024 events (RpcNet:
/// 1,000), then drops the oldest and reports that ([`Event::Dropped`]).
#[derive(Debug)]
pub struct Events(broadcast::Receiver<Event>);

/// How many events a subscription holds.
pub(crate) const HELD: usize = 1024;

// === impl Events ===

impl Events {
    pub(crate) fn of(sender: &broadcast::Sender<Event>) -> Self {
        Self(sender.subscribe())
    }

    /// The next event, when it happens; `None` when the [`Cluster`](crate::Cluster)
    /// was dropped.
    pub async fn next(&mut self) -> Option<Event> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            Err(RecvError::Lagged(dropped)) => Some(Event::Dropped(dropped)),
            Err(RecvError::Closed) => None,
        }
    }

    /// The next event for which `is_it` returns true; those before it are skipped. `None` when
    /// there will be no more.
    pub async fn wait_for(&mut self, mut is_it: impl FnMut(&Event) -> bool) -> Option<Event> {
        loop {
            let event = self.next().await?;
            if is_it(&event) {
                return Some(event);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_subscriber_learns_how_many_events_it_missed() {
        let (sender, _) = broadcast::channel(HELD);
        let mut events = Events::of(&sender);
        for _ in 0..HELD + 7 {
            sender.send(Event::PartitionHealed).unwrap();
        }
        assert_eq!(events.next().await, Some(Event::Dropped(7)));
        for _ in 0..HELD {
            assert_eq!(events.next().await, Some(Event::PartitionHealed));
        }
        drop(sender);
        assert_eq!(events.next().await, None);
    }

    #[tokio::test]
    async fn waiting_for_an_event_skips_the_others() {
        let (sender, _) = broadcast::channel(HELD);
        let mut events = Events::of(&sender);
        let failed = Event::NodeFailed { node: "n1".into() };
        for event in [Event::PartitionHealed, failed.clone()] {
            sender.send(event).unwrap();
        }
        drop(sender);
        assert_eq!(events.wait_for(|event| *event == failed).await, Some(failed));
        assert_eq!(events.wait_for(|_| false).await, None);
    }
}
