//! Limits: ours, and others as published.

use super::*;
use cinchona_policy::concurrency::{Entry, Limiter, Permit, Waits};
use std::{
    collections::HashMap,
    pin::Pin,
    task::{Context, Poll, Wake, Waker},
};

/// Admits calls, lets them wait, or refuses them.
pub(super) trait Regulator {
    fn offer(&mut self, call: usize, now: Duration) -> Offer;

    /// A call ends; which calls begin then, and which are refused.
    fn leave(&mut self, call: usize, answered: bool, now: Duration) -> (Vec<usize>, Vec<usize>);

    /// Whether it still waits.
    fn give_up(&mut self, _: usize) -> bool {
        false
    }

    fn limit(&self) -> u32;
}

pub(super) enum Offer {
    Admitted,
    Waits(Duration),
    TurnedAway,
}

/// Ours.
pub(super) struct Ours {
    limiter: Arc<Limiter>,
    queue: Queue,
    begun: HashMap<usize, Permit>,
    waiting: HashMap<usize, Waits>,
    woken: Arc<Mutex<Vec<usize>>>,
}

/// Records which of the waiting calls can be decided.
struct Woken(usize, Arc<Mutex<Vec<usize>>>);

/// A limit that sees calls one by one, and refuses immediately what is over it.
pub(super) struct Other<R> {
    pub(super) rule: R,
    pub(super) limit: f64,
    begun: HashMap<usize, (Duration, u32)>,
}

/// How the limit changes.
pub(super) trait Rule {
    fn update(&mut self, limit: f64, took: f64, among: f64, now: Duration) -> f64;
}

pub(super) struct Fixed;

/// TCP Vegas as in Netflix' `VegasLimit`: after each call.
pub(super) struct Vegas {
    least: f64,
    probes: f64,
    rng: SmallRng,
    jitter: f64,
}

/// Netflix' `Gradient2Limit`, once a second by the mean of that second (`WindowedLimit`).
#[derive(Default)]
pub(super) struct Gradient {
    long: f64,
    windows: u32,
    sum: f64,
    calls: f64,
    most: f64,
    ends: Duration,
}

// === impl Ours ===

impl Ours {
    pub(super) fn boxed(limit: Limit, queue: Queue) -> Box<dyn Regulator> {
        let limiter = Limiter::new(limit, queue, Instant::now());
        Box::new(Self {
            limiter,
            queue,
            begun: HashMap::new(),
            waiting: HashMap::new(),
            woken: Arc::default(),
        })
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.1.lock().unwrap().push(self.0);
    }
}

impl Regulator for Ours {
    fn offer(&mut self, call: usize, _: Duration) -> Offer {
        match self.limiter.enter(|| Criticality::Critical) {
            Entry::Admitted(permit) => {
                self.begun.insert(call, permit);
                Offer::Admitted
            }
            Entry::Waits(mut waits, _) => {
                let waker = Arc::new(Woken(call, self.woken.clone())).into();
                _ = Pin::new(&mut waits).poll(&mut Context::from_waker(&waker));
                self.waiting.insert(call, waits);
                Offer::Waits(self.queue.longest)
            }
            Entry::TurnedAway => Offer::TurnedAway,
        }
    }

    fn leave(&mut self, call: usize, answered: bool, _: Duration) -> (Vec<usize>, Vec<usize>) {
        if let Some(mut permit) = self.begun.remove(&call) {
            permit.answered(answered);
        }
        let (mut begun, mut away) = (Vec::new(), Vec::new());
        for call in std::mem::take(&mut *self.woken.lock().unwrap()) {
            let Some(mut waits) = self.waiting.remove(&call) else { continue };
            match Pin::new(&mut waits).poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Ok(permit)) => {
                    self.begun.insert(call, permit);
                    begun.push(call);
                }
                _ => away.push(call),
            }
        }
        (begun, away)
    }

    fn give_up(&mut self, call: usize) -> bool {
        self.waiting.remove(&call).is_some()
    }

    fn limit(&self) -> u32 {
        self.limiter.limit()
    }
}

// === impl Other ===

impl<R: Rule + 'static> Other<R> {
    pub(super) fn boxed(limit: f64, rule: R) -> Box<dyn Regulator> {
        Box::new(Self { rule, limit, begun: HashMap::new() })
    }
}

impl<R: Rule> Regulator for Other<R> {
    fn offer(&mut self, call: usize, now: Duration) -> Offer {
        if self.begun.len() >= self.limit as usize {
            return Offer::TurnedAway;
        }
        self.begun.insert(call, (now, self.begun.len() as u32 + 1));
        Offer::Admitted
    }

    fn leave(&mut self, call: usize, _: bool, now: Duration) -> (Vec<usize>, Vec<usize>) {
        let (began, among) = self.begun.remove(&call).unwrap();
        let took = (now - began).as_secs_f64() * 1000.0;
        self.limit = self.rule.update(self.limit, took, among.into(), now);
        (Vec::new(), Vec::new())
    }

    fn limit(&self) -> u32 {
        self.limit as u32
    }
}

// === impl Fixed ===

impl Rule for Fixed {
    fn update(&mut self, limit: f64, _: f64, _: f64, _: Duration) -> f64 {
        limit
    }
}

// === impl Vegas ===

impl Vegas {
    pub(super) fn new() -> Self {
        Self { least: 0.0, probes: 0.0, rng: Rng::seeded(3).draw(), jitter: 0.75 }
    }
}

impl Rule for Vegas {
    fn update(&mut self, limit: f64, took: f64, among: f64, _: Duration) -> f64 {
        self.probes += 1.0;
        if self.probes >= self.jitter * 30.0 * limit {
            self.jitter = self.rng.random_range(0.5..1.0);
            (self.probes, self.least) = (0.0, took);
            return limit;
        }
        if self.least == 0.0 || took < self.least {
            self.least = took;
            return limit;
        }
        if 2.0 * among < limit {
            return limit;
        }
        let step = limit.log10().floor().max(1.0);
        let queue = (limit * (1.0 - self.least / took)).ceil();
        let change = match queue {
            _ if queue <= step => 6.0 * step,
            _ if queue < 3.0 * step => step,
            _ if queue > 6.0 * step => -step,
            _ => 0.0,
        };
        (limit + change).clamp(1.0, 1000.0)
    }
}

// === impl Gradient ===

impl Rule for Gradient {
    fn update(&mut self, limit: f64, took: f64, among: f64, now: Duration) -> f64 {
        (self.sum, self.calls) = (self.sum + took, self.calls + 1.0);
        self.most = self.most.max(among);
        if now < self.ends || self.calls < 10.0 {
            return limit;
        }
        let (short, most) = (self.sum / self.calls, self.most);
        (self.sum, self.calls, self.most, self.ends) = (0.0, 0.0, 0.0, now + SECOND);
        self.windows += 1;
        self.long = match self.windows {
            // The mean of the first ten, and after that a moving one over 600.
            n @ ..=10 => self.long + (short - self.long) / f64::from(n),
            _ => self.long + (short - self.long) * 2.0 / 601.0,
        };
        if self.long / short > 2.0 {
            self.long *= 0.9;
        }
        if most < limit / 2.0 {
            return limit;
        }
        let wanted = limit * (self.long / short).clamp(0.5, 1.0) + 4.0;
        (limit * 0.8 + wanted * 0.2).clamp(20.0, 200.0)
    }
}
