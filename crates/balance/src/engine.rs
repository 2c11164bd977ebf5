//! The task of a balancer: it follows the source, runs a task for each endpoint, and updates the
//! choice after events.

use crate::{
    Picker, State,
    channel::Connector,
    drive::Driver,
    node::Node,
    set::{Set, Source},
    source::{Driven, News},
};
use cinchona_core::Discover;
use cinchona_plumbing::clock::period;
use cinchona_policy::connect::First;
use std::{
    collections::HashMap,
    num::NonZeroU64,
    sync::{Arc, Weak, atomic::Ordering},
};
use tokio::{
    task::{AbortHandle, JoinSet},
    time::{Instant, Interval, MissedTickBehavior, interval, sleep_until},
};

/// The state of the task. It holds the set weakly: dropping the last clone of the balancer ends it.
pub(crate) struct Engine {
    set: Weak<Set>,
    connector: Connector,
    source: Option<Driven>,
    running: HashMap<NonZeroU64, AbortHandle>,
    tasks: JoinSet<()>,
    /// For [`Picker::PickFirst`].
    first: Option<First>,
    /// When `first` must be updated.
    turn: Option<Instant>,
}

/// Marks at its end that no task connects endpoints any more.
struct Gone(Weak<Set>);

/// An event.
enum Event {
    News(News),
    Stirred,
    Sweep,
    Weigh,
    Turn,
    /// The task of a removed endpoint has ended.
    Ended,
}

// === impl Engine ===

impl Engine {
    pub(crate) fn new(set: &Arc<Set>, connector: Connector) -> Self {
        let is_first = set.options.picker == Picker::PickFirst;
        Self {
            set: Arc::downgrade(set),
            connector,
            source: None,
            running: HashMap::new(),
            tasks: JoinSet::new(),
            first: is_first.then(First::default),
            turn: None,
        }
    }

    /// Runs until the last clone of the balancer is dropped; `is_lazy` waits for the first call.
    pub(crate) async fn run(mut self, source: impl Discover, is_lazy: bool) {
        let _gone = Gone(self.set.clone());
        let Some(set) = self.set.upgrade() else { return };
        let (stir, mut is_used) = (set.stir.clone(), set.is_used.subscribe());
        let mut sweeps = every(set.options.outlier.interval);
        let mut weighings = every(set.options.utilization.weight_update_period);
        let is_weighted = set.options.picker == Picker::WeightedRoundRobin;
        drop(set);
        if is_lazy && is_used.wait_for(|used| *used).await.is_err() {
            return;
        }
        self.begin();
        self.source = Some(Driven::new(source));
        loop {
            let event = tokio::select! {
                news = news(&mut self.source) => Event::News(news),
                () = stir.heard() => Event::Stirred,
                _ = sweeps.tick() => Event::Sweep,
                _ = weighings.tick(), if is_weighted => Event::Weigh,
                () = turn(self.turn) => Event::Turn,
                Some(_) = self.tasks.join_next() => Event::Ended,
            };
            let Some(set) = self.set.upgrade() else { return };
            self.handle(event, &set);
        }
    }

    fn handle(&mut self, event: Event, set: &Set) {
        match event {
            Event::News(News::Found(found)) => {
                let (fresh, gone) = set.replace(found);
                self.runs(set, &fresh, &gone);
                if let Some(first) = &mut self.first {
                    let states = set.looks();
                    // Connections to endpoints that are still listed remain.
                    let chosen = states.iter().position(|state| *state == State::Ready);
                    if fresh.len() < states.len() {
                        first.goes_on(states.len(), chosen);
                    } else {
                        first.starts_over(states.len(), chosen);
                    }
                }
                if !fresh.is_empty() || !gone.is_empty() {
                    // The network works: a lookup was answered.
                    wake_all(set);
                }
                self.look(set);
            }
            Event::News(News::Ended(panic)) => {
                self.source = None;
                if let Some(panic) = &panic {
                    tracing::error!(panic, "the source of endpoints has failed; they stay");
                }
                set.becomes(Source::Ended(panic));
            }
            Event::Sweep if !set.sweep() => {}
            Event::Weigh => set.weigh(),
            Event::Stirred | Event::Sweep | Event::Turn => self.look(set),
            Event::Ended => {}
        }
    }

    /// The initial list.
    fn begin(&mut self) {
        let Some(set) = self.set.upgrade() else { return };
        set.begins();
        let nodes = set.known(|known| known.nodes.clone());
        self.runs(&set, &nodes, &[]);
        self.look(&set);
    }

    /// Starts and ends the tasks of endpoints.
    fn runs(&mut self, set: &Set, fresh: &[Arc<Node>], gone: &[Arc<Node>]) {
        for node in fresh {
            node.set_wanted(self.first.is_none());
            let (connector, signals) = (self.connector.clone(), set.signals.clone());
            let driver = Driver::new(node.clone(), connector, signals);
            self.running.insert(node.id, self.tasks.spawn(driver.run()));
        }
        for node in gone {
            if let Some(task) = self.running.remove(&node.id) {
                task.abort();
            }
            node.goes();
        }
    }

    /// Examines the states of all endpoints.
    fn look(&mut self, set: &Set) {
        if let Some(first) = &mut self.first {
            if set.wants_more.swap(false, Ordering::Relaxed) {
                first.wants_more();
            }
            self.turn = first.looks(&set.looks(), Instant::now());
            set.wants(|place| first.wants(place));
        }
        if set.refresh() {
            // The network is back, perhaps for the others as well.
            wake_all(set);
        }
    }
}

fn wake_all(set: &Set) {
    let nodes = set.known(|known| known.nodes.clone());
    nodes.iter().filter(|node| !node.is_ready()).for_each(|node| node.woken.notify_waiters());
}

fn every(time: std::time::Duration) -> Interval {
    let mut each = interval(period(time));
    each.set_missed_tick_behavior(MissedTickBehavior::Delay);
    each
}

async fn news(source: &mut Option<Driven>) -> News {
    match source {
        Some(source) => source.next().await,
        None => std::future::pending().await,
    }
}

async fn turn(then: Option<Instant>) {
    match then {
        Some(then) => sleep_until(then).await,
        None => std::future::pending().await,
    }
}

// === impl Gone ===

impl Drop for Gone {
    fn drop(&mut self) {
        if let Some(set) = self.0.upgrade() {
            set.becomes(Source::Gone);
        }
    }
}
