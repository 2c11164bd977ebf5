//! One simulation for several limits: random arrivals, a server that queues or does not, and
//! callers that give up.

mod regulators;
mod report;
mod servers;

use super::*;
use rand::{RngExt, rngs::SmallRng};
use regulators::{Offer, Regulator};
use servers::Server;
use std::{cmp::Reverse, collections::BinaryHeap};
use tokio::time::advance;

/// How long a caller waits.
const PATIENCE: Duration = Duration::from_millis(500);

/// The calls, and their server.
#[derive(Clone)]
struct Shape {
    name: &'static str,
    server: Server,
    /// Calls a second.
    rate: f64,
    seconds: u64,
    /// The time from which results count.
    from: u64,
}

/// The outcomes of the calls.
#[derive(Debug, Default)]
struct Outcome {
    offered: u64,
    shed: u64,
    /// The latency of each call answered in time, sorted.
    good: Vec<Duration>,
    /// The limit at the end of each second.
    limits: Vec<u32>,
    counted: f64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A call ends; the second is whether it was answered.
    Ends(usize, bool),
    GivesUpWaiting(usize),
    Comes,
    Second,
}

struct Run<'a> {
    shape: &'a Shape,
    regulator: Box<dyn Regulator>,
    server: Server,
    rng: SmallRng,
    events: BinaryHeap<Reverse<(Duration, Event)>>,
    /// When each call arrived.
    came: Vec<Duration>,
    outcome: Outcome,
}

// === impl Shape ===

impl Shape {
    async fn run(&self, regulator: Box<dyn Regulator>) -> Outcome {
        let mut run = Run {
            shape: self,
            regulator,
            server: self.server.clone(),
            rng: Rng::seeded(7).draw(),
            events: BinaryHeap::new(),
            came: Vec::new(),
            outcome: Outcome::default(),
        };
        run.at(Duration::ZERO, Event::Comes);
        run.at(SECOND, Event::Second);
        run.all().await;
        run.outcome.good.sort_unstable();
        run.outcome.counted = (self.seconds - self.from) as f64;
        run.outcome
    }
}

// === impl Run ===

impl Run<'_> {
    fn at(&mut self, at: Duration, event: Event) {
        self.events.push(Reverse((at, event)));
    }

    async fn all(&mut self) {
        let mut now = Duration::ZERO;
        while let Some(Reverse((at, event))) = self.events.pop() {
            if at > Duration::from_secs(self.shape.seconds) {
                return;
            }
            if at > now {
                advance(at - now).await;
                now = at;
            }
            match event {
                Event::Comes => self.comes(now),
                Event::Ends(call, answered) => self.ends(call, answered, now),
                Event::GivesUpWaiting(call) => {
                    if self.regulator.give_up(call) {
                        self.shed(call);
                    }
                }
                Event::Second => {
                    self.outcome.limits.push(self.regulator.limit());
                    self.at(now + SECOND, Event::Second);
                }
            }
        }
    }

    fn comes(&mut self, now: Duration) {
        let chance: f64 = self.rng.random();
        let next = Duration::from_secs_f64(-(1.0 - chance).ln() / self.shape.rate);
        self.at(now + next, Event::Comes);
        let call = self.came.len();
        self.came.push(now);
        self.outcome.offered += u64::from(self.counts(call));
        match self.regulator.offer(call, now) {
            Offer::Admitted => self.begins(call, now),
            Offer::Waits(until) => self.at(now + until, Event::GivesUpWaiting(call)),
            Offer::TurnedAway => self.shed(call),
        }
    }

    fn begins(&mut self, call: usize, now: Duration) {
        let done = self.server.begin(now, &mut self.rng);
        let patience = self.came[call] + PATIENCE;
        self.at(done.min(patience), Event::Ends(call, done <= patience));
    }

    fn ends(&mut self, call: usize, answered: bool, now: Duration) {
        if answered && self.counts(call) {
            self.outcome.good.push(now - self.came[call]);
        }
        let (begun, turned_away) = self.regulator.leave(call, answered, now);
        begun.into_iter().for_each(|call| self.begins(call, now));
        turned_away.into_iter().for_each(|call| self.shed(call));
    }

    fn shed(&mut self, call: usize) {
        self.outcome.shed += u64::from(self.counts(call));
    }

    fn counts(&self, call: usize) -> bool {
        self.came[call] >= Duration::from_secs(self.shape.from)
    }
}

// === impl Outcome ===

impl Outcome {
    fn shed_percent(&self) -> f64 {
        100.0 * self.shed as f64 / self.offered.max(1) as f64
    }

    /// Calls a second.
    fn goodput(&self) -> f64 {
        self.good.len() as f64 / self.counted
    }

    fn p99(&self) -> Duration {
        self.good.get(self.good.len() * 99 / 100).copied().unwrap_or_default()
    }
}
