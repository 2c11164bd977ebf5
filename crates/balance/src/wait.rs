//! The wait of a call for an endpoint, and its error.

use crate::{
    Picker, State,
    node::Node,
    set::{Known, Set, Source},
};
use cinchona_core::Rejected;
use cinchona_plumbing::clock::later;
use std::{
    fmt::Write as _,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::time::Instant;

/// How long a call waits for an endpoint that would recognise it.
const TO_BE_RECOGNISED: Duration = Duration::from_millis(1500);

/// How many endpoints an error describes.
const MOST_TOLD: usize = 3;

// === impl Set ===

impl Set {
    /// Until when a call that `began` then may wait for a change.
    ///
    /// # Errors
    /// Why it must not wait any longer.
    pub(crate) fn until(&self, began: Instant, now: Instant) -> Result<Instant, Rejected> {
        let (patience, grace) = (self.options.patience, self.options.grace());
        let choice = self.choice.get();
        let ready = || choice.nodes.iter().filter(|node| node.is_ready());
        let has_some = ready().any(|node| node.connection().is_some());
        // Its connection has just ended, or is being checked.
        let has_others = !has_some && ready().next().is_some();
        let failure = self.signals.failure();
        self.known(|known| {
            let outage = later(known.down_since.unwrap_or(began), patience);
            let until = match &known.source {
                Source::Gone => now,
                _ if has_some => later(began, TO_BE_RECOGNISED),
                Source::Looking if known.nodes.is_empty() && failure.is_none() => {
                    later(began, grace)
                }
                _ if has_others || self.stir.has_some_under_way() => later(began, grace),
                // The list may have changed in between, which makes another outage.
                _ => outage.min(later(began, grace)),
            };
            if now < until {
                return Ok(until);
            }
            let reason = match has_some && known.source != Source::Gone {
                true => "no endpoint would recognise this attempt".to_owned(),
                false => known.reason(failure.as_deref(), now),
            };
            Err(Rejected::new(reason, None))
        })
    }

    /// Whether another endpoint is being connected because the connected ones admit no calls:
    /// [`Picker::PickFirst`] has only one.
    pub(crate) fn has_more(&self) -> bool {
        if self.options.picker != Picker::PickFirst {
            return false;
        }
        let has_more = self.stir.has_some_under_way();
        if has_more {
            self.wants_more.store(true, Ordering::Relaxed);
            self.stir.stirs();
        }
        has_more
    }
}

// === impl Known ===

impl Known {
    /// Why no endpoint is usable.
    fn reason(&self, failure: Option<&str>, now: Instant) -> String {
        match &self.source {
            Source::Gone => {
                return "the task that connects endpoints is gone, with its runtime".to_owned();
            }
            Source::Ended(Some(panic)) if self.nodes.is_empty() => {
                return format!("there are no endpoints: their source has failed: {panic}");
            }
            _ => {}
        }
        if self.nodes.is_empty() {
            let why = failure.or(self.refused.first().map(String::as_str));
            let why = why.map(|why| format!(": {why}")).unwrap_or_default();
            return match self.source {
                Source::Looking => format!("no endpoints have been found yet{why}"),
                _ => format!("there are no endpoints{why}"),
            };
        }
        let ejected = self.nodes.iter().filter(|node| node.is_ready()).count();
        let count = self.nodes.len();
        let is_down = |node: &Arc<Node>| node.state() == State::TransientFailure;
        let mut text = match count {
            _ if ejected > 0 => format!("{ejected} of {count} endpoints are ejected"),
            1 if self.nodes.iter().all(is_down) => "the endpoint is down".to_owned(),
            _ if self.nodes.iter().all(is_down) => format!("all {count} endpoints are down"),
            1 => "the endpoint is not connected".to_owned(),
            _ => format!("none of {count} endpoints is connected"),
        };
        for (n, node) in self.nodes.iter().take(MOST_TOLD).enumerate() {
            _ = write!(text, "{}{}", if n == 0 { ": " } else { "; " }, described(node, now));
        }
        if count > MOST_TOLD {
            text.push_str("; ...");
        }
        text
    }
}

/// The fault of an endpoint, and since when.
fn described(node: &Node, now: Instant) -> String {
    let name = node.name();
    match node.trouble() {
        Some(trouble) => {
            let since = now.saturating_duration_since(trouble.since);
            format!("{name}: {} ({since:.1?} ago)", trouble.error)
        }
        None if node.is_ready() => format!("{name}: ejected"),
        None => format!("{name}: is being connected"),
    }
}
