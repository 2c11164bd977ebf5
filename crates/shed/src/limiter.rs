//! Who is let in, who waits and for how long, and who is turned away.

use crate::{
    Criticality, Limit, Queue,
    gradient::{Finder, Seen},
};
use cinchona_core::{
    Latency,
    clock::{later, nanos},
};
use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::oneshot, time::Instant};

/// A limit on the calls in progress, and the queue before it.
pub(crate) struct Limiter {
    /// The calls in progress; those that wait, from bit 32 on.
    word: AtomicU64,
    limit: AtomicU32,
    queue: Queue,
    waiting: Mutex<Waiting>,
    shed: [AtomicU64; Criticality::COUNT],
    adaptive: Option<Measured>,
}

/// What the limit is found by.
struct Measured {
    latency: Latency,
    calls: AtomicU32,
    most: AtomicU32,
    /// When the window ends at the earliest, in nanoseconds since `began`.
    ends: AtomicU64,
    began: Instant,
    finder: Mutex<(Finder, Instant)>,
    window: Duration,
    samples: u32,
}

struct Waiting {
    /// By criticality, the most critical last; in each, the oldest first.
    classes: [VecDeque<Waiter>; Criticality::COUNT],
    /// When nobody waited, the last time that somebody came.
    empty: Instant,
}

struct Waiter {
    since: Instant,
    give: oneshot::Sender<Permit>,
}

/// A place among the calls in progress; dropped, it is given to the next.
pub(crate) struct Permit {
    limiter: Option<Arc<Limiter>>,
    /// When it was given, where that matters.
    began: Option<Instant>,
}

/// Whether a call is let in.
pub(crate) enum Entry {
    Admitted(Permit),
    /// It is let in when it is given a permit, or else turned away at this time or before.
    Waits(oneshot::Receiver<Permit>, Instant),
    TurnedAway,
}

const ONE_WAITING: u64 = 1 << 32;

// === impl Limiter ===

impl Limiter {
    pub(crate) fn new(limit: Limit, queue: Queue, now: Instant) -> Arc<Self> {
        let adaptive = match limit {
            Limit::Fixed(_) => None,
            Limit::Adaptive(settings) => Some(Measured {
                latency: Latency::new(0.9),
                calls: AtomicU32::new(0),
                most: AtomicU32::new(0),
                ends: AtomicU64::new(nanos(settings.window)),
                began: now,
                finder: Mutex::new((Finder::new(settings), now)),
                window: settings.window,
                samples: settings.samples,
            }),
        };
        Arc::new(Self {
            word: AtomicU64::new(0),
            limit: AtomicU32::new(limit.initial()),
            queue,
            waiting: Mutex::new(Waiting { classes: Default::default(), empty: now }),
            shed: Default::default(),
            adaptive,
        })
    }

    pub(crate) fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    pub(crate) fn in_progress(&self) -> u32 {
        self.word.load(Ordering::Relaxed) as u32
    }

    pub(crate) fn waiting(&self) -> u32 {
        (self.word.load(Ordering::Relaxed) >> 32) as u32
    }

    /// How many of this criticality were turned away.
    pub(crate) fn shed(&self, criticality: Criticality) -> u64 {
        self.shed[criticality as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn count_shed(&self, criticality: Criticality) {
        self.shed[criticality as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Lets a call in, lets it wait, or turns it away.
    pub(crate) fn enter(self: &Arc<Self>, criticality: Criticality) -> Entry {
        if self.change(|word| self.admitted(word)).is_ok() {
            return Entry::Admitted(self.permit());
        }
        if self.queue.capacity == 0 {
            return Entry::TurnedAway;
        }
        let now = Instant::now();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // Either there is a place after all, or whoever leaves sees that somebody waits.
        let before = self.change(|word| self.admitted(word).or(Some(word + ONE_WAITING)));
        let before = before.unwrap_or_else(|word| word);
        if self.admitted(before).is_some() {
            return Entry::Admitted(self.permit());
        }
        if before < ONE_WAITING {
            waiting.empty = now;
        }
        if waiting.is_full(self.queue.capacity) && !self.make_room(&mut waiting, criticality) {
            self.word.fetch_sub(ONE_WAITING, Ordering::AcqRel);
            return Entry::TurnedAway;
        }
        let (give, given) = oneshot::channel();
        waiting.classes[criticality as usize].push_back(Waiter { since: now, give });
        Entry::Waits(given, later(now, self.queue.longest))
    }

    /// The word with a call more in progress, if the limit allows it and nobody waits.
    fn admitted(&self, word: u64) -> Option<u64> {
        (word < self.limit().into()).then_some(word + 1)
    }

    fn change(&self, next: impl Fn(u64) -> Option<u64>) -> Result<u64, u64> {
        self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, next)
    }

    fn permit(self: &Arc<Self>) -> Permit {
        let began = self.adaptive.is_some().then(Instant::now);
        Permit { limiter: Some(self.clone()), began }
    }

    /// A place in the queue, if one who waits there has gone, or matters less.
    fn make_room(&self, waiting: &mut Waiting, criticality: Criticality) -> bool {
        let mut gone = 0;
        for class in &mut waiting.classes {
            let before = class.len();
            class.retain(|waiter| !waiter.give.is_closed());
            gone += before - class.len();
        }
        if gone == 0 {
            let below = &mut waiting.classes[..criticality as usize];
            // The newest of the least critical: it has waited for the least time.
            gone = below.iter_mut().find_map(|class| class.pop_back().map(|_| 1)).unwrap_or(0);
        }
        self.word.fetch_sub(ONE_WAITING * gone as u64, Ordering::AcqRel);
        gone > 0
    }

    /// Gives free places to those who wait.
    fn give(self: &Arc<Self>, now: Instant) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // While somebody waits, only who holds the lock lets calls in.
        while self.in_progress() < self.limit() {
            let (next, expired) = waiting.next(&self.queue, now);
            self.word.fetch_sub(ONE_WAITING * expired, Ordering::AcqRel);
            let Some(waiter) = next else { return };
            self.word.fetch_sub(ONE_WAITING - 1, Ordering::AcqRel);
            if let Err(mut permit) = waiter.give.send(self.permit()) {
                // It has gone. Its permit must not look for the next one while this does.
                permit.limiter = None;
                self.word.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }

    fn leave(self: &Arc<Self>, began: Option<Instant>) {
        let before = self.word.fetch_sub(1, Ordering::AcqRel);
        if let (Some(measured), Some(began)) = (&self.adaptive, began) {
            let now = Instant::now();
            if let Some(limit) =
                measured.record(now.saturating_duration_since(began), before as u32, now)
            {
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
            tracing::debug!(limit, before, in_progress = self.in_progress(), "concurrency limit");
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

// === impl Waiting ===

impl Waiting {
    fn is_full(&self, capacity: u32) -> bool {
        self.classes.iter().map(VecDeque::len).sum::<usize>() >= capacity as usize
    }

    /// The next to be let in, and how many have waited for too long (they are turned away by
    /// forgetting them).
    fn next(&mut self, queue: &Queue, now: Instant) -> (Option<Waiter>, u64) {
        // Where the queue has not been empty for a while, it will not be: then whoever has waited
        // is likely to have been given up, and the newest has the best chances.
        let is_overloaded = now.saturating_duration_since(self.empty) > queue.interval;
        let patience = if is_overloaded { queue.target } else { queue.longest };
        let mut expired = 0;
        for class in self.classes.iter_mut().rev() {
            let is_late = |waiter: &Waiter| now.saturating_duration_since(waiter.since) > patience;
            while class.front().is_some_and(is_late) {
                class.pop_front();
                expired += 1;
            }
            let next = if is_overloaded { class.pop_back() } else { class.pop_front() };
            if next.is_some() {
                return (next, expired);
            }
        }
        (None, expired)
    }
}

// === impl Measured ===

impl Measured {
    /// The new limit, where a window has ended.
    fn record(&self, took: Duration, in_progress: u32, now: Instant) -> Option<u32> {
        self.latency.record(took);
        let calls = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        if in_progress > self.most.load(Ordering::Relaxed) {
            self.most.fetch_max(in_progress, Ordering::Relaxed);
        }
        let at = nanos(now.saturating_duration_since(self.began));
        let ends = self.ends.load(Ordering::Relaxed);
        let window = nanos(self.window);
        if at < ends || (calls < self.samples && at < ends.saturating_add(9 * window)) {
            return None;
        }
        let mut guarded = self.finder.try_lock().ok()?;
        let (finder, began) = &mut *guarded;
        let took = now.saturating_duration_since(*began);
        if took < self.window {
            return None; // Another has just ended it.
        }
        let (p90, calls) = self.latency.take()?;
        self.calls.store(0, Ordering::Relaxed);
        let most = self.most.swap(0, Ordering::Relaxed);
        self.ends.store(at.saturating_add(window), Ordering::Relaxed);
        *began = now;
        Some(finder.update(Seen { p90, calls, took, most }))
    }
}

// === impl Permit ===

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(limiter) = self.limiter.take() {
            limiter.leave(self.began);
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").finish_non_exhaustive()
    }
}
