//! The last good answers, bounded by age and bytes.

use crate::{Counters, answer::Answer};
use cinchona_core::Invalid;
use hashlink::LinkedHashMap;
use http::HeaderMap;
use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// How long the last good answers are kept, and how many.
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
    /// An older answer is never given, and is dropped (`stale-if-error`, [RFC 5861]). 5 minutes
    /// unless said otherwise; more than 0.
    ///
    /// [RFC 5861]: https://www.rfc-editor.org/rfc/rfc5861#section-4
    pub max_age: Duration,
    /// The bytes that all answers may take, with the requests they answer; the least recently used
    /// make room. 16 MiB unless said otherwise; at least 1.
    pub max_bytes: usize,
    /// The bytes of a message up to which an answer is read before it is handed on. A larger one is
    /// handed on as it comes, and not kept. 64 KiB unless said otherwise; 1 to `max_bytes`.
    pub max_answer: usize,
}

/// The answers that are kept, by their requests.
pub(crate) struct Store {
    max_age: Duration,
    max_bytes: usize,
    entries: Mutex<Entries>,
    counters: Counters,
}

/// From the least to the most recently used.
#[derive(Default)]
struct Entries {
    by_key: LinkedHashMap<Key, Kept>,
    bytes: usize,
}

/// All that distinguishes a request from others, in full: a hash of it might be that of another.
pub(crate) type Key = Box<[u8]>;

struct Kept {
    answer: Arc<Answer>,
    at: Instant,
    bytes: usize,
}

/// What an entry takes besides its key, message and headers; roughly.
const OVERHEAD: usize = 256;
/// What a header takes besides its name and value (RFC 7541, 4.1).
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
        Self { max_age, max_bytes, entries: Mutex::default(), counters }
    }

    /// Keeps `answer`, which came `now`, in the place of an earlier one, if there is room for it.
    pub(crate) fn keep(&self, key: Key, answer: Answer, now: Instant) {
        let bytes = weight(&key, &answer);
        let kept = Kept { answer: Arc::new(answer), at: now, bytes };
        let mut entries = self.lock();
        self.forget(&mut entries, &key);
        if bytes > self.max_bytes {
            return;
        }
        while entries.bytes + bytes > self.max_bytes || self.has_expired(entries.first(), now) {
            let Some((_, evicted)) = entries.by_key.pop_front() else { break };
            self.uncount(&mut entries, &evicted);
        }
        entries.bytes += bytes;
        entries.by_key.insert(key, kept);
        self.counters.cells().kept_entries.count();
        self.counters.cells().kept_bytes.add(bytes);
    }

    /// The last good answer and its age, unless it is too old.
    pub(crate) fn find(&self, key: &[u8], now: Instant) -> Option<(Arc<Answer>, Duration)> {
        let mut entries = self.lock();
        let kept = entries.by_key.to_back(key)?;
        let age = now.saturating_duration_since(kept.at);
        if age > self.max_age {
            self.forget(&mut entries, key);
            return None;
        }
        Some((Arc::clone(&kept.answer), age))
    }

    fn has_expired(&self, kept: Option<&Kept>, now: Instant) -> bool {
        kept.is_some_and(|kept| now.saturating_duration_since(kept.at) > self.max_age)
    }

    fn forget(&self, entries: &mut Entries, key: &[u8]) {
        if let Some(kept) = entries.by_key.remove(key) {
            self.uncount(entries, &kept);
        }
    }

    fn uncount(&self, entries: &mut Entries, kept: &Kept) {
        entries.bytes -= kept.bytes;
        self.counters.cells().kept_entries.subtract(1);
        self.counters.cells().kept_bytes.subtract(kept.bytes);
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // The counters outlive it, and may be those of another store as well.
        let entries = self.entries.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.counters.cells().kept_entries.subtract(entries.by_key.len());
        self.counters.cells().kept_bytes.subtract(entries.bytes);
    }
}

impl fmt::Debug for Store {
    /// Without the entries: their keys hold credentials.
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
}

/// The bytes that an entry takes; an empty one is not free, so that the cap bounds their number.
pub(crate) fn weight(key: &[u8], answer: &Answer) -> usize {
    let headers = |map: &HeaderMap| -> usize {
        map.iter().map(|(name, value)| name.as_str().len() + value.len() + HEADER).sum()
    };
    let Answer { headers: head, message, trailers } = answer;
    OVERHEAD + key.len() + message.len() + headers(head) + headers(trailers)
}
