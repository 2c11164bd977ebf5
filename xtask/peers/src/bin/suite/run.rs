//! All scripts, with one client.

use crate::Entry;
use cinchona_peers::suite::{self, Hello, Script, judge, measured};
use serde_json::Value as Json;
use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};
use tokio::{process::Command, task::JoinSet};

/// A client, and what starts it.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) name: String,
    pub(crate) command: Vec<String>,
}

/// What became of all scripts with one client.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) version: String,
    /// By the script's id.
    pub(crate) cells: BTreeMap<String, Cell>,
}

/// What became of a script.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) verdict: Verdict,
    /// What was measured, or what cannot be.
    pub(crate) said: String,
    pub(crate) wrong: Vec<String>,
    /// All that was seen.
    pub(crate) seen: Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Right,
    Wrong,
    Cannot,
}

/// What the workers of a client share.
struct Work {
    client: Client,
    entries: Vec<Entry>,
    next: AtomicUsize,
    cells: Mutex<BTreeMap<String, Cell>>,
}

/// Runs all scripts, so many at a time, each with a process that runs nothing else meanwhile.
pub(crate) async fn all(
    client: &Client,
    entries: &[Entry],
    processes: usize,
) -> Result<Column, io::Error> {
    let mut entries = entries.to_vec();
    // What takes long begins first.
    entries.sort_by_key(|entry| !entry.script.slow);
    let hello = client.start().await?.hello;
    let (next, cells) = (AtomicUsize::new(0), Mutex::default());
    let work = Arc::new(Work { client: client.clone(), entries, next, cells });
    let mut workers = JoinSet::new();
    for _ in 0..processes {
        workers.spawn(worker(work.clone()));
    }
    while let Some(worker) = workers.join_next().await {
        worker.map_err(io::Error::other)??;
    }
    let cells = work.cells.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(Column { name: client.name.clone(), version: hello.version, cells })
}

async fn worker(work: Arc<Work>) -> io::Result<()> {
    let mut running: Option<suite::Client> = None;
    while let Some(entry) = work.entries.get(work.next.fetch_add(1, Relaxed)) {
        let client = match running.take() {
            Some(client) => client,
            None => work.client.start().await?,
        };
        let script = &entry.script;
        let cell = match Cell::unable(script, &client.hello) {
            Some(cell) => {
                running = Some(client);
                cell
            }
            None => match suite::run(script, &client).await {
                Ok(seen) => {
                    // One that hangs once is not asked again.
                    if !seen.codes().contains(&-1) {
                        running = Some(client);
                    }
                    let says_number =
                        running.as_ref().is_none_or(|client| client.hello.can("previous"));
                    let wrong = judge(script, &seen, says_number);
                    let verdict = if wrong.is_empty() { Verdict::Right } else { Verdict::Wrong };
                    Cell { verdict, said: measured(script, &seen), wrong, seen: seen.json() }
                }
                Err(why) => {
                    let said = format!("{why}; {}", client.end().await);
                    let wrong = vec![said.clone()];
                    Cell { verdict: Verdict::Wrong, wrong, said, seen: Json::Null }
                }
            },
        };
        let mut cells = work.cells.lock().unwrap_or_else(PoisonError::into_inner);
        cells.insert(script.id.clone(), cell);
    }
    Ok(())
}

// === impl Client ===

impl Client {
    async fn start(&self) -> io::Result<suite::Client> {
        let [program, args @ ..] = &self.command[..] else {
            return Err(io::Error::other(format!("{} has no command", self.name)));
        };
        let mut command = Command::new(program);
        command.args(args);
        let started = suite::Client::start(command).await;
        started.map_err(|error| io::Error::other(format!("{}: {error}", self.name)))
    }
}

// === impl Cell ===

impl Cell {
    /// Where the client is not asked: it has no such thing.
    fn unable(script: &Script, hello: &Hello) -> Option<Self> {
        let missing: Vec<_> =
            script.needs.iter().filter(|need| !hello.can(need)).map(String::as_str).collect();
        let said = match script.spare.get(&hello.client) {
            Some(why) => why.clone(),
            None if missing.is_empty() => return None,
            None => format!("has no {}", missing.join(", ")),
        };
        Some(Self { verdict: Verdict::Cannot, said, wrong: Vec::new(), seen: Json::Null })
    }
}
