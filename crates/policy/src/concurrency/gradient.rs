//! How the adaptive limit follows from each window.

use super::adaptive::Adaptive;
use std::time::Duration;

/// The measurements of a window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// The calls that began with fewer in flight than those of the window before,
    pub(crate) few: Group,
    /// and the others.
    pub(crate) many: Group,
    /// Calls that were abandoned before they were answered.
    pub(crate) lost: u32,
    pub(crate) took: Duration,
    /// How many were in flight at its end.
    pub(crate) in_progress: u32,
    /// Whether the limit was reached.
    pub(crate) met: bool,
}

/// Calls, and the means of their logarithms.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Group {
    pub(crate) calls: u64,
    /// Their latency, as log2 of microseconds.
    pub(crate) latency: f64,
    /// How many were in flight when they began, including themselves, as log2.
    pub(crate) among: f64,
}

/// The state learned from the windows so far.
#[derive(Clone, Debug)]
pub(crate) struct Finder {
    settings: Adaptive,
    limit: f64,
    /// As log2 of microseconds; `None` before the first window.
    baseline: Option<f64>,
    in_progress: u32,
    /// Windows in a row in which calls seemed to queue.
    suspect: u32,
    slow: Option<Slow>,
    /// Windows in a row in which the limit was reached, and calls were fast.
    fast: u32,
    trial: Option<Trial>,
}

/// Calls have become slower, and the limit was not reached since.
#[derive(Clone, Copy, Debug, Default)]
struct Slow {
    /// How many were in flight when it began, and have ended since.
    from: u32,
    calls: f64,
    windows: u32,
    /// The statistics of a regression on the number in flight: its variance, and the covariance
    /// with the latency, with decaying weights for older windows.
    variance: f64,
    covariance: f64,
}

/// How many were in flight at two times, and how many ended between them.
#[derive(Clone, Copy, Debug)]
struct Grown {
    from: u32,
    to: u32,
    calls: f64,
}

/// The verdict on slow calls.
enum Thought {
    Unsure,
    /// They pile up, as if they queued,
    Piling,
    /// or are slow by themselves.
    Independent,
}

/// A lower limit is tried.
#[derive(Clone, Copy, Debug)]
struct Trial {
    /// The limit before it, and what was seen then.
    limit: f64,
    before: Seen,
    /// The calls that end in this window may have begun before the limit was this low.
    is_settling: bool,
}

/// The result of a trial.
enum Judgement {
    Later,
    Queue,
    /// With the limit before it.
    Independent(f64),
}

/// How much the limit grows in a window in which it refused no calls.
const RECOVERY: f64 = 1.25;
/// The growth of the number in flight, as a share of those that ended, at which calls pile up.
const GROWTH: f64 = 0.05;
/// From this slope on calls queue; this many windows in a row are no coincidence.
const QUEUE: f64 = 0.5;
const SURE: u32 = 2;
/// The decrease of the number in flight that makes a comparison meaningful, as log2.
const FEWER: f64 = 0.3;
/// Below this slope they do not.
const INDEPENDENT: f64 = 0.25;
/// The variance of the number in flight that makes a regression meaningful.
const ENOUGH: f64 = 40.0;
/// The share of the way down that the baseline follows a window.
const FOLLOWED: f64 = 0.2;
/// The decay of the baseline in each window in which the limit was reached, as log2.
const FORGOTTEN: f64 = 0.015;

// === impl Seen ===

impl Seen {
    fn calls(&self) -> u64 {
        self.few.calls + self.many.calls
    }

    /// The calls that have ended, answered or not.
    fn ended(&self) -> f64 {
        self.calls() as f64 + f64::from(self.lost)
    }

    fn mean(&self, of: impl Fn(&Group) -> f64) -> f64 {
        let sum = |group: &Group| of(group) * group.calls as f64;
        (sum(&self.few) + sum(&self.many)) / self.calls().max(1) as f64
    }

    fn latency(&self) -> f64 {
        self.mean(|group| group.latency)
    }

    /// The geometric mean of the latency.
    pub(crate) fn nanos(&self) -> u64 {
        (self.latency().exp2() * 1024.0) as u64
    }

    /// The geometric mean of the number in flight when they began.
    pub(crate) fn among(&self) -> f64 {
        self.mean(|group| group.among).exp2()
    }

    /// The latency of calls that do not queue, as far as one window shows it.
    fn alone(&self) -> f64 {
        match self.slope() {
            Some(slope) if slope >= QUEUE => self.few.latency,
            _ => self.latency(),
        }
    }

    fn throughput(&self) -> f64 {
        (self.calls().max(1) as f64 / self.took.as_secs_f64().max(1e-6)).log2()
    }

    /// How much of a regression the slope is.
    fn weight(&self) -> f64 {
        let (few, many) = (self.few.calls as f64, self.many.calls as f64);
        few * many / (few + many) * (self.many.among - self.few.among).powi(2)
    }

    /// The exponent of the number in flight in the latency: 0 where calls do not queue, 1 in a
    /// queue. `None` where the number was about constant.
    fn slope(&self) -> Option<f64> {
        let among = self.many.among - self.few.among;
        let enough = self.few.calls.min(self.many.calls) >= 5 && among >= 0.3;
        enough.then(|| (self.many.latency - self.few.latency) / among)
    }
}

// === impl Grown ===

impl Grown {
    fn more(self) -> f64 {
        f64::from(self.to) - f64::from(self.from)
    }

    fn is_much(self) -> bool {
        self.more() >= GROWTH * self.calls
    }

    /// More than chance would give.
    fn is_significant(self) -> bool {
        self.is_much() && self.more() >= 2.0 * self.calls.sqrt()
    }
}

// === impl Slow ===

impl Slow {
    fn think(&mut self, seen: &Seen, window: Grown) -> Thought {
        self.windows += 1;
        self.calls += window.calls;
        if let Some(slope) = seen.slope() {
            let weight = seen.weight();
            self.variance = self.variance * 0.7 + weight;
            self.covariance = self.covariance * 0.7 + weight * slope;
        }
        let all = Grown { from: self.from, calls: self.calls, ..window };
        if self.variance >= ENOUGH && self.covariance < INDEPENDENT * self.variance {
            Thought::Independent
        } else if self.windows >= 3 && window.more() > 0.0 && all.is_significant() {
            Thought::Piling
        } else if self.windows >= 5 && self.calls >= 400.0 && !all.is_much() {
            Thought::Independent
        } else {
            Thought::Unsure
        }
    }
}

// === impl Trial ===

impl Trial {
    /// Whether calls are faster, and as many end, with fewer in flight.
    fn judge(&mut self, seen: &Seen) -> Judgement {
        if std::mem::take(&mut self.is_settling) {
            return Judgement::Later;
        }
        let among = seen.among().log2() - self.before.among().log2();
        let throughput = seen.throughput() - self.before.throughput();
        // Measured, and by Little's law: two estimates with independent errors.
        let latency = seen.latency() - self.before.latency();
        let faster = f64::midpoint(latency, among - throughput);
        match () {
            // The number in flight has not fallen: the window shows nothing.
            () if among > -FEWER => Judgement::Queue,
            () if faster / among < QUEUE => Judgement::Independent(self.limit),
            () => Judgement::Queue,
        }
    }
}

// === impl Finder ===

impl Finder {
    pub(crate) fn new(settings: Adaptive) -> Self {
        Self {
            settings,
            limit: settings.initial.into(),
            baseline: None,
            in_progress: 0,
            suspect: 0,
            slow: None,
            fast: 0,
            trial: None,
        }
    }

    /// The limit from now on.
    pub(crate) fn update(&mut self, seen: &Seen) -> u32 {
        let lost = f64::from(seen.lost) / seen.ended().max(1.0);
        if lost > 0.5 {
            // All work is abandoned by its callers.
            self.hopeless(seen);
            return self.applied();
        }
        let latency = seen.latency();
        let mut baseline = self.baseline.unwrap_or_else(|| seen.alone());
        // One window may be fast by chance.
        baseline += (latency - baseline).min(0.0) * FOLLOWED;
        self.baseline = Some(baseline);
        // Above 0: slower than tolerated.
        let mut excess = latency - baseline - self.settings.tolerance.log2();
        if lost > 0.1 {
            excess = excess.max(0.1);
        }
        if seen.met {
            self.met(seen, excess);
        } else {
            self.unmet(seen, excess);
        }
        self.in_progress = seen.in_progress;
        self.applied()
    }

    /// The limit after a second in which it was reached and no call ended.
    pub(crate) fn stalled(&mut self) -> u32 {
        self.trial = None;
        self.set(self.limit * 2.0);
        self.applied()
    }

    /// More calls were abandoned than answered.
    fn hopeless(&mut self, seen: &Seen) {
        (self.slow, self.suspect, self.fast, self.trial) = (None, 0, 0, None);
        self.set(self.limit.min(f64::from(seen.in_progress)) / 2.0);
    }

    /// The limit refused no calls.
    fn unmet(&mut self, seen: &Seen, excess: f64) {
        (self.fast, self.trial) = (0, None);
        let grown = Grown { from: self.in_progress, to: seen.in_progress, calls: seen.ended() };
        if let Some(slope) = seen.slope() {
            let is_slower = excess > -0.5 * self.settings.tolerance.log2();
            let is_queue = slope >= QUEUE && grown.is_much() && is_slower;
            self.suspect = if is_queue { self.suspect + 1 } else { 0 };
        }
        if excess <= 0.0 {
            self.slow = None;
            return self.set(self.limit * RECOVERY);
        }
        if self.suspect >= SURE {
            self.slow = None;
            return self.set(seen.among() * (-excess).exp2());
        }
        let slow = self.slow.get_or_insert(Slow { from: self.in_progress, ..Slow::default() });
        match slow.think(seen, grown) {
            Thought::Unsure => return,
            Thought::Piling => self.set(seen.in_progress.into()),
            Thought::Independent => self.baseline = Some(seen.latency()),
        }
        self.slow = None;
    }

    /// The limit refused calls.
    fn met(&mut self, seen: &Seen, excess: f64) {
        (self.slow, self.suspect) = (None, 0);
        if let Some(baseline) = &mut self.baseline {
            *baseline -= FORGOTTEN;
        }
        match self.trial.as_mut().map(|trial| trial.judge(seen)) {
            Some(Judgement::Later) => return,
            Some(Judgement::Independent(limit)) => {
                let baseline = self.baseline.unwrap_or_default();
                self.innocent(f64::midpoint(baseline, seen.latency()));
                return self.set(limit);
            }
            Some(Judgement::Queue) | None => self.trial = None,
        }
        if excess <= 0.0 {
            let step = self.limit.sqrt() * (f64::from(self.fast.min(20)) / 2.0).exp2();
            self.fast += 1;
            return self.set(self.limit + step.min(self.limit));
        }
        self.fast = 0;
        if self.applied() == self.settings.min {
            // No lower limit can be tried.
            return self.innocent(seen.latency());
        }
        self.trial = Some(Trial { limit: self.limit, before: *seen, is_settling: true });
        self.set(self.limit * (-excess).exp2().clamp(0.5, 0.7));
    }

    /// The service itself is that slow.
    fn innocent(&mut self, latency: f64) {
        self.baseline = Some(latency);
        (self.slow, self.trial) = (None, None);
    }

    fn set(&mut self, limit: f64) {
        self.limit = limit.clamp(self.settings.min.into(), self.settings.max.into());
    }

    fn applied(&self) -> u32 {
        self.limit as u32
    }
}

#[cfg(test)]
mod tests;
