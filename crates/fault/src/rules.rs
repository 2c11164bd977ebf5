//! The rules in force, and which of them hit a request.

mod file;

use crate::{
    Malformed, Rule, When,
    counters::Cells,
    plan::{CONTROL, draw, identity},
    rule::{Action, Asked, Ttl},
};
use cinchona_core::{Invalid, Mode, Switch};
use cinchona_plumbing::{Count, Reloadable, clock};
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// A set of rules that can be changed while requests arrive; clones share the set.
///
/// A request passes the rules in the order in which they were first set. The delays of all that hit
/// it add up; of their other effects the first applies, and later rules with such an effect neither
/// match nor count it.
///
/// ```
/// use cinchona_fault::Rules;
///
/// let rules = Rules::new(7).with("slow", "delay=lognormal:20ms:400ms".parse()?);
/// rules.set("flaky", "rate=0.3 status=UNAVAILABLE ttl=5m".parse()?)?;
/// assert!(rules.set("kept", "panic".parse()?).is_err(), "no ttl");
/// rules.set("kept", "panic ttl=none".parse()?)?;
/// assert!(rules.remove("kept"));
/// assert_eq!(rules.list().len(), 2);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Rules(Arc<Inner>);

impl PartialEq for Rules {
    /// Clones are equal, as they are the same rules, and no others.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// A rule in force, and its counts since it was set.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Listed {
    /// Its id.
    pub id: String,
    /// The rule.
    pub rule: Rule,
    /// Requests that matched its method, metadata, caller, attempt and time.
    pub matched: u64,
    /// Requests it hit, including those whose caller left during a delay.
    pub injected: u64,
    /// How long it has been in force.
    pub age: Duration,
}

#[derive(Debug)]
struct Inner {
    set: Reloadable<Vec<Arc<Entry>>>,
    /// Held while the set is replaced, never by requests.
    writing: Mutex<()>,
    seed: u64,
    switch: Switch,
    requests: Count,
    active: Arc<AtomicUsize>,
    most_active: AtomicUsize,
}

#[derive(Debug)]
struct Entry {
    id: Arc<str>,
    rule: Rule,
    since: Instant,
    matched: Count,
    /// Hits, including those in shadow: the basis of `first`.
    taken: Count,
    injected: Count,
}

/// The effects of the rules on one request.
#[derive(Debug)]
pub(crate) struct Hit {
    pub(crate) before: Duration,
    pub(crate) after: Duration,
    pub(crate) action: Option<Drawn>,
    /// The rules that hit it.
    pub(crate) ids: Vec<Arc<str>>,
    /// Taken by a reply that outlives the call.
    pub(crate) active: Option<Active>,
}

/// An action with its random values drawn.
#[derive(Clone, Debug)]
pub(crate) struct Drawn {
    pub(crate) action: Action,
    pub(crate) when: When,
}

/// One of the active faults, which are counted and limited.
#[derive(Debug)]
pub(crate) struct Active(Arc<AtomicUsize>);

// === impl Rules ===

impl Rules {
    /// An empty set; random draws depend on `seed`, the rule's id, the path and the request's id
    /// and attempt, as for [`Faults`](crate::Faults).
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Inner {
            set: Reloadable::new(Vec::new()),
            writing: Mutex::new(()),
            seed,
            switch: Switch::default(),
            requests: Count::default(),
            active: Arc::default(),
            most_active: AtomicUsize::new(100),
        }))
    }

    /// Adds a rule at start-up, when it needs no ttl.
    #[must_use]
    pub fn with(self, id: &str, rule: Rule) -> Self {
        self.put(id, rule);
        self
    }

    /// Limits how many requests at a time rules may delay, hang, drip or hold otherwise; further
    /// ones are spared, and counted as such. Default 100.
    #[must_use]
    pub fn with_most_active(self, most: usize) -> Self {
        self.0.most_active.store(most, Ordering::Relaxed);
        self
    }

    /// Sets a rule, replacing the one with this id; its counters and its time restart.
    ///
    /// # Errors
    /// When the rule has no `ttl`: a forgotten rule must end. `ttl=none` declares that it need not.
    pub fn set(&self, id: &str, rule: Rule) -> Result<(), Invalid> {
        if rule.ttl == Ttl::Unsaid {
            let allowed = "a ttl such as ttl=60s, or ttl=none to keep the rule until it is removed";
            return Err(Invalid::new("ttl", "a rule without one", allowed));
        }
        self.put(id, rule);
        Ok(())
    }

    /// Removes the rule with this id; returns whether there was one.
    pub fn remove(&self, id: &str) -> bool {
        let mut found = false;
        self.change(|set| {
            found = set.iter().any(|entry| &*entry.id == id);
            set.retain(|entry| &*entry.id != id);
        });
        found
    }

    /// Removes all rules.
    pub fn clear(&self) {
        self.change(Vec::clear);
    }

    /// The rules in force, in the order in which they apply to a request.
    pub fn list(&self) -> Vec<Listed> {
        let now = Instant::now();
        let set = self.0.set.get();
        let lasting = set.iter().filter(|entry| entry.is_alive(now));
        lasting.map(|entry| entry.listed(now)).collect()
    }

    /// Switches all rules on, to shadow (they are only counted) or off.
    pub fn switch(&self) -> &Switch {
        &self.0.switch
    }

    fn put(&self, id: &str, rule: Rule) {
        tracing::info!(id, %rule, "setting a fault rule");
        let entry = Arc::new(Entry::new(id, rule));
        self.change(|set| match set.iter_mut().find(|entry| &*entry.id == id) {
            Some(place) => *place = entry,
            None => set.push(entry),
        });
    }

    /// Replaces the set by a changed one, without expired rules.
    fn change(&self, change: impl FnOnce(&mut Vec<Arc<Entry>>)) {
        let _writing: MutexGuard<'_, ()> =
            self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let mut set = Vec::clone(&self.0.set.get());
        set.retain(|entry| entry.is_alive(now));
        change(&mut set);
        self.0.set.set(set);
    }

    /// Whether no request is inspected.
    pub(crate) fn is_idle(&self) -> bool {
        self.0.switch.mode() == Mode::Off || self.0.set.get().is_empty()
    }

    /// The effect on a request, if any; in shadow it is only counted.
    pub(crate) fn draw(&self, asked: Asked<'_>, mode: Mode, cells: &Cells) -> Option<Box<Hit>> {
        let set = self.0.set.get();
        let own = self.0.switch.mode();
        if set.is_empty() || own == Mode::Off {
            return None;
        }
        if asked.path.starts_with(CONTROL) {
            return None;
        }
        let is_shadow = mode == Mode::Shadow || own == Mode::Shadow;
        let now = clock::now();
        let request = identity(asked.path, asked.headers, self.0.requests.count());
        let mut hit: Option<Box<Hit>> = None;
        for entry in &**set {
            let has_action = hit.as_ref().is_some_and(|hit| hit.action.is_some());
            if (asked.is_failing || has_action) && entry.rule.action.is_some()
                || !entry.matches(asked, now)
            {
                continue;
            }
            if !entry.is_due(self.0.seed, request) || entry.is_used_up() {
                continue;
            }
            if hit.is_none() {
                let Some(active) = self.enter() else {
                    cells.spared.count();
                    return None;
                };
                hit = Some(Box::new(Hit::new(active)));
            }
            if entry.takes()
                && let Some(hit) = &mut hit
            {
                let draw = |kind: &str| draw(self.0.seed, request, &format!("{} {kind}", entry.id));
                hit.add(entry, draw);
                if !is_shadow {
                    entry.injected.count();
                }
            }
        }
        let hit = hit.filter(|hit| !hit.ids.is_empty())?;
        if is_shadow {
            self.0.switch.count();
            return None;
        }
        Some(hit)
    }

    fn enter(&self) -> Option<Active> {
        let most = self.0.most_active.load(Ordering::Relaxed);
        let more = |active: usize| (active < most).then_some(active + 1);
        let before = self.0.active.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        before.ok().map(|_| Active(self.0.active.clone()))
    }
}

impl Default for Rules {
    /// An empty set, with seed 0.
    fn default() -> Self {
        Self::new(0)
    }
}

// === impl Entry ===

impl Entry {
    fn new(id: &str, rule: Rule) -> Self {
        let (matched, taken, injected) = Default::default();
        Self { id: id.into(), rule, since: Instant::now(), matched, taken, injected }
    }

    fn listed(&self, now: Instant) -> Listed {
        Listed {
            id: self.id.to_string(),
            rule: self.rule.clone(),
            matched: self.matched.read(),
            injected: self.injected.read(),
            age: now.saturating_duration_since(self.since),
        }
    }

    fn is_alive(&self, now: Instant) -> bool {
        self.rule.ttl().is_none_or(|ttl| now.saturating_duration_since(self.since) < ttl)
    }

    fn matches(&self, asked: Asked<'_>, now: Instant) -> bool {
        let age = now.saturating_duration_since(self.since);
        let is_open =
            |(from, to): (Duration, Option<Duration>)| from <= age && to.is_none_or(|to| age < to);
        self.rule.scope.holds(asked)
            && self.is_alive(now)
            && self.rule.trigger.window.is_none_or(is_open)
    }

    /// Counts a request that matches, and draws.
    fn is_due(&self, seed: u64, request: u64) -> bool {
        let number = self.matched.count() + 1;
        let trigger = &self.rule.trigger;
        trigger.every.is_none_or(|every| number % every == 0)
            && (trigger.rate >= 1.0 || draw(seed, request, &self.id) < trigger.rate)
    }

    fn is_used_up(&self) -> bool {
        self.rule.trigger.first.is_some_and(|first| self.taken.read() >= first)
    }

    /// Whether there are hits left; takes one.
    fn takes(&self) -> bool {
        let first = self.rule.trigger.first;
        let number = self.taken.count();
        first.is_none_or(|first| number < first)
    }
}

// === impl Hit ===

impl Hit {
    const fn new(active: Active) -> Self {
        let (before, after) = (Duration::ZERO, Duration::ZERO);
        Self { before, after, action: None, ids: Vec::new(), active: Some(active) }
    }

    /// Whether nothing remains to be done after the request is executed.
    pub(crate) fn is_over(&self) -> bool {
        self.action.is_none() && self.after.is_zero()
    }

    fn add(&mut self, entry: &Entry, draw: impl Fn(&str) -> f64) {
        let Rule { when, delay, action, .. } = &entry.rule;
        if let Some(delay) = delay {
            let delay = delay.drawn(&draw);
            match when {
                When::Before => self.before = self.before.saturating_add(delay),
                When::After => self.after = self.after.saturating_add(delay),
            }
        }
        if let Some(action) = action {
            let action = action.drawn(&draw);
            self.action = Some(Drawn { action, when: *when });
        }
        self.ids.push(entry.id.clone());
    }
}

// === impl Active ===

impl Drop for Active {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
