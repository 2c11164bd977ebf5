//! A client as a process, and a script that is run with it.

use super::{
    call::{Outcome, Task},
    script::{Call, Script},
    seen::Seen,
    server::Serving,
};
use serde::Deserialize;
use std::{
    collections::HashMap,
    io,
    process::Stdio,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdout, Command},
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{sleep, timeout},
};

/// A client that makes the calls of scripts.
pub trait Caller {
    /// Makes a call, at once; why it could not, if the client is gone.
    fn call(&self, task: Task) -> impl Future<Output = Result<Outcome, String>> + Send + 'static;
}

/// A client that runs as a process.
#[derive(Debug)]
pub struct Client {
    child: Child,
    pub hello: Hello,
    lines: mpsc::UnboundedSender<String>,
    waiting: Arc<Mutex<Waiting>>,
}

/// The first line of a client.
#[derive(Clone, Debug, Deserialize)]
pub struct Hello {
    pub client: String,
    pub version: String,
    /// What it is able to do: `needs` of scripts.
    pub can: Vec<String>,
}

/// Who waits for which call. `None` once the process has ended.
type Waiting = Option<HashMap<u64, oneshot::Sender<Outcome>>>;

/// For how long a call that does not end is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// For how long servers are looked at after the last call.
const AFTER: Duration = Duration::from_millis(50);

/// Runs a script: what was seen, or why the client could not.
///
/// # Errors
/// When the client is gone, or no servers can be started.
pub async fn run(script: &Script, caller: &impl Caller) -> Result<Seen, String> {
    static SCRIPTS: AtomicU64 = AtomicU64::new(0);
    let serving = Serving::start(script).map_err(|error| error.to_string())?;
    let mut task = Task {
        id: 0,
        channel: format!("{}-{}", script.id, SCRIPTS.fetch_add(1, Relaxed)),
        addresses: serving.addresses.clone(),
        config: script.config.clone(),
        settings: script.client.clone(),
        path: String::new(),
        call: Call::default(),
    };
    let (mut running, mut outcomes) = (JoinSet::new(), Vec::new());
    serving.begin();
    for call in &script.calls {
        let mut mine = JoinSet::new();
        let group = if call.go_on { &mut running } else { &mut mine };
        for _ in 0..call.count() {
            sleep(Duration::from_millis(call.pause_ms)).await;
            task.id += 1;
            (task.path, task.call) = (call.path(), call.clone());
            group.spawn(ended(caller.call(task.clone()), task.id));
            while !call.at_once && !call.go_on && !group.is_empty() {
                outcomes.extend(next(group).await?);
            }
        }
        while let Some(outcome) = next(&mut mine).await? {
            outcomes.push(outcome);
        }
    }
    while let Some(outcome) = next(&mut running).await? {
        outcomes.push(outcome);
    }
    let is_late = script.expect.resets.is_some() || script.expect.complete.is_some();
    sleep(if is_late { 10 * AFTER } else { AFTER }).await;
    outcomes.sort_by_key(|outcome| outcome.id);
    Ok(Seen { outcomes, ..serving.seen() })
}

async fn next(set: &mut JoinSet<Result<Outcome, String>>) -> Result<Option<Outcome>, String> {
    match set.join_next().await {
        None => Ok(None),
        Some(Ok(outcome)) => outcome.map(Some),
        Some(Err(error)) => Err(error.to_string()),
    }
}

/// The outcome of a call, which is -1 if it does not end.
async fn ended(
    call: impl Future<Output = Result<Outcome, String>> + Send + 'static,
    id: u64,
) -> Result<Outcome, String> {
    timeout(PATIENCE, call).await.unwrap_or_else(|_| {
        let took_ms = PATIENCE.as_millis() as f64;
        let message = "it does not end".to_owned();
        Ok(Outcome { id, code: -1, message, details: String::new(), messages: 0, took_ms })
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hands on what the process says, until it ends.
async fn listen(mut said: BufReader<ChildStdout>, waiting: Arc<Mutex<Waiting>>) {
    let mut line = String::new();
    while matches!(said.read_line(&mut line).await, Ok(1..)) {
        if let Ok(outcome) = serde_json::from_str::<Outcome>(&line) {
            let sender = lock(&waiting).as_mut().and_then(|waiting| waiting.remove(&outcome.id));
            // Nobody waits for one that took too long.
            _ = sender.map(|sender| sender.send(outcome));
        }
        line.clear();
    }
    lock(&waiting).take();
}

// === impl Client ===

impl Client {
    /// Starts a client.
    ///
    /// # Errors
    /// When there is no such program, or it does not say who it is.
    pub async fn start(mut command: Command) -> io::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (Some(mut stdin), Some(stdout)) = (stdin, stdout) else {
            return Err(io::Error::other("it has no pipes"));
        };
        let (mut said, mut line) = (BufReader::new(stdout), String::new());
        said.read_line(&mut line).await?;
        let hello = serde_json::from_str(&line)
            .map_err(|error| io::Error::other(format!("its first line is {line:?}: {error}")))?;
        let waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        tokio::spawn(listen(said, waiting.clone()));
        let (lines, mut to_write) = mpsc::unbounded_channel::<String>();
        tokio::spawn(async move {
            while let Some(line) = to_write.recv().await {
                if stdin.write_all(line.as_bytes()).await.is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, hello, lines, waiting })
    }

    /// How the process ended, once it has.
    pub async fn end(mut self) -> String {
        let ended = timeout(Duration::from_secs(1), self.child.wait()).await;
        match ended {
            Ok(Ok(status)) => format!("its process ended: {status}"),
            _ => "its process says nothing more".to_owned(),
        }
    }
}

impl Caller for Client {
    fn call(&self, task: Task) -> impl Future<Output = Result<Outcome, String>> + Send + 'static {
        let (sender, receiver) = oneshot::channel();
        if let Some(waiting) = lock(&self.waiting).as_mut() {
            waiting.insert(task.id, sender);
        }
        // Where nobody writes any more, the receiver hears of it.
        _ = serde_json::to_string(&task).map(|line| self.lines.send(line + "\n"));
        async { receiver.await.map_err(|_| "the client is gone".to_owned()) }
    }
}

// === impl Hello ===

impl Hello {
    /// Whether it is able to do that.
    pub fn can(&self, need: &str) -> bool {
        self.can.iter().any(|can| can == need)
    }
}
