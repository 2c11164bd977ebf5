//! The events of a dashboard: each change of a condition.

use cinchona::{
    cluster::{Cluster, Event},
    dashboard::Feed,
};
use std::{collections::BTreeMap, time::Duration};
use tokio::{
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

/// A thing, and the state that it is in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Condition {
    /// Such as `breaker server-1`.
    pub what: String,
    /// Such as `open`.
    pub how: String,
}

/// How often conditions are read; a shorter change may be missed.
const LOOK: Duration = Duration::from_millis(100);

// === impl Condition ===

impl Condition {
    /// `what` is in state `how`.
    pub fn new(what: impl Into<String>, how: impl Into<String>) -> Self {
        Self { what: what.into(), how: how.into() }
    }
}

/// Adds an event to `feed` when a condition changes, comes or goes, until the task is ended.
pub fn follow(
    feed: Feed,
    conditions: impl Fn() -> Vec<Condition> + Send + 'static,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut known = BTreeMap::new();
        loop {
            looks.tick().await;
            let now = conditions().into_iter().map(|now| (now.what, now.how)).collect();
            changes(&known, &now).into_iter().for_each(|line| feed.push(line));
            known = now;
        }
    })
}

/// Adds the events of the cluster to `feed`, until the task is ended.
pub fn follow_cluster(feed: Feed, cluster: &Cluster) -> JoinHandle<()> {
    let mut events = cluster.events();
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            if let Some(line) = said(&event) {
                feed.push(line);
            }
        }
    })
}

fn changes(before: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Vec<String> {
    let gone = before.keys().filter(|what| !now.contains_key(*what));
    let gone = gone.map(|what| format!("{what}: gone"));
    let changed = now.iter().filter_map(|(what, how)| match before.get(what) {
        Some(old) if old == how => None,
        Some(old) => Some(format!("{what}: {how}, was {old}")),
        None => Some(format!("{what}: {how}")),
    });
    gone.chain(changed).collect()
}

/// An event in words; none for one that the page need not show.
fn said(event: &Event) -> Option<String> {
    Some(match event {
        Event::NodeJoined { node } => format!("node {node}: joined"),
        Event::NodeSuspected { node, phi } => format!("node {node}: suspected, phi {phi:.1}"),
        Event::NodeFailed { node } => format!("node {node}: failed"),
        Event::NodeRecovered { node } => format!("node {node}: recovered"),
        Event::NodeLeft { node } => format!("node {node}: left"),
        Event::NodeReplaced { node, by } => format!("node {node}: replaced by {by}"),
        Event::DuplicateId { address, refused } => {
            let other = address.map(|address| format!(" at {address}")).unwrap_or_default();
            let which = if *refused { "this one takes no part" } else { "the other takes no part" };
            format!("cluster: another node{other} has the id of this one; {which}")
        }
        Event::PartitionDetected { minority, majority } => {
            let list = |nodes: &[String]| nodes.join(", ");
            let (minority, majority) = (list(minority), list(majority));
            format!("partition: minority {minority}; majority {majority}")
        }
        Event::PartitionHealed => "partition: healed".into(),
        Event::Dropped(count) => format!("cluster: {count} events were missed"),
        // Each node says its load each second.
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tokio::time::advance;

    #[test]
    fn what_comes_changes_and_goes_is_told_once() {
        let at = |pairs: &[(&str, &str)]| {
            let owned = |(what, how): &(&str, &str)| ((*what).into(), (*how).into());
            pairs.iter().map(owned).collect::<BTreeMap<String, String>>()
        };
        let (none, first) = (at(&[]), at(&[("breaker a", "closed"), ("endpoint a", "connected")]));
        assert_eq!(changes(&none, &first), ["breaker a: closed", "endpoint a: connected"]);
        assert!(changes(&first, &first).is_empty());
        let then = at(&[("breaker a", "open")]);
        assert_eq!(changes(&first, &then), ["endpoint a: gone", "breaker a: open, was closed"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_told_within_a_tenth_of_a_second() {
        let (feed, how) = (Feed::new(), Arc::new(Mutex::new("closed")));
        let seen = how.clone();
        let task =
            follow(feed.clone(), move || vec![Condition::new("breaker a", *seen.lock().unwrap())]);
        advance(LOOK).await;
        tokio::task::yield_now().await;
        assert_eq!(feed.len(), 1);
        *how.lock().unwrap() = "open";
        advance(LOOK).await;
        tokio::task::yield_now().await;
        assert_eq!(feed.len(), 2);
        task.abort();
    }

    #[test]
    fn the_load_that_nodes_tell_each_second_is_no_event() {
        let tags = Event::TagsUpdated { node: "a".into(), tags: BTreeMap::new() };
        assert_eq!(said(&tags), None);
        let suspected = Event::NodeSuspected { node: "a".into(), phi: 3.06 };
        assert_eq!(said(&suspected).as_deref(), Some("node a: suspected, phi 3.1"));
    }
}
