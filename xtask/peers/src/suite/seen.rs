//! What was seen while a script ran.

use super::{call::Outcome, script::Script};
use http::HeaderMap;
use serde_json::{Value as Json, json};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;

/// What client and servers have seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub attempts: Vec<Attempt>,
    pub connections: u64,
    pub pings: u64,
    /// By call, in the order in which they were begun.
    pub outcomes: Vec<Outcome>,
}

/// A request that a server has got.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub server: usize,
    pub at: Instant,
    pub path: String,
    pub authority: Option<String>,
    pub headers: HeaderMap,
    pub body_bytes: usize,
    /// Whether it was read to its end.
    pub is_complete: bool,
    /// Whether the client has reset it.
    pub is_reset: bool,
}

// === impl Seen ===

impl Seen {
    pub fn codes(&self) -> Vec<i64> {
        self.outcomes.iter().map(|outcome| outcome.code).collect()
    }

    /// How many attempts each server has got.
    pub fn per_server(&self, script: &Script) -> Vec<u64> {
        let mut counts = BTreeMap::<usize, u64>::new();
        for attempt in &self.attempts {
            *counts.entry(attempt.server).or_default() += 1;
        }
        let count = |server| counts.get(&server).copied().unwrap_or(0);
        (0..script.servers.len()).map(count).collect()
    }

    /// All of it, for a report.
    pub fn json(&self) -> Json {
        let first = self.attempts.first().map(|attempt| attempt.at);
        let attempts = self.attempts.iter().map(|attempt| {
            json!({
                "server": attempt.server + 1,
                "at_ms": first.map(|first| (attempt.at - first).as_millis() as u64),
                "path": attempt.path,
                "previous": attempt.header("grpc-previous-rpc-attempts"),
                "timeout": attempt.header("grpc-timeout"),
                "body_bytes": attempt.body_bytes,
                "complete": attempt.is_complete,
                "reset": attempt.is_reset,
            })
        });
        json!({
            "calls": self.outcomes,
            "attempts": attempts.collect::<Vec<_>>(),
            "connections": self.connections,
            "pings": self.pings,
        })
    }

    /// From each arrival to the next.
    pub fn gaps(&self) -> Vec<Duration> {
        self.attempts.windows(2).map(|two| two[1].at - two[0].at).collect()
    }
}

// === impl Attempt ===

impl Attempt {
    pub fn header(&self, name: &str) -> Option<String> {
        let value = match name {
            ":host" => return Some(self.authority.as_ref()?.rsplit_once(':')?.0.to_owned()),
            name => self.headers.get(name)?,
        };
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    }

    /// What it says that remains, in milliseconds.
    pub fn told_ms(&self) -> Option<u64> {
        let text = self.header("grpc-timeout")?;
        let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let number: u64 = number.parse().ok()?;
        Some(match unit {
            "H" => number * 3_600_000,
            "M" => number * 60_000,
            "S" => number * 1000,
            "m" => number,
            "u" => number / 1000,
            "n" => number / 1_000_000,
            _ => return None,
        })
    }
}
