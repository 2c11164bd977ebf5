//! The connection, which is replaced when it fails.

use crate::{
    answer::{self, Failed, Meaning},
    pace::{Pace, SLOWEST},
    question::{Question, is_moving, probe},
    scripts::{Scripts, Source},
    sentinels::Named,
    servers::Servers,
};
use arc_swap::ArcSwapOption;
use cinchona_core::Rng;
use futures_util::future::join_all;
use redis::{FromRedisValue, RedisError, RedisResult, aio::MultiplexedConnection};
use std::{
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    runtime::Handle,
    select,
    sync::{Notify, watch},
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};

/// Sends requests to Redis over a connection that its own task makes, watches, and replaces.
#[derive(Debug)]
pub(crate) struct Link {
    inner: Arc<Inner>,
    task: Mutex<Option<Task>>,
}

struct Inner {
    servers: Servers,
    scripts: Scripts,
    /// The connection to the server of the keys' slot.
    key: Vec<u8>,
    live: ArcSwapOption<Live>,
    /// The node to which the slot is being moved, if any.
    heir: Mutex<Option<(String, MultiplexedConnection)>>,
    phase: watch::Sender<Phase>,
    /// The connection was abandoned, or a request had no answer over it.
    poke: Notify,
    number: AtomicU64,
    rng: Rng,
}

struct Live {
    connection: MultiplexedConnection,
    /// The server, if sentinels have named it.
    named: Option<Named>,
    number: u64,
}

#[derive(Clone, Debug)]
enum Phase {
    /// An attempt is in progress.
    Connecting,
    Up,
    /// The last attempt failed, with the cause.
    Down(Arc<str>),
}

/// Aborts with its owner.
#[derive(Debug)]
struct Task(JoinHandle<()>);

/// Has the connection checked, if it is dropped before the answer.
struct Waiting<'a> {
    inner: &'a Inner,
    is_answered: bool,
}

/// A connection, and what sentinels call the server.
type Connected = (MultiplexedConnection, Option<Named>);

/// How long an attempt may take, and how many may run concurrently.
const ATTEMPT: Duration = Duration::from_secs(2);
const AT_ONCE: usize = 8;
/// How often a connection is checked, and how long it may take to answer.
const EACH: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_millis(250);
/// The most servers to which one request is sent.
const MOST: usize = 8;

// === impl Link ===

impl Link {
    pub(crate) fn new(servers: Servers, key: Vec<u8>) -> Self {
        let inner = Inner {
            servers,
            scripts: Scripts::new(),
            key,
            live: ArcSwapOption::empty(),
            heir: Mutex::default(),
            phase: watch::Sender::new(Phase::Connecting),
            poke: Notify::new(),
            number: AtomicU64::new(0),
            rng: Rng::from_os(),
        };
        Self { inner: Arc::new(inner), task: Mutex::new(None) }
    }

    pub(crate) fn servers(&self) -> &Servers {
        &self.inner.servers
    }

    pub(crate) fn scripts(&self) -> &Scripts {
        &self.inner.scripts
    }

    /// How many connections were made.
    #[cfg(test)]
    pub(crate) fn number(&self) -> u64 {
        self.inner.number.load(Ordering::Relaxed)
    }

    /// Sends the request until `until`, and again where a server cannot serve it. `is_open` is set
    /// while the request may have been executed without an answer.
    ///
    /// # Errors
    /// Immediately if the last attempt to connect has failed.
    pub(crate) async fn ask<T: FromRedisValue>(
        &self,
        question: &Question<'_>,
        until: Instant,
        is_open: &AtomicBool,
    ) -> Result<T, Failed> {
        // The last refusal and how often; more informative than a timeout.
        let (mut tries, mut refused) = (0, None);
        loop {
            let live = match timeout_at(until, self.live()).await {
                Ok(Ok(live)) => live,
                Ok(Err(why)) => return Err(refused.unwrap_or_else(|| Failed::not_sent(&why))),
                Err(_) => {
                    return Err(refused.unwrap_or_else(|| Failed::not_sent("no answer in time")));
                }
            };
            is_open.store(true, Ordering::Relaxed);
            let Ok(answered) = timeout_at(until, self.inner.put(&live, question)).await else {
                return Err(Failed::late());
            };
            let error = match answered {
                Ok(value) => {
                    is_open.store(false, Ordering::Relaxed);
                    return Ok(value);
                }
                Err(error) => error,
            };
            let failed = Failed::of(&error);
            is_open.store(failed.meaning == Meaning::Open, Ordering::Relaxed);
            tries += 1;
            if failed.meaning != Meaning::Request {
                self.inner.leave(&live, &failed);
            }
            if failed.meaning != Meaning::NotHere || tries == MOST {
                return Err(failed);
            }
            refused = Some(failed);
        }
    }

    async fn live(&self) -> Result<Arc<Live>, Arc<str>> {
        if let Some(live) = self.inner.live.load_full() {
            return Ok(live);
        }
        let mut phase = self.inner.phase.subscribe();
        self.run();
        loop {
            match &*phase.borrow_and_update() {
                Phase::Down(why) => return Err(why.clone()),
                Phase::Connecting => {}
                Phase::Up => {
                    if let Some(live) = self.inner.live.load_full() {
                        return Ok(live);
                    }
                }
            }
            // The sender is in `self`.
            _ = phase.changed().await;
        }
    }

    /// Starts the task if it is not running: the runtime of the earlier one may be gone.
    fn run(&self) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.as_ref().is_none_or(|task| task.0.is_finished())
            && let Ok(runtime) = Handle::try_current()
        {
            *task = Some(Task(runtime.spawn(keep(self.inner.clone()))));
        }
    }
}

async fn keep(inner: Arc<Inner>) {
    let mut pace = Pace::new();
    loop {
        let (connection, named) = inner.connect(&mut pace).await;
        let number = inner.number.fetch_add(1, Ordering::Relaxed);
        let live = Arc::new(Live { connection, named, number });
        inner.live.store(Some(live.clone()));
        inner.phase.send_replace(Phase::Up);
        inner.watch(&live, &mut pace).await;
    }
}

// === impl Inner ===

impl Inner {
    async fn put<T: FromRedisValue>(&self, live: &Live, question: &Question<'_>) -> RedisResult<T> {
        let mut waiting = Waiting { inner: self, is_answered: false };
        let mut connection = live.connection.clone();
        let mut answer = question.command(false).query_async(&mut connection).await;
        if let (Err(error), Question::Script { .. }) = (&answer, question)
            && answer::is_unknown_script(error)
        {
            answer = question.command(true).query_async(&mut connection).await;
        }
        if let Err(error) = &answer
            && is_moving(error)
        {
            answer = self.put_there(error, question).await;
        }
        waiting.is_answered = true;
        answer
    }

    /// Sends the request to the node that takes over the slot and already has this key.
    async fn put_there<T: FromRedisValue>(
        &self,
        ask: &RedisError,
        question: &Question<'_>,
    ) -> RedisResult<T> {
        let node = ask.redirect_node().map(|(node, _)| node.to_owned());
        let known = self.heir.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut connection = match known {
            Some((name, connection)) if Some(&name) == node.as_ref() => connection,
            _ => {
                let node = node.ok_or_else(|| ask.clone())?;
                let connection = self.servers.node(&node).await?;
                let known = Some((node, connection.clone()));
                *self.heir.lock().unwrap_or_else(PoisonError::into_inner) = known;
                connection
            }
        };
        let mut both = redis::pipe();
        both.cmd("ASKING").ignore().add_command(question.command(true));
        let answer = both.query_async::<(T,)>(&mut connection).await;
        if answer.is_err() {
            *self.heir.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        answer.map(|(answer,)| answer)
    }

    /// Takes a connection out of use; requests in flight still get their answers.
    fn leave(&self, live: &Live, why: &Failed) {
        let current = self.live.load();
        if current.as_ref().is_none_or(|current| current.number != live.number) {
            return;
        }
        let left = self.live.compare_and_swap(&current, None);
        if left.as_ref().is_some_and(|left| left.number == live.number) {
            tracing::warn!(why = %why.why, "replacing a connection to Redis");
            self.phase.send_replace(Phase::Connecting);
            self.poke.notify_one();
        }
    }

    /// An attempt that hangs delays nothing: another begins beside it.
    async fn connect(self: &Arc<Self>, pace: &mut Pace) -> Connected {
        let mut attempts = JoinSet::new();
        let mut turn = self.number.load(Ordering::Relaxed) as usize;
        let mut begin = pin!(sleep_until(pace.next()));
        loop {
            select! {
                () = begin.as_mut(), if attempts.len() < AT_ONCE => {
                    attempts.spawn(self.clone().attempt(turn));
                    turn = turn.wrapping_add(1);
                    pace.step(&self.rng);
                    begin.as_mut().reset(Instant::now() + SLOWEST);
                }
                Some(ended) = attempts.join_next() => {
                    match ended {
                        Ok(Ok(Ok(connected))) => return connected,
                        Ok(Ok(Err(error))) => self.down(&answer::said(&error)),
                        Ok(Err(_)) => self.down("no answer in time"),
                        Err(_) => self.down("connecting has panicked"),
                    }
                    if attempts.is_empty() {
                        begin.as_mut().reset(pace.next());
                    }
                }
            }
        }
    }

    /// A connection to a server that accepts changes.
    async fn attempt(
        self: Arc<Self>,
        turn: usize,
    ) -> Result<RedisResult<Connected>, tokio::time::error::Elapsed> {
        timeout(ATTEMPT, async {
            let (connection, named) =
                self.servers.connect(turn, &self.scripts.probe, &self.key).await?;
            let load = |script: &Source| {
                let mut connection = connection.clone();
                let mut load = redis::cmd("SCRIPT");
                load.arg("LOAD").arg(script.text);
                // A script that is not loaded is sent in full when it is needed.
                async move { drop(load.query_async::<String>(&mut connection).await) }
            };
            join_all(self.scripts.all().map(load)).await;
            Ok((connection, named))
        })
        .await
    }

    fn down(&self, why: &str) {
        let why = Phase::Down(why.into());
        if !matches!(self.phase.send_replace(why.clone()), Phase::Down(_)) {
            tracing::warn!(?why, "Redis cannot be reached");
        }
    }

    /// Returns once the connection is abandoned. It is checked periodically, and immediately after
    /// a request without an answer.
    async fn watch(&self, live: &Live, pace: &mut Pace) {
        let (since, mut sentinels) = (Instant::now(), self.servers.sentinels());
        loop {
            select! {
                () = self.poke.notified() => {}
                () = sleep(EACH) => {}
            }
            if self.live.load().as_ref().is_none_or(|current| current.number != live.number) {
                return;
            }
            let mut connection = live.connection.clone();
            let asked = probe(&mut connection, &self.scripts.probe, &self.key);
            let failed = match timeout(PATIENCE, asked).await {
                Ok(Ok(())) => {
                    if Instant::now() - since > EACH {
                        pace.rest();
                    }
                    // A sentinel that hangs must not hide that the connection fails meanwhile.
                    let is_replaced = select! {
                        is_replaced = sentinels.name_another(live.named.as_ref()) => is_replaced,
                        () = self.poke.notified() => {
                            self.poke.notify_one();
                            false
                        }
                    };
                    if !is_replaced {
                        continue;
                    }
                    Failed::not_sent("the sentinels name another primary")
                }
                Ok(Err(error)) => Failed::of(&error),
                Err(_) => Failed::late(),
            };
            self.leave(live, &failed);
        }
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("phase", &*self.phase.borrow()).finish_non_exhaustive()
    }
}

// === impl Task ===

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

// === impl Waiting ===

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.inner.poke.notify_one();
        }
    }
}
