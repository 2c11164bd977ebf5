//! The lines that go to a client and come back.

use super::script::{Call, Settings};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// A call to be made: a line on the client's standard input.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Task {
    pub id: u64,
    /// Calls of one name use one channel. A new name closes the one before.
    pub channel: String,
    /// Where the servers are: `127.0.0.1:4000`, `localhost:4000` or `unix:///path`.
    pub addresses: Vec<String>,
    pub config: Option<Json>,
    pub settings: Settings,
    /// The path of the method: `/calculator.Calculator/Add`.
    pub path: String,
    pub call: Call,
}

/// How it ended: a line on the client's standard output.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Outcome {
    pub id: u64,
    pub code: i64,
    #[serde(default)]
    pub message: String,
    /// `grpc-status-details-bin`, as text.
    #[serde(default)]
    pub details: String,
    /// How many messages came.
    #[serde(default)]
    pub messages: usize,
    pub took_ms: f64,
}
