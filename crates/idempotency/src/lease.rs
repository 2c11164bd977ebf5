//! A claim and its end, which comes whatever happens to the call.

use crate::{Claim, Execution, Settings, Store, counters::Cells};
use bytes::Bytes;
use cinchona_core::BoxError;
use std::{
    future::Future,
    hash::{BuildHasher, RandomState},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    thread,
    time::Duration,
};
use tokio::{runtime::Handle, time::sleep};
use tracing::Instrument;

/// Tells claims apart, those of other processes included.
#[derive(Clone, Debug)]
pub(crate) struct Tokens {
    process: u64,
    next: Arc<AtomicU64>,
}

/// A claim that is settled whatever happens: where it is dropped before it is known to be granted,
/// by giving it back; where the execution panics or is cut off, by what is right for an outcome
/// that nobody knows.
pub(crate) struct Lease<T: Store> {
    store: T,
    pub(crate) execution: Arc<Execution>,
    /// What is left to be done.
    outcome: Option<Outcome>,
}

/// What is to be done with a claim.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// Give this answer from now on.
    Keep(Bytes),
    /// Let it be executed again.
    Release,
}

/// A future that goes on by itself when it is dropped before it is ready.
pub(crate) struct Unstoppable<F: Future + Send + 'static> {
    running: Option<Pin<Box<F>>>,
    cells: Arc<Cells>,
}

/// The claim outlasts the execution by this much, so that it is the execution that ends it.
const GRACE: Duration = Duration::from_secs(1);

/// How often, with as long between, it is tried to store an end that the store has not taken.
const RETRIES: u32 = 30;

// === impl Tokens ===

impl Tokens {
    pub(crate) fn new() -> Self {
        let process = RandomState::new().hash_one(0);
        Self { process, next: Arc::default() }
    }

    pub(crate) fn next(&self) -> u128 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        u128::from(self.process) << 64 | u128::from(number)
    }
}

// === impl Lease ===

impl<T: Store> Lease<T> {
    pub(crate) fn new(store: T, execution: Execution) -> Self {
        Self { store, execution: Arc::new(execution), outcome: None }
    }

    pub(crate) async fn claim(
        &mut self,
        fingerprint: u128,
        settings: &Settings,
    ) -> Result<Claim, BoxError> {
        self.outcome = Some(Outcome::Release);
        let (key, token) = (self.execution.key(), self.execution.token());
        let claim = self.store.claim(key, fingerprint, token, settings.lease + GRACE).await;
        self.outcome = match claim {
            Ok(Claim::Granted { .. }) => Some(settings.unknown_outcome()),
            // It may have been granted, and the news lost.
            Err(_) => Some(Outcome::Release),
            Ok(_) => None,
        };
        claim
    }

    pub(crate) async fn settle(mut self, outcome: Outcome) {
        self.outcome = Some(outcome.clone());
        if !self.execution.is_answered() {
            outcome.apply(&self.store, &self.execution).await;
        }
        self.outcome = None;
    }
}

impl<T: Store> Drop for Lease<T> {
    fn drop(&mut self) {
        let Some(outcome) = self.outcome.take() else { return };
        // Without a runtime the claim ends with its lease.
        if let Ok(runtime) = Handle::try_current()
            && !self.execution.is_answered()
        {
            let (store, execution) = (self.store.clone(), self.execution.clone());
            runtime.spawn(async move { outcome.apply(&store, &execution).await });
        }
    }
}

// === impl Outcome ===

impl Outcome {
    /// Where the store fails the call has been executed all the same, so it has its answer; what is
    /// left to be done is tried again in the background until the lease has ended anyhow.
    async fn apply<T: Store>(self, store: &T, execution: &Arc<Execution>) {
        let Err(error) = self.attempt(store, execution).await else { return };
        tracing::warn!(%error, "the end of a call could not be stored, trying again");
        let (store, execution) = (store.clone(), execution.clone());
        tokio::spawn(async move {
            for _ in 0..RETRIES {
                sleep(GRACE).await;
                if self.attempt(&store, &execution).await.is_ok() {
                    return;
                }
            }
            tracing::warn!("the end of a call was not stored");
        });
    }

    async fn attempt<T: Store>(&self, store: &T, execution: &Execution) -> Result<(), BoxError> {
        let (key, token) = (execution.key(), execution.token());
        match self {
            Self::Release => store.release(key, token).await,
            Self::Keep(record) => {
                if !store.finish(key, token, record.clone()).await? {
                    tracing::warn!("the lease of a call ended before its answer was stored");
                }
                Ok(())
            }
        }
    }
}

// === impl Unstoppable ===

impl<F: Future + Send + 'static> Unstoppable<F> {
    pub(crate) fn new(running: F, cells: Arc<Cells>) -> Self {
        Self { running: Some(Box::pin(running)), cells }
    }
}

impl<F: Future + Send + 'static> Future for Unstoppable<F>
where
    F::Output: Send,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let Some(running) = &mut self.running else { return Poll::Pending };
        let polled = running.as_mut().poll(cx);
        if polled.is_ready() {
            self.running = None;
        }
        polled
    }
}

impl<F: Future + Send + 'static> Drop for Unstoppable<F> {
    fn drop(&mut self) {
        let Some(running) = self.running.take() else { return };
        // What has panicked cannot go on.
        if !thread::panicking()
            && let Ok(runtime) = Handle::try_current()
        {
            self.cells.abandoned.count();
            tracing::debug!("the caller has gone; its call is executed to the end");
            runtime.spawn(async { drop(running.await) }.in_current_span());
        }
    }
}
