//! The feed: events as lines.

use serde::Serialize;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// How many lines are kept.
const LINES: usize = 200;

/// The last 200 events, one a line; clones share the feed.
///
/// A line is stamped with the time since the feed was created; the page shows it as the time of
/// day.
///
/// ```
/// let feed = cinchona_dashboard::Feed::new();
/// feed.push("breaker eu-1 opened");
/// assert_eq!(feed.len(), 1);
/// ```
#[derive(Clone, Debug)]
pub struct Feed(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    since: Instant,
    lines: Mutex<Lines>,
}

#[derive(Debug, Default)]
struct Lines {
    kept: VecDeque<Line>,
    /// How many lines there were, including those no longer kept.
    pushed: u64,
}

/// A line of the feed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Line {
    /// Its number, from 1.
    n: u64,
    /// Seconds since the feed was created.
    at: f64,
    text: String,
}

// === impl Feed ===

impl Feed {
    /// An empty feed.
    pub fn new() -> Self {
        Self(Arc::new(Inner { since: Instant::now(), lines: Mutex::default() }))
    }

    /// Adds a line, and drops the oldest beyond 200.
    pub fn push(&self, text: impl Into<String>) {
        let at = self.now().as_secs_f64();
        let mut lines = self.lines();
        lines.pushed += 1;
        let line = Line { n: lines.pushed, at, text: text.into() };
        lines.kept.push_back(line);
        if lines.kept.len() > LINES {
            lines.kept.pop_front();
        }
    }

    /// How many lines are kept.
    pub fn len(&self) -> usize {
        self.lines().kept.len()
    }

    /// Whether there is no line yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The time since it was created.
    pub(crate) fn now(&self) -> Duration {
        Instant::now().saturating_duration_since(self.0.since)
    }

    /// The lines after that number, and the number of the last.
    pub(crate) fn after(&self, n: u64) -> (Vec<Line>, u64) {
        let lines = self.lines();
        let new = lines.kept.iter().filter(|line| line.n > n).cloned().collect();
        (new, lines.pushed)
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Feed {
    /// An empty feed.
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_200_lines_are_kept_and_numbered_through() {
        let feed = Feed::new();
        (0..250).for_each(|n| feed.push(format!("line {n}")));
        let (lines, last) = feed.after(0);
        assert_eq!((lines.len(), lines[0].n, last), (200, 51, 250));
        assert_eq!(feed.after(249).0.len(), 1);
        assert!(feed.after(last).0.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_is_stamped_with_the_time_since_the_feed_was_created() {
        let feed = Feed::new();
        tokio::time::advance(Duration::from_millis(1500)).await;
        feed.push("late");
        assert_eq!(feed.after(0).0[0].at, 1.5);
    }
}
