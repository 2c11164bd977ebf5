//! Whether the others are silent, or this node does not hear.

use crate::clock::later;
use std::time::Duration;
use tokio::time::Instant;

/// When this node last heard any other.
#[derive(Debug)]
pub struct Hearing {
    /// After a gap that is longer than this it has to hear for as long again before it can miss a
    /// node.
    gap: Duration,
    last: Option<Instant>,
    /// Since when there was no gap.
    since: Option<Instant>,
}

// === impl Hearing ===

impl Hearing {
    /// Nodes send a heartbeat that often, and may be silent for so much longer.
    pub fn new(heartbeat: Duration, acceptable_pause: Duration) -> Self {
        let gap = heartbeat.saturating_mul(3).saturating_add(acceptable_pause);
        Self { gap, last: None, since: None }
    }

    /// Any node was heard.
    pub fn heard(&mut self, now: Instant) {
        let silent = self.last.map(|last| now.saturating_duration_since(last));
        if silent.is_none_or(|silent| silent > self.gap) {
            self.since = Some(now);
        }
        self.last = Some(now);
    }

    /// Whether a node convicted then is missed: others were heard after that, for as long as it
    /// takes to hear all live ones.
    pub fn proves(&self, failed_at: Instant) -> bool {
        let heard_all = self.since.map(|since| later(since, self.gap));
        let last = self.last.filter(|last| *last > failed_at);
        last.zip(heard_all).is_some_and(|(last, heard_all)| last >= heard_all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_node_that_hears_no_other_or_has_just_begun_to_hear_misses_no_node() {
        let mut hearing = Hearing::new(200 * MS, 800 * MS);
        let start = Instant::now();
        let heard = |hearing: &mut Hearing, from: u32, to: u32| {
            (from..=to).step_by(200).for_each(|ms| hearing.heard(start + ms * MS));
        };
        heard(&mut hearing, 0, 10_000);
        let failed_at = start + 11_500 * MS;
        assert!(!hearing.proves(failed_at), "no node was heard since");
        heard(&mut hearing, 60_000, 61_200);
        assert!(!hearing.proves(failed_at), "the others have had no time");
        heard(&mut hearing, 61_400, 61_600);
        assert!(hearing.proves(failed_at));
        assert!(!hearing.proves(start + 61_600 * MS));
        heard(&mut hearing, 61_800, 61_800);
        assert!(hearing.proves(start + 61_600 * MS), "others go on");
        // Three heartbeats and the pause that is acceptable are no gap.
        heard(&mut hearing, 63_200, 63_200);
        assert!(hearing.proves(start + 61_800 * MS));
        hearing.heard(start + 64_601 * MS);
        assert!(!hearing.proves(start + 63_200 * MS), "a gap");
    }
}
