//! What happens in a cluster, in its order.

use std::{collections::BTreeMap, net::SocketAddr};
use tokio::sync::broadcast::{self, error::RecvError};

/// What this node has noticed; nodes are named by their ids.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// It is heard for the first time, or for the first time since it left or was restarted.
    NodeJoined {
        /// Its id.
        node: String,
    },
    /// It is late.
    NodeSuspected {
        /// Its id.
        node: String,
        /// How sure one can be that it is gone.
        phi: f64,
    },
    /// It is taken to be gone. It still counts as a member.
    NodeFailed {
        /// Its id.
        node: String,
    },
    /// It was suspected, or had failed, and is heard again.
    NodeRecovered {
        /// Its id.
        node: String,
    },
    /// It has left, an operator had it forgotten, or as many as are expected are there without it.
    NodeLeft {
        /// Its id.
        node: String,
    },
    /// It is silent, and another node lives at its address: it is expected no more.
    NodeReplaced {
        /// Its id.
        node: String,
        /// The other.
        by: String,
    },
    /// Another live node has the id of this one.
    DuplicateId {
        /// Where the other receives gossip, if that is known.
        address: Option<SocketAddr>,
        /// Whether the other was there before: then this one takes no part until it is gone.
        refused: bool,
    },
    /// Its tags have changed.
    TagsUpdated {
        /// Its id.
        node: String,
        /// All that it has now.
        tags: BTreeMap<String, String>,
    },
    /// Some expected members and this node do not hear each other, for `stable_after`; sent again
    /// when they are others. A crash looks the same from here.
    PartitionDetected {
        /// The members that may not take writes.
        minority: Vec<String>,
        /// The members that may, as far as this node knows.
        majority: Vec<String>,
    },
    /// All expected members are reachable again.
    PartitionHealed,
    /// The subscriber was too slow for so many events, which stood here.
    Dropped(u64),
}

/// A subscription to the events of a cluster, from where it was made. It holds 1,024 of them (as
/// RpcNet's holds 1,000), then drops the oldest and says so ([`Event::Dropped`]).
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

    /// The next event that `is_it` says yes to; those before it are skipped. `None` when there
    /// will be no more.
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
    async fn a_slow_subscriber_is_told_how_much_it_missed() {
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
    async fn whoever_waits_for_an_event_skips_the_others() {
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
