//! What is counted of a method: handles that a call finds once and then only adds to.

use crate::{
    histogram::Histogram,
    metrics::Known,
    names::{self, Instrument},
};
use cinchona_core::Live;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, atomic::AtomicU64};
use tonic::Code;

/// The calls of a method, as the application sees them.
#[derive(Debug)]
pub(crate) struct Calls {
    pub(crate) duration: PerStatus<Histogram>,
    pub(crate) retries: Histogram,
    pub(crate) transparent_retries: Histogram,
    pub(crate) hedges: Histogram,
    pub(crate) retry_delay: Histogram,
}

/// The attempts at a method, or the calls of it that a server got.
#[derive(Debug)]
pub(crate) struct Transfers {
    pub(crate) started: AtomicU64,
    pub(crate) ended: PerStatus<Transfer>,
    names: &'static TransferNames,
}

/// Those that ended with one status.
#[derive(Debug)]
pub(crate) struct Transfer {
    pub(crate) duration: Histogram,
    pub(crate) sent: Histogram,
    pub(crate) received: Histogram,
}

/// By which names they are known.
#[derive(Debug)]
pub(crate) struct TransferNames {
    pub(crate) started: Instrument,
    pub(crate) duration: Instrument,
    pub(crate) sent: Instrument,
    pub(crate) received: Instrument,
}

/// A value for each status code, made when it is first needed.
#[derive(Debug)]
pub(crate) struct PerStatus<T>([OnceLock<Box<T>>; 17]);

/// The series of each method; of what nobody has registered, those of `other` (gRFC A66).
#[derive(Debug)]
pub(crate) struct Table<T> {
    /// In order; a few, so that a search takes less than a hash.
    methods: Live<Vec<(Box<str>, Arc<T>)>>,
    other: OnceLock<Arc<T>>,
    known: Arc<Known>,
    /// Held while a method is added.
    adding: Mutex<()>,
    new: fn() -> T,
}

pub(crate) const ATTEMPT: TransferNames = TransferNames {
    started: names::ATTEMPT_STARTED,
    duration: names::ATTEMPT_DURATION,
    sent: names::ATTEMPT_SENT,
    received: names::ATTEMPT_RCVD,
};

pub(crate) const SERVER: TransferNames = TransferNames {
    started: names::SERVER_STARTED,
    duration: names::SERVER_DURATION,
    sent: names::SERVER_SENT,
    received: names::SERVER_RCVD,
};

// === impl Calls ===

impl Calls {
    pub(crate) fn new() -> Self {
        Self {
            duration: PerStatus::default(),
            retries: Histogram::new(&names::CALL_RETRIES),
            transparent_retries: Histogram::new(&names::CALL_TRANSPARENT_RETRIES),
            hedges: Histogram::new(&names::CALL_HEDGES),
            retry_delay: Histogram::new(&names::CALL_RETRY_DELAY),
        }
    }

    pub(crate) fn duration(&self, code: Code) -> &Histogram {
        self.duration.get(code, || Histogram::new(&names::CALL_DURATION))
    }
}

// === impl Transfers ===

impl Transfers {
    pub(crate) fn of_attempts() -> Self {
        Self::of(&ATTEMPT)
    }

    pub(crate) fn of_server() -> Self {
        Self::of(&SERVER)
    }

    fn of(names: &'static TransferNames) -> Self {
        Self { started: AtomicU64::new(0), ended: PerStatus::default(), names }
    }

    pub(crate) fn ended(&self, code: Code) -> &Transfer {
        self.ended.get(code, || Transfer {
            duration: Histogram::new(&self.names.duration),
            sent: Histogram::new(&self.names.sent),
            received: Histogram::new(&self.names.received),
        })
    }
}

// === impl PerStatus ===

impl<T> PerStatus<T> {
    fn get(&self, code: Code, new: impl FnOnce() -> T) -> &T {
        self.0[code as usize].get_or_init(|| Box::new(new()))
    }

    /// Those that there are.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Code, &T)> {
        let coded = (0..).map(Code::from_i32).zip(&self.0);
        coded.filter_map(|(code, value)| Some((code, &**value.get()?)))
    }
}

impl<T> Default for PerStatus<T> {
    fn default() -> Self {
        Self([const { OnceLock::new() }; 17])
    }
}

// === impl Table ===

impl<T> Table<T> {
    pub(crate) fn new(known: &Arc<Known>, new: fn() -> T) -> Self {
        Self {
            methods: Live::new(Vec::new()),
            other: OnceLock::new(),
            known: known.clone(),
            adding: Mutex::default(),
            new,
        }
    }

    /// The series of the method at `path`, if it `is_known` to the caller or was registered; one
    /// look-up once there are any.
    pub(crate) fn get(&self, path: &str, is_known: impl FnOnce() -> bool) -> Arc<T> {
        let methods = self.methods.get();
        if let Ok(at) = find(&methods, path) {
            return methods[at].1.clone();
        }
        drop(methods);
        if is_known() || self.known.contains(path) {
            self.add(path)
        } else {
            self.other.get_or_init(|| Arc::new((self.new)())).clone()
        }
    }

    fn add(&self, path: &str) -> Arc<T> {
        let _alone = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        let mut methods = Vec::clone(&self.methods.get());
        match find(&methods, path) {
            Ok(at) => methods[at].1.clone(),
            Err(at) => {
                let added = Arc::new((self.new)());
                methods.insert(at, (path.into(), added.clone()));
                self.methods.set(methods);
                added
            }
        }
    }

    /// The label of each method, and its series, in order.
    pub(crate) fn all(&self) -> Vec<(String, Arc<T>)> {
        let label = |path: &str| path.strip_prefix('/').unwrap_or(path).to_owned();
        let methods = self.methods.get();
        let mut all: Vec<_> =
            methods.iter().map(|(path, own)| (label(path), own.clone())).collect();
        all.extend(self.other.get().map(|other| ("other".to_owned(), other.clone())));
        all
    }
}

fn find<T>(methods: &[(Box<str>, Arc<T>)], path: &str) -> Result<usize, usize> {
    methods.binary_search_by(|(own, _)| (**own).cmp(path))
}
