//! Which calls are admitted, which wait and for how long, and which are refused.

use super::{
    criticality::Criticality,
    limit::{Limit, Queue},
    measured::Measured,
    waiting::Waiting,
};
use crate::{
    clock::{self, later},
    sync::{AtomicU32, AtomicU64, Mutex, MutexGuard, Ordering},
};
use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, PoisonError},
    task::{Context, Poll},
};
use tokio::{
    sync::oneshot::{self, error::RecvError},
    time::Instant,
};

/// A limit on the calls in flight, and the queue before it.
pub struct Limiter {
    /// The calls in flight; those that wait, from bit 32 on.
    word: AtomicU64,
    limit: AtomicU32,
    queue: Queue,
    waiting: Mutex<Waiting<Permit>>,
    shed: [AtomicU64; Criticality::COUNT],
    adaptive: Option<Measured>,
    report: fn(Changed),
}

/// A place among the calls in flight; when dropped, it is given to the next call.
pub struct Permit {
    limiter: Option<Arc<Limiter>>,
    /// When it was given, and how many were in flight then, for an adaptive limit.
    began: Option<(Instant, u32)>,
    /// Whether the call was answered in time, if known.
    is_answered: bool,
    /// When it has ended, if known before it is dropped.
    ended: Option<Instant>,
}

/// Waits for a place. Dropping it ends the wait, which is not counted any more.
pub struct Waits {
    limiter: Arc<Limiter>,
    criticality: Criticality,
    number: u64,
    given: oneshot::Receiver<Permit>,
}

/// The decision on a call.
#[derive(Debug)]
pub enum Entry {
    /// It has a place.
    Admitted(Permit),
    /// It is admitted when it receives a permit, or refused at this time or before.
    Waits(Waits, Instant),
    /// It is refused.
    TurnedAway,
}

/// The limit has changed.
#[derive(Clone, Copy, Debug)]
pub struct Changed {
    /// What it is now.
    pub limit: u32,
    /// What it was.
    pub before: u32,
    /// How many calls are in flight.
    pub in_progress: u32,
}

const ONE_WAITING: u64 = 1 << 32;

// === impl Limiter ===

impl Limiter {
    /// With nothing in flight.
    pub fn new(limit: Limit, queue: Queue, now: Instant) -> Arc<Self> {
        Self::reporting(limit, queue, now, |_| {})
    }

    /// The same, and each change of an adaptive limit is reported.
    pub fn reporting(limit: Limit, queue: Queue, now: Instant, report: fn(Changed)) -> Arc<Self> {
        let adaptive = match limit {
            Limit::Fixed(_) => None,
            Limit::Adaptive(settings) => Some(Measured::new(settings, now)),
        };
        Arc::new(Self {
            word: AtomicU64::new(0),
            limit: AtomicU32::new(limit.initial()),
            queue,
            waiting: Mutex::new(Waiting::new(now)),
            shed: Default::default(),
            adaptive,
            report,
        })
    }

    /// How many calls may be in flight.
    #[inline]
    pub fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Whether it is found by measurements, which take the time of each call.
    #[inline]
    pub const fn is_measured(&self) -> bool {
        self.adaptive.is_some()
    }

    /// How many are.
    #[inline]
    pub fn in_progress(&self) -> u32 {
        self.word.load(Ordering::Relaxed) as u32
    }

    /// How many wait for a place.
    pub fn waiting(&self) -> u32 {
        (self.word.load(Ordering::Relaxed) >> 32) as u32
    }

    /// How many of this criticality were refused.
    #[inline]
    pub fn shed(&self, criticality: impl Into<Criticality>) -> u64 {
        self.shed[criticality.into() as usize].load(Ordering::Relaxed)
    }

    /// Counts a call of this criticality that is refused.
    #[inline]
    pub fn count_shed(&self, criticality: impl Into<Criticality>) {
        self.shed[criticality.into() as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Admits a call, queues it, or refuses it; its criticality is read only if there is no place.
    #[inline]
    pub fn enter<C: Into<Criticality>>(self: &Arc<Self>, criticality: impl FnOnce() -> C) -> Entry {
        match self.change(|word| self.admitted(word)) {
            Ok(before) => Entry::Admitted(self.permit(before)),
            Err(_) => self.enter_full(criticality().into()),
        }
    }

    #[cold]
    fn enter_full(self: &Arc<Self>, criticality: Criticality) -> Entry {
        let now = clock::now();
        if let Some(limit) = self.adaptive.as_ref().and_then(|measured| measured.is_met(now)) {
            self.becomes(limit);
        }
        if self.queue.capacity == 0 {
            return Entry::TurnedAway;
        }
        let mut waiting = self.queued();
        // Either there is a place after all, or the leaving call sees the waiting one.
        let before = self.change(|word| self.admitted(word).or(Some(word + ONE_WAITING)));
        let before = before.unwrap_or_else(|word| word);
        if self.admitted(before).is_some() {
            return Entry::Admitted(self.permit(before));
        }
        let Some(gone) = waiting.make_room(self.queue.capacity, criticality) else {
            self.word.fetch_sub(ONE_WAITING, Ordering::AcqRel);
            return Entry::TurnedAway;
        };
        self.word.fetch_sub(ONE_WAITING * gone, Ordering::AcqRel);
        let (number, given) = waiting.join(criticality, now);
        let waits = Waits { limiter: self.clone(), criticality, number, given };
        Entry::Waits(waits, later(now, self.queue.longest))
    }

    /// The word with one more call in flight, if the limit allows it and no call waits.
    #[inline]
    fn admitted(&self, word: u64) -> Option<u64> {
        (word < self.limit().into()).then_some(word + 1)
    }

    #[inline]
    fn change(&self, next: impl Fn(u64) -> Option<u64>) -> Result<u64, u64> {
        self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, next)
    }

    /// The place of a call admitted from the word `before`.
    #[inline]
    fn permit(self: &Arc<Self>, before: u64) -> Permit {
        let began = self.adaptive.is_some().then(|| (clock::now(), before as u32 + 1));
        Permit { limiter: Some(self.clone()), began, is_answered: false, ended: None }
    }

    fn queued(&self) -> MutexGuard<'_, Waiting<Permit>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives free places to waiting calls.
    fn give(self: &Arc<Self>, now: Instant) {
        let mut waiting = self.queued();
        // While calls wait, only the holder of the lock admits calls.
        while self.in_progress() < self.limit() {
            let (next, expired) = waiting.next(&self.queue, self.limit(), now);
            self.word.fetch_sub(ONE_WAITING * expired, Ordering::AcqRel);
            let Some(waiter) = next else { return };
            let before = self.word.fetch_sub(ONE_WAITING - 1, Ordering::AcqRel);
            if let Err(mut permit) = waiter.send(self.permit(before)) {
                // The waiting call is gone. Its permit must not look for the next one while this
                // does.
                permit.limiter = None;
                self.word.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }

    /// Removes a call that waits no longer.
    fn forget(&self, criticality: Criticality, number: u64) {
        if self.queued().remove(criticality, number) {
            self.word.fetch_sub(ONE_WAITING, Ordering::AcqRel);
        }
    }

    #[inline]
    fn leave(self: &Arc<Self>, permit: &Permit) {
        let before = self.word.fetch_sub(1, Ordering::AcqRel);
        if let (Some(measured), Some((at, among))) = (&self.adaptive, permit.began) {
            let now = permit.ended.unwrap_or_else(Instant::now);
            let took = permit.is_answered.then(|| now.saturating_duration_since(at));
            if let Some(limit) = measured.record(took, among, before as u32, now) {
                self.becomes(limit);
            }
        }
        if before >= ONE_WAITING {
            self.give(Instant::now());
        }
    }

    fn becomes(&self, limit: u32) {
        let before = self.limit.swap(limit, Ordering::Relaxed);
        if before != limit {
            (self.report)(Changed { limit, before, in_progress: self.in_progress() });
        }
    }
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter")
            .field("limit", &self.limit())
            .field("in_progress", &self.in_progress())
            .field("waiting", &self.waiting())
            .finish_non_exhaustive()
    }
}

// === impl Entry ===

impl Entry {
    /// Whether it has a place.
    #[inline]
    pub const fn is_admitted(&self) -> bool {
        matches!(self, Self::Admitted(_))
    }
}

// === impl Permit ===

impl Permit {
    /// Gives the place back, without recording the latency.
    #[inline]
    pub fn pass_on(mut self) {
        self.began = None;
    }

    /// How many were in flight when it was given, if that is measured.
    pub fn among(&self) -> Option<u32> {
        self.began.map(|(_, among)| among)
    }

    /// Whether the outcome of the call matters.
    #[inline]
    pub const fn is_measured(&self) -> bool {
        self.began.is_some()
    }

    /// Records whether the call was answered in time.
    #[inline]
    pub fn answered(&mut self, in_time: bool) {
        self.is_answered = in_time;
    }

    /// Records that the call has ended at `now`: the clock is not read again.
    #[inline]
    pub fn ends(&mut self, now: Instant) {
        self.ended = Some(now);
    }
}

impl Drop for Permit {
    #[inline]
    fn drop(&mut self) {
        if let Some(limiter) = self.limiter.take() {
            limiter.leave(self);
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").finish_non_exhaustive()
    }
}

// === impl Waits ===

impl Future for Waits {
    type Output = Result<Permit, RecvError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.given).poll(cx)
    }
}

impl fmt::Debug for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waits").finish_non_exhaustive()
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        // A place that was given and not taken is dropped with the channel, and goes to the next.
        self.limiter.forget(self.criticality, self.number);
    }
}
