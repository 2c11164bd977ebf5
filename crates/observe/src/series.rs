//! The counts of a method: handles that a call looks up once and then only adds to.

use crate::{
    histogram::{Bounds, Histogram},
    known::Known,
    names,
    shard::{Count, Sharded, Writer},
};
use cinchona_core::MethodKind;
use cinchona_plumbing::{Reloadable, Seldom};
use std::sync::{
    Arc, Mutex, OnceLock, PoisonError,
    atomic::{AtomicU64, Ordering},
};
use tokio::time::Instant;
use tonic::Code;

/// A method of a client or of a server, and the counts of each thread.
#[derive(Debug)]
pub(crate) struct Method {
    /// `None` for all methods without a name.
    path: Option<Box<str>>,
    /// What it streams, if known.
    pub(crate) kind: Option<MethodKind>,
    table: u64,
    threads: Sharded<Counted>,
    /// Rate-limits the lines of failed calls, by code, as callers can cause them.
    failed: OnceLock<Box<[Seldom; 17]>>,
}

/// The counts of a method in one thread.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    /// A client's calls.
    pub(crate) calls: PerStatus<Latency>,
    pub(crate) repeated: OnceLock<Box<Repeated>>,
    /// A client's attempts, or a server's calls.
    pub(crate) transfers: Transfers,
}

/// The calls that took more than one attempt.
#[derive(Debug, Default)]
pub(crate) struct Repeated {
    pub(crate) retries: Histogram<6>,
    pub(crate) transparent_retries: Histogram<7>,
    pub(crate) hedges: Histogram<6>,
    pub(crate) delay: Latency,
}

/// The bytes of messages in both directions.
#[derive(Debug, Default)]
pub(crate) struct Transfers {
    pub(crate) started: Count,
    pub(crate) ended: PerStatus<Transfer>,
}

/// The calls that ended with one status.
#[derive(Debug, Default)]
pub(crate) struct Transfer {
    pub(crate) duration: Latency,
    pub(crate) sent: Size,
    pub(crate) received: Size,
}

/// A value for each status code, created when first needed.
#[derive(Debug)]
pub(crate) struct PerStatus<T>([OnceLock<Box<T>>; 17]);

/// The methods of a client or of a server; unregistered ones are `other` (gRFC A66).
#[derive(Debug)]
pub(crate) struct Table {
    id: u64,
    /// Sorted; few, so that a search is faster than hashing.
    methods: Reloadable<Vec<Arc<Method>>>,
    other: OnceLock<Arc<Method>>,
    known: Arc<Known>,
    /// Held while a method is added.
    adding: Mutex<()>,
}

/// Of [`LATENCY`].
pub(crate) type Latency = Histogram<42>;

/// Of [`SIZE`].
pub(crate) type Size = Histogram<15>;

pub(crate) static LATENCY: Bounds = Bounds::of(names::LATENCY);
pub(crate) static SIZE: Bounds = Bounds::of(names::SIZE);
pub(crate) static FEW: Bounds = Bounds::of(names::FEW);
static SOME: Bounds = Bounds::of(names::SOME);

/// All status codes.
pub(crate) const CODES: [Code; 17] = {
    let (mut codes, mut at) = ([Code::Ok; 17], 0);
    while at < codes.len() {
        codes[at] = Code::from_i32(at as i32);
        at += 1;
    }
    codes
};

// === impl Method ===

impl Method {
    fn new(path: Option<&str>, kind: Option<MethodKind>, table: u64) -> Arc<Self> {
        let path = path.map(Into::into);
        Arc::new(Self { path, kind, table, threads: Sharded::default(), failed: OnceLock::new() })
    }

    /// Whether a failure with this code has a line now, and not only a count.
    #[cold]
    pub(crate) fn has_line(&self, code: Code) -> bool {
        let more = |more| tracing::error!(target: "cinchona_observe", more, "more calls failed");
        let failed = self.failed.get_or_init(|| Box::new([(); 17].map(|()| Seldom::new(more))));
        failed[code as usize].is_due(Instant::now())
    }

    /// Whether this is the entry of `table` for `path`.
    #[inline]
    pub(crate) fn is(&self, table: &Table, path: &str) -> bool {
        self.table == table.id && self.path.as_deref() == Some(path)
    }

    /// Its path, if it has a name.
    pub(crate) fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }

    /// In the form of a label.
    pub(crate) fn label(&self) -> &str {
        let path = self.path.as_deref().unwrap_or("other");
        path.strip_prefix('/').unwrap_or(path)
    }

    /// The counts of this thread.
    #[inline]
    pub(crate) fn own(&self) -> (&Counted, Writer) {
        self.threads.own()
    }

    /// The counts of each thread.
    pub(crate) fn threads(&self) -> impl Iterator<Item = &Counted> + Clone {
        self.threads.iter()
    }
}

// === impl Counted ===

impl Counted {
    /// A call of a client has ended with `code`.
    #[inline]
    pub(crate) fn ended(&self, code: Code, nanos: u64, writer: Writer) {
        self.calls.get(code).record(&LATENCY, nanos, writer);
    }
}

// === impl Repeated ===

impl Repeated {
    /// The number of attempts of each kind in a call; zero is not reported (gRFC A96).
    pub(crate) fn ended(&self, [retries, transparent, hedges]: [u32; 3], writer: Writer) {
        if retries > 0 {
            self.retries.record(&FEW, retries.into(), writer);
        }
        if transparent > 0 {
            self.transparent_retries.record(&SOME, transparent.into(), writer);
        }
        if hedges > 0 {
            self.hedges.record(&FEW, hedges.into(), writer);
        }
    }
}

// === impl Transfers ===

impl Transfers {
    /// One has ended with `code`, after so many bytes of messages.
    #[inline]
    pub(crate) fn ended(&self, code: Code, nanos: u64, [sent, rcvd]: [u64; 2], writer: Writer) {
        let of = self.ended.get(code);
        of.duration.record(&LATENCY, nanos, writer);
        of.sent.record(&SIZE, sent, writer);
        of.received.record(&SIZE, rcvd, writer);
    }
}

// === impl PerStatus ===

impl<T: Default> PerStatus<T> {
    #[inline]
    fn get(&self, code: Code) -> &T {
        self.0[code as usize].get_or_init(Box::default)
    }
}

impl<T> PerStatus<T> {
    /// If there is any.
    pub(crate) fn find(&self, code: Code) -> Option<&T> {
        self.0[code as usize].get().map(|value| &**value)
    }
}

impl<T> Default for PerStatus<T> {
    fn default() -> Self {
        Self([const { OnceLock::new() }; 17])
    }
}

// === impl Table ===

impl Table {
    pub(crate) fn new(known: &Arc<Known>) -> Self {
        static TABLES: AtomicU64 = AtomicU64::new(0);
        Self {
            id: TABLES.fetch_add(1, Ordering::Relaxed),
            methods: Reloadable::new(Vec::new()),
            other: OnceLock::new(),
            known: known.clone(),
            adding: Mutex::default(),
        }
    }

    /// The method at `path`, if it `is_known` to the caller or was registered; one look-up once
    /// there are any.
    pub(crate) fn get(&self, path: &str, is_known: impl FnOnce() -> bool) -> Arc<Method> {
        let methods = self.methods.get();
        if let Ok(at) = find(&methods, path) {
            return methods[at].clone();
        }
        drop(methods);
        if is_known() || self.known.contains(path) {
            self.add(path)
        } else {
            self.other.get_or_init(|| Method::new(None, None, self.id)).clone()
        }
    }

    fn add(&self, path: &str) -> Arc<Method> {
        let _alone = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        let mut methods = Vec::clone(&self.methods.get());
        match find(&methods, path) {
            Ok(at) => methods[at].clone(),
            Err(at) => {
                let kind = self.known.methods.kind(path);
                let added = Method::new(Some(path), kind, self.id);
                methods.insert(at, added.clone());
                self.methods.set(methods);
                added
            }
        }
    }

    /// All methods, in order.
    pub(crate) fn all(&self) -> Vec<Arc<Method>> {
        let mut all = Vec::clone(&self.methods.get());
        all.extend(self.other.get().cloned());
        all
    }
}

fn find(methods: &[Arc<Method>], path: &str) -> Result<usize, usize> {
    methods.binary_search_by(|method| method.path.as_deref().cmp(&Some(path)))
}
