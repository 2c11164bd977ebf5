//! The circuits of one service or endpoint: one, or one for each method.

use crate::{
    BreakerPolicy, Circuit,
    shard::{Ref, Shared},
    state::Pass,
};
use cinchona_core::{Evidence, Gate, Live, Mode, Rng, Switch, Ticket, Unsent};
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
    time::Duration,
};
use tokio::time::Instant;

#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) name: String,
    pub(crate) policy: BreakerPolicy,
    pub(crate) per_method: bool,
    pub(crate) rng: Rng,
    pub(crate) switch: Switch,
    /// All circuits there are.
    pub(crate) known: Mutex<Vec<Weak<Circuits>>>,
}

/// The circuits of one service or endpoint: one, or one for each method.
pub(crate) struct Circuits {
    pub(crate) settings: Arc<Settings>,
    name: String,
    /// That of all methods, where they have none of their own.
    one: OnceLock<Shared<Circuit>>,
    each: Live<Each>,
    adding: Mutex<()>,
}

/// A circuit for each method, in the order in which they were made.
#[derive(Clone, Debug, Default)]
struct Each {
    circuits: Vec<Arc<Shared<Circuit>>>,
    by_path: HashMap<Box<str>, u32>,
}

/// With more methods than this, the rest share a circuit: a proxy's paths are not its own.
const MOST_METHODS: usize = 1000;

// === impl Circuits ===

impl Circuits {
    pub(crate) fn new(settings: &Arc<Settings>, name: String) -> Arc<Self> {
        let circuits = Arc::new(Self {
            settings: settings.clone(),
            name,
            one: OnceLock::new(),
            each: Live::new(Each::default()),
            adding: Mutex::new(()),
        });
        let mut known = settings.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|circuits| circuits.strong_count() > 0);
        known.push(Arc::downgrade(&circuits));
        circuits
    }

    /// Those that have been asked.
    pub(crate) fn all(&self) -> Vec<Circuit> {
        let each = self.each.get();
        let each = each.circuits.iter().map(|circuit| circuit.get());
        self.one.get().map(Shared::get).into_iter().chain(each).cloned().collect()
    }

    /// The circuit of all methods, unless each has its own.
    fn one(&self) -> Option<&Shared<Circuit>> {
        let one = || self.one.get_or_init(|| self.make(""));
        (!self.settings.per_method).then(one)
    }

    /// The circuit of the method at `path`.
    pub(crate) fn of(&self, path: &str) -> Ref<Circuit> {
        match self.one() {
            Some(one) => one.take(),
            None => self.each(path, |_, circuit| circuit.take()),
        }
    }

    /// The circuit of this method alone, and its number.
    fn each<T>(&self, path: &str, with: impl Fn(u32, &Shared<Circuit>) -> T) -> T {
        let find = || {
            let each = self.each.get();
            let index = *each.by_path.get(path)?;
            Some(with(index, &each.circuits[index as usize]))
        };
        if let Some(found) = find() {
            return found;
        }
        let _adding = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = find() {
            return found;
        }
        let mut each = Each::clone(&self.each.get());
        let index = each.circuits.len().min(MOST_METHODS);
        if index == each.circuits.len() {
            each.circuits.push(Arc::new(self.make(path)));
        }
        let found = with(index as u32, &each.circuits[index]);
        if index < MOST_METHODS {
            each.by_path.insert(path.into(), index as u32);
        }
        self.each.set(each);
        found
    }

    fn make(&self, path: &str) -> Shared<Circuit> {
        let Settings { policy, rng, .. } = &*self.settings;
        Shared::new(Circuit::new(format!("{}{path}", self.name), *policy, rng.clone()))
    }
}

impl Gate for Circuits {
    fn is_open_to(&self, path: &str, now: Instant) -> bool {
        if self.settings.switch.mode() != Mode::Enforce {
            return true;
        }
        match self.one() {
            Some(one) => one.get().would_admit(|| now),
            None => self.each(path, |_, circuit| circuit.get().would_admit(|| now)),
        }
    }

    fn enter(&self, path: &str, now: Instant) -> Result<Ticket, Unsent> {
        let mode = self.settings.switch.mode();
        if mode == Mode::Off {
            return Ok(Ticket(u32::MAX, 0));
        }
        let (index, entered) = match self.one() {
            Some(one) => (0, one.get().enter(|| now)),
            None => self.each(path, |index, circuit| (index, circuit.get().enter(|| now))),
        };
        match entered {
            Ok(pass) => Ok(Ticket(index, pass.number())),
            Err(_) if mode == Mode::Shadow => {
                self.settings.switch.count();
                Ok(Ticket(u32::MAX, 0))
            }
            Err(unsent) => Err(unsent),
        }
    }

    fn leave(&self, ticket: Ticket, evidence: Evidence, took: Duration, now: Instant) {
        let Ticket(index, pass) = ticket;
        if index == u32::MAX {
            return; // It was not asked for.
        }
        let leave = |circuit: &Circuit| circuit.leave(Pass::of(pass), evidence, || took, || now);
        match self.one() {
            Some(one) => leave(one.get()),
            None => leave(self.each.get().circuits[index as usize].get()),
        }
    }
}

impl fmt::Debug for Circuits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all()).finish()
    }
}
