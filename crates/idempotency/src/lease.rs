//! A claim, which is always settled.

use crate::{Claim, Execution, Store, record, refusal, shared::Shared};
use bytes::Bytes;
use cinchona_core::{BoxError, Deadline};
use cinchona_plumbing::Seldom;
use cinchona_policy::dedup::Reach;
use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    thread,
    time::Duration,
};
use tokio::{
    runtime::Handle,
    time::{Instant, sleep},
};
use tracing::Instrument;

static UNSTORED: LazyLock<Seldom> =
    LazyLock::new(|| Seldom::new(|more| tracing::warn!(more, "further answers were not stored")));

/// A claim that is settled in any case: if it is dropped before it is known to be granted, it is
/// released; if the execution panics or is cancelled, it is settled as an unknown outcome.
pub(crate) struct Lease<T: Store> {
    shared: Arc<Shared<T>>,
    pub(crate) execution: Arc<Execution>,
    /// That of its caller.
    deadline: Option<Deadline>,
    /// How to settle it.
    outcome: Option<Outcome>,
}

/// How a claim is settled.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Keeps this answer.
    Keep(Bytes),
    /// Lets the next attempt execute.
    Release,
    /// The outcome is unknown: the guarantee decides.
    Unknown,
}

/// A future that continues in the background when it is dropped after the work that must be
/// completed has begun.
pub(crate) struct Unstoppable<O: 'static> {
    running: Option<Running<O>>,
    begun: Begun,
}

type Running<O> = Pin<Box<dyn Future<Output = O> + Send>>;

/// Whether a future has begun work that must be completed, and whether it has been dropped since.
#[derive(Clone, Default)]
pub(crate) struct Begun(Arc<[AtomicBool; 2]>);

/// How much longer the claim lasts than the execution, so that the execution ends first.
const GRACE: Duration = Duration::from_secs(1);

/// The longest lease that a caller's deadline makes: a crash leaves the key unanswered for so long.
const LONGEST: Duration = Duration::from_secs(3600);

/// How often, and after which pauses, storing an answer is retried.
const RETRIES: u32 = 30;

// === impl Lease ===

impl<T: Store> Lease<T> {
    /// Of a call with that `deadline`.
    pub(crate) fn new(
        shared: Arc<Shared<T>>,
        execution: Execution,
        deadline: Option<Deadline>,
    ) -> Self {
        Self { shared, execution: Arc::new(execution), deadline, outcome: None }
    }

    /// How long an execution that begins `now` may take: as long as the setting says, or as its
    /// caller waits, if that is longer.
    pub(crate) fn time(&self, now: Instant) -> Duration {
        let asked = self.deadline.map_or(Duration::ZERO, |deadline| deadline.remaining(now));
        self.shared.settings.lease.max(asked.min(LONGEST))
    }

    pub(crate) async fn claim(&mut self, fingerprint: u128) -> Result<Claim, BoxError> {
        self.outcome = Some(Outcome::Release);
        let (key, token) = (self.execution.key(), self.execution.token());
        let lease = self.time(Instant::now()).saturating_add(GRACE);
        let claim = self.shared.store.claim(key, fingerprint, token, lease).await;
        self.outcome = match claim {
            Ok(Claim::Granted { .. }) => Some(Outcome::Unknown),
            // It may have been granted without this process knowing.
            Err(_) => Some(Outcome::Release),
            Ok(_) => None,
        };
        claim
    }

    pub(crate) async fn settle(&mut self, outcome: Outcome) {
        // Kept until that is done, in case the future is dropped in between.
        let outcome = self.outcome.insert(outcome);
        if !self.execution.is_answered() {
            apply(outcome, &self.shared, &self.execution).await;
        }
        self.outcome = None;
    }
}

impl<T: Store> Drop for Lease<T> {
    fn drop(&mut self) {
        let Some(outcome) = self.outcome.take() else { return };
        if matches!(outcome, Outcome::Unknown) && thread::panicking() {
            self.shared.cells.ambiguous.count();
        }
        // Without a runtime the claim ends with its lease.
        if let Ok(runtime) = Handle::try_current()
            && !self.execution.is_answered()
        {
            let (shared, execution) = (self.shared.clone(), self.execution.clone());
            runtime.spawn(async move { apply(&outcome, &shared, &execution).await });
        }
    }
}

/// If the store fails, the call has still been executed, so it is answered; storing the answer is
/// retried in the background until the lease ends.
async fn apply<T: Store>(outcome: &Outcome, shared: &Arc<Shared<T>>, execution: &Arc<Execution>) {
    let record = match outcome {
        Outcome::Keep(record) => record,
        Outcome::Unknown if Reach::Unknown.is_kept(shared.settings.guarantee) => {
            &record::of_status(refusal::unknown_outcome())
        }
        Outcome::Release | Outcome::Unknown => {
            let released = shared.store.release(execution.key(), execution.token()).await;
            if let Err(error) = released {
                tracing::debug!(%error, "a claim is left to expire with its lease");
            }
            return;
        }
    };
    let Err(error) = finish(&shared.store, execution, record).await else { return };
    if UNSTORED.is_due(Instant::now()) {
        tracing::warn!(%error, "an answer could not be stored, trying again");
    }
    let (shared, execution, record) = (shared.clone(), execution.clone(), record.clone());
    tokio::spawn(async move {
        for _ in 0..RETRIES {
            sleep(GRACE).await;
            if finish(&shared.store, &execution, &record).await.is_ok() {
                return;
            }
        }
        if UNSTORED.is_due(Instant::now()) {
            tracing::warn!("an answer was not stored");
        }
    });
}

async fn finish<T: Store>(store: &T, execution: &Execution, record: &[u8]) -> Result<(), BoxError> {
    let is_stored = store.finish(execution.key(), execution.token(), record).await?;
    if !is_stored && UNSTORED.is_due(Instant::now()) {
        tracing::warn!("the lease of a call ended before its answer was stored");
    }
    Ok(())
}

// === impl Unstoppable ===

impl<O: 'static> Unstoppable<O> {
    pub(crate) fn new(running: impl Future<Output = O> + Send + 'static, begun: Begun) -> Self {
        Self { running: Some(Box::pin(running)), begun }
    }
}

impl<O: 'static> Future for Unstoppable<O> {
    type Output = O;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<O> {
        // Taken out, so that a future that has panicked does not continue.
        let Some(mut running) = self.running.take() else { return Poll::Pending };
        let polled = running.as_mut().poll(cx);
        if polled.is_pending() {
            self.running = Some(running);
        }
        polled
    }
}

impl<O: 'static> Drop for Unstoppable<O> {
    fn drop(&mut self) {
        let Some(running) = self.running.take().filter(|_| self.begun.is_set()) else { return };
        if let Ok(runtime) = Handle::try_current() {
            tracing::debug!("the caller is gone; its call is executed to the end");
            self.begun.abandon();
            runtime.spawn(async { drop(running.await) }.in_current_span());
        }
    }
}

// === impl Begun ===

impl Begun {
    pub(crate) fn set(&self) {
        self.0[0].store(true, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0[0].load(Ordering::Relaxed)
    }

    fn abandon(&self) {
        self.0[1].store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        self.0[1].load(Ordering::Relaxed)
    }
}
