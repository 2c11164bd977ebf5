//! Which calls have time enough, and how much.

use super::{
    end::TICK,
    sample::{Sample, Slowest, Times},
};
use cinchona_core::{Deadline, Mode, Switch};
use cinchona_plumbing::{Latency, Paths, Reloadable};
use http::HeaderValue;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tonic::Status;

/// The limits of a layer's calls.
#[derive(Debug)]
pub(super) struct Limits {
    pub(super) limit: Option<Duration>,
    pub(super) hopeless: Switch,
    pub(super) switch: Switch,
    /// Written when a method is first called.
    fastest: Reloadable<Paths<Arc<Times>>>,
    slowest: Arc<Slowest>,
    writing: Mutex<()>,
}

/// The limits of a request.
pub(super) struct Terms {
    /// The time until its answer must have begun.
    pub(super) left: Option<Duration>,
    /// The time until it must have ended.
    pub(super) asked: Option<Duration>,
    pub(super) sample: Option<Sample>,
}

/// More methods than a server has; paths made up by clients are not remembered beyond it.
const MOST_METHODS: usize = 1000;

// === impl Limits ===

impl Limits {
    pub(super) fn new(limit: Option<Duration>, hopeless: Switch, switch: Switch) -> Self {
        let (fastest, slowest) = (Reloadable::new(Paths::default()), Arc::default());
        Self { limit, hopeless, switch, fastest, slowest, writing: Mutex::default() }
    }

    /// The limits of a request to `path` with this timeout, or why it is not begun.
    pub(super) fn admit(&self, path: &str, asked: Option<&HeaderValue>) -> Result<Terms, Status> {
        let asked = asked.map(Deadline::read_timeout).transpose();
        let asked = asked.map_err(|invalid| Status::internal(invalid.to_string()))?;
        let left = asked.into_iter().chain(self.limit).min();
        if left.is_some_and(|left| left <= TICK) {
            let left = left.unwrap_or_default();
            let message = format!("the deadline had passed on arrival: {left:?} left");
            return Err(Status::deadline_exceeded(message));
        }
        let mode = self.hopeless.mode();
        if mode == Mode::Off {
            return Ok(Terms { left, asked, sample: None });
        }
        // Most calls have more time left than any method takes, and another represents them.
        let weight = Latency::weight();
        if weight == 0 && !left.is_some_and(|left| self.slowest.exceeds(left)) {
            return Ok(Terms { left, asked, sample: None });
        }
        let known = self.fastest.get();
        let Some(times) = known.get(path) else {
            let sample = self.first_times(path).and_then(|times| Sample::of(&times, weight));
            return Ok(Terms { left, asked, sample });
        };
        if let Some((left, fastest)) = left.zip(times.fastest()) {
            self.look_for_hopeless(path, left, fastest, mode)?;
        }
        Ok(Terms { left, asked, sample: Sample::of(times, weight) })
    }

    /// Refuses a call that has less time left than the fastest takes, or counts it.
    fn look_for_hopeless(
        &self,
        path: &str,
        left: Duration,
        fastest: Duration,
        mode: Mode,
    ) -> Result<(), Status> {
        // A latency is known to within an eighth.
        if left >= fastest || left >= fastest.mul_f64(0.875) {
            return Ok(());
        }
        tracing::debug!(rpc.method = path, ?left, ?fastest, ?mode, "hopeless");
        if mode == Mode::Enforce {
            let message = format!("{left:?} left, and it takes {fastest:?} at best");
            return Err(Status::deadline_exceeded(message));
        }
        self.hopeless.count();
        Ok(())
    }

    #[cold]
    fn first_times(&self, path: &str) -> Option<Arc<Times>> {
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let fastest = self.fastest.get();
        if let Some(known) = fastest.get(path) {
            return Some(known.clone());
        }
        if fastest.len() >= MOST_METHODS {
            return None;
        }
        let times = Arc::new(Times::new(self.slowest.clone()));
        self.fastest.set(fastest.with(path, times.clone()));
        Some(times)
    }
}
