//! The last good answers, bounded by age and bytes.

use crate::{
    answer::{Answer, Effect},
    counters::Counters,
    fences::Fences,
    key::Key,
};
use cinchona_core::Invalid;
use hashlink::LinkedHashMap;
use http::HeaderMap;
use std::{
    fmt,
    hash::BuildHasher,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// The limits of age and size for the last good answers.
///
/// ```
/// use cinchona_fallback::Cache;
/// use std::time::Duration;
///
/// let cache = Cache { max_age: Duration::from_secs(60), ..Cache::default() };
/// assert_eq!((cache.max_bytes, cache.max_answer), (16 << 20, 64 << 10));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cache {
    /// The oldest answer that is given; older ones are dropped (`stale-if-error`, [RFC 5861]).
    /// Default 5 minutes; more than 0; `Duration::MAX`: without limit. Age counts from when the
    /// answer had been read, on a monotonic clock, plus the `age` that it arrived with ([RFC
    /// 9111]).
    ///
    /// [RFC 5861]: https://www.rfc-editor.org/rfc/rfc5861#section-4
    /// [RFC 9111]: https://www.rfc-editor.org/rfc/rfc9111#section-4.2.3
    pub max_age: Duration,
    /// The most bytes of all answers, with the requests they answer; the least recently used are
    /// evicted. Default 16 MiB; at least 1.
    pub max_bytes: usize,
    /// The most bytes of a message that is read before it is passed on. A larger one is passed on
    /// as it arrives, and not kept. Default 64 KiB; 1 to `max_bytes`.
    pub max_answer: usize,
}

/// The kept answers, by their requests.
pub(crate) struct Store {
    max_age: Duration,
    max_bytes: usize,
    /// How many calls have begun.
    begun: AtomicU64,
    /// How often the layer had been off at the last check.
    times_off: AtomicU64,
    entries: Mutex<Entries>,
    counters: Counters,
}

/// The number of a call in the order in which calls begin, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Turn(u64);

/// From the least to the most recently used.
#[derive(Default)]
struct Entries {
    by_key: LinkedHashMap<Key, Kept>,
    bytes: usize,
    /// For requests without a kept answer.
    fences: Fences,
}

struct Kept {
    answer: Arc<Answer>,
    at: Instant,
    /// The first call that may replace it: the one after its own.
    next: u64,
    bytes: usize,
}

/// The approximate bytes of an entry besides its key, message and headers.
const OVERHEAD: usize = 256;
/// The overhead of a header besides its name and value (RFC 7541, 4.1).
const HEADER: usize = 32;

// === impl Cache ===

impl Cache {
    pub(crate) fn checked(self) -> Result<Self, Invalid> {
        if self.max_age.is_zero() {
            return Err(Invalid::new("max_age", "0 s", "more than 0 s"));
        }
        if self.max_bytes == 0 {
            return Err(Invalid::new("max_bytes", 0, "at least 1"));
        }
        if !(1..=self.max_bytes).contains(&self.max_answer) {
            return Err(Invalid::new("max_answer", self.max_answer, "1 to max_bytes"));
        }
        Ok(self)
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self { max_age: Duration::from_secs(300), max_bytes: 16 << 20, max_answer: 64 << 10 }
    }
}

// === impl Store ===

impl Store {
    pub(crate) fn new(cache: Cache, counters: Counters) -> Self {
        let Cache { max_age, max_bytes, .. } = cache;
        let (begun, times_off) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { max_age, max_bytes, begun, times_off, entries: Mutex::default(), counters }
    }

    /// Clears everything, including calls in flight, if the layer was off since the last check: the
    /// calls in between may have invalidated what is kept.
    pub(crate) fn knows(&self, times_off: u64) {
        if self.times_off.load(Ordering::Relaxed) != times_off {
            self.forget_all(times_off);
        }
    }

    /// A call begins.
    pub(crate) fn begin(&self) -> Turn {
        Turn(self.begun.fetch_add(1, Ordering::Relaxed))
    }

    /// Applies the effect of a call's answer on the kept one.
    pub(crate) fn apply(&self, effect: Effect, key: Key, turn: Turn, now: Instant) {
        let mut entries = self.lock();
        match effect {
            Effect::Nothing => {}
            // Calls in flight may have been answered before this refusal, whichever arrived first,
            // so none of their answers is kept.
            Effect::TakeBack => self.fence(&mut entries, &key, self.begun.load(Ordering::Relaxed)),
            Effect::Outdate | Effect::Replace(_) if turn.0 < entries.first_to_keep(&key) => {}
            Effect::Outdate => self.fence(&mut entries, &key, turn.0 + 1),
            Effect::Replace(answer) => self.replace(&mut entries, key, answer, turn, now),
        }
    }

    /// The last good answer and its age, unless it is too old.
    pub(crate) fn find(&self, key: &[u8], now: Instant) -> Option<(Arc<Answer>, Duration)> {
        let mut entries = self.lock();
        let kept = entries.by_key.to_back(key)?;
        let (age, next) = (kept.age(now), kept.next);
        if age > self.max_age {
            self.fence(&mut entries, key, next);
            return None;
        }
        Some((Arc::clone(&kept.answer), age))
    }

    fn forget_all(&self, times_off: u64) {
        let mut entries = self.lock();
        // Of several concurrent observers, the first clears; the number never goes back.
        if self.times_off.fetch_max(times_off, Ordering::Relaxed) >= times_off {
            return;
        }
        let begun = self.begun.load(Ordering::Relaxed);
        self.uncount_all(&entries);
        entries.by_key.clear();
        entries.bytes = 0;
        entries.fences.raise_all(begun);
    }

    /// Keeps `answer`, if there is room for it.
    fn replace(
        &self,
        entries: &mut Entries,
        key: Key,
        answer: Arc<Answer>,
        turn: Turn,
        now: Instant,
    ) {
        let next = turn.0 + 1;
        let bytes = weight(&key, &answer);
        let kept = Kept { answer, at: now, next, bytes };
        if bytes > self.max_bytes || kept.age(now) > self.max_age {
            return self.fence(entries, &key, next);
        }
        self.forget(entries, &key);
        while entries.bytes + bytes > self.max_bytes || self.has_expired(entries.first(), now) {
            let Some((key, evicted)) = entries.by_key.pop_front() else { break };
            self.uncount(entries, &evicted);
            entries.raise_fence(&key, evicted.next);
        }
        entries.bytes += bytes;
        entries.by_key.insert(key, kept);
        self.counters.cells().kept_entries.count();
        self.counters.cells().kept_bytes.add(bytes as u64);
    }

    /// Removes the answer, and keeps none of a call before `first`.
    fn fence(&self, entries: &mut Entries, key: &[u8], first: u64) {
        self.forget(entries, key);
        entries.raise_fence(key, first);
    }

    fn has_expired(&self, kept: Option<&Kept>, now: Instant) -> bool {
        kept.is_some_and(|kept| kept.age(now) > self.max_age)
    }

    fn forget(&self, entries: &mut Entries, key: &[u8]) {
        if let Some(kept) = entries.by_key.remove(key) {
            self.uncount(entries, &kept);
        }
    }

    fn uncount(&self, entries: &mut Entries, kept: &Kept) {
        entries.bytes -= kept.bytes;
        self.counters.cells().kept_entries.subtract(1);
        self.counters.cells().kept_bytes.subtract(kept.bytes as u64);
    }

    fn uncount_all(&self, entries: &Entries) {
        self.counters.cells().kept_entries.subtract(entries.by_key.len() as u64);
        self.counters.cells().kept_bytes.subtract(entries.bytes as u64);
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // The counters outlive it, and may be shared with another store.
        self.uncount_all(&self.lock());
    }
}

impl fmt::Debug for Store {
    /// Without the entries: their keys contain credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { max_age, max_bytes, .. } = self;
        f.debug_struct("Store")
            .field("max_age", max_age)
            .field("max_bytes", max_bytes)
            .finish_non_exhaustive()
    }
}

// === impl Entries ===

impl Entries {
    fn first(&self) -> Option<&Kept> {
        self.by_key.front().map(|(_, kept)| kept)
    }

    /// The first call whose answer may be kept.
    fn first_to_keep(&self, key: &[u8]) -> u64 {
        let kept = self.by_key.get(key).map(|kept| kept.next);
        kept.unwrap_or_else(|| self.fences.of(self.hash(key)))
    }

    fn raise_fence(&mut self, key: &[u8], first: u64) {
        self.fences.raise(self.hash(key), first);
    }

    fn hash(&self, key: &[u8]) -> u64 {
        self.by_key.hasher().hash_one(key)
    }
}

// === impl Kept ===

impl Kept {
    fn age(&self, now: Instant) -> Duration {
        self.answer.age.saturating_add(now.saturating_duration_since(self.at))
    }
}

/// The bytes that an entry takes; an empty one counts too, so that the limit bounds their number.
pub(crate) fn weight(key: &[u8], answer: &Answer) -> usize {
    let headers = |map: &HeaderMap| -> usize {
        map.iter().map(|(name, value)| name.as_str().len() + value.len() + HEADER).sum()
    };
    let Answer { headers: head, message, trailers, .. } = answer;
    OVERHEAD + key.len() + message.len() + headers(head) + headers(trailers)
}
