//! What happens in a cluster, in order.

use crate::Event;
use tokio::sync::broadcast::{self, error::RecvError};

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
