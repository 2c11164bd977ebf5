//! State whose changes commit together with the record of the call that made them.

use bytes::Bytes;
use prost::Message;
use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::task::futures::TaskLocalFuture;
use tonic::Status;

/// Values by name, read and changed by handlers; clones share the state.
///
/// *Why:* if the effect of a call and the record of its answer are stored separately, a crash
/// between the two leaves one without the other, undetectably. A [`Store`](crate::Store) that is a
/// `State` as well writes both atomically: the effect exists if and only if the answer does.
///
/// The handler does not notice: it changes values and answers with the result of the change. The
/// call is identified by the task, so await `update` in the handler itself, not in a task that it
/// spawns.
///
/// ```
/// use cinchona_idempotency::{MemoryStore, State};
/// use tonic::Status;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Status> {
/// let state = MemoryStore::new();
/// let hits = state.update(&["hits"], |values| {
///     let before = values[0].as_deref().and_then(|text| std::str::from_utf8(text).ok());
///     let hits = before.and_then(|text| text.parse().ok()).unwrap_or(0_u64) + 1;
///     values[0] = Some(hits.to_string().into());
///     Ok(hits)
/// });
/// assert_eq!(hits.await?, 1);
/// assert_eq!(state.read("hits").await?.as_deref(), Some(&b"1"[..]));
/// # Ok(())
/// # }
/// ```
pub trait State: Clone + Send + Sync + 'static {
    /// The value called `key`, as of the last committed change.
    ///
    /// # Errors
    /// `UNAVAILABLE` when the state cannot be reached.
    fn read(&self, key: &str) -> impl Future<Output = Result<Option<Bytes>, Status>> + Send;

    /// Changes the values called `keys`, all or none, isolated from other changes, and returns the
    /// answer of the call; make one update per call.
    ///
    /// `change` gets the values in the order of `keys`, `None` for missing ones, and may be called
    /// again after a conflict. If it fails, nothing is changed.
    ///
    /// # Errors
    /// The error of `change`; `ABORTED` when the call's lease has ended, and another may be
    /// executing it; `UNAVAILABLE` when the state cannot be reached.
    fn update<T, F>(
        &self,
        keys: &[&str],
        change: F,
    ) -> impl Future<Output = Result<T, Status>> + Send
    where
        T: Message + 'static,
        F: Fn(&mut [Option<Bytes>]) -> Result<T, Status> + Send + Sync + 'static;
}

/// The claim under which a task executes a call: for implementations of [`State`].
#[derive(Debug)]
pub struct Execution {
    instance: usize,
    key: Box<[u8]>,
    token: u128,
    is_answered: AtomicBool,
}

tokio::task_local! {
    static EXECUTION: Arc<Execution>;
}

// === impl Execution ===

impl Execution {
    pub(crate) fn new(instance: usize, key: Box<[u8]>, token: u128) -> Self {
        Self { instance, key, token, is_answered: AtomicBool::new(false) }
    }

    /// The execution of this task under a claim in the store of this
    /// [`instance`](crate::Store::instance), if not yet answered.
    pub fn current(instance: usize) -> Option<Arc<Self>> {
        let current = EXECUTION.try_with(Arc::clone).ok()?;
        (current.instance == instance && !current.is_answered()).then_some(current)
    }

    /// Whether this task is executing the call of this key: a layer further out has claimed it.
    pub(crate) fn is_of(key: &[u8]) -> bool {
        EXECUTION.try_with(|current| &*current.key == key).unwrap_or(false)
    }

    /// The key of the call in the store.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Identifies the claim.
    pub fn token(&self) -> u128 {
        self.token
    }

    /// The record has been committed, by [`Store::finish`](crate::Store::finish) or its equivalent.
    pub fn set_answered(&self) {
        self.is_answered.store(true, Ordering::Release);
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.is_answered.load(Ordering::Acquire)
    }

    pub(crate) fn scope<F: Future>(self: Arc<Self>, handler: F) -> TaskLocalFuture<Arc<Self>, F> {
        EXECUTION.scope(self, handler)
    }
}

/// The error of a [`State`] if the call has lost its claim.
pub fn fenced() -> Status {
    Status::aborted("the lease of this execution has ended, and nothing was changed")
}
