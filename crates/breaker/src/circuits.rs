//! The circuits of one service or endpoint: one, or one for each method.

use crate::{BreakerPolicy, Circuit, state::Pass};
use cinchona_core::{Gate, Live, Mode, Rng, Switch, Ticket, Unsent, Verdict};
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
    one: OnceLock<Circuit>,
    each: Live<Each>,
    adding: Mutex<()>,
}

/// A circuit for each method, in the order in which they were made.
#[derive(Clone, Debug, Default)]
struct Each {
    circuits: Vec<Circuit>,
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

    /// Those that have had a call.
    pub(crate) fn all(&self) -> Vec<Circuit> {
        let each = self.each.get();
        self.one.get().into_iter().chain(&each.circuits).cloned().collect()
    }

    /// The circuit of all methods, unless each has its own.
    pub(crate) fn one(&self) -> Option<&Circuit> {
        let one = || self.one.get_or_init(|| self.make(""));
        (!self.settings.per_method).then(one)
    }

    /// The circuit of the method at `path`, and its number.
    pub(crate) fn of(&self, path: &str) -> (u32, Circuit) {
        match self.one() {
            Some(one) => (0, one.clone()),
            None => self.find(path).unwrap_or_else(|| self.add(path)),
        }
    }

    fn find(&self, path: &str) -> Option<(u32, Circuit)> {
        let each = self.each.get();
        let index = *each.by_path.get(path)?;
        Some((index, each.circuits[index as usize].clone()))
    }

    fn add(&self, path: &str) -> (u32, Circuit) {
        let _adding = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = self.find(path) {
            return found;
        }
        let mut each = Each::clone(&self.each.get());
        let index = each.circuits.len().min(MOST_METHODS);
        if index == each.circuits.len() {
            each.circuits.push(self.make(path));
        }
        let found = (index as u32, each.circuits[index].clone());
        if index < MOST_METHODS {
            each.by_path.insert(path.into(), found.0);
        }
        self.each.set(each);
        found
    }

    fn make(&self, path: &str) -> Circuit {
        let Settings { policy, rng, switch, .. } = &*self.settings;
        Circuit::new(format!("{}{path}", self.name), *policy, rng.clone(), switch.clone())
    }
}

impl Gate for Circuits {
    fn is_open_to(&self, path: &str, now: Instant) -> bool {
        if self.settings.switch.mode() != Mode::Enforce {
            return true;
        }
        match self.one() {
            Some(one) => one.would_admit(|| now),
            None => self.find(path).is_none_or(|(_, circuit)| circuit.would_admit(|| now)),
        }
    }

    fn enter(&self, path: &str, now: Instant) -> Result<Ticket, Unsent> {
        let mode = self.settings.switch.mode();
        if mode == Mode::Off {
            return Ok(Ticket(u32::MAX, 0));
        }
        let (index, entered) = match self.one() {
            Some(one) => (0, one.enter(|| now)),
            None => {
                let (index, circuit) = self.of(path);
                (index, circuit.enter(|| now))
            }
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

    fn leave(&self, ticket: Ticket, verdict: Option<Verdict>, took: Duration, now: Instant) {
        let Ticket(index, pass) = ticket;
        if index == u32::MAX {
            return; // It was not asked for.
        }
        let leave = |circuit: &Circuit| circuit.leave(Pass::of(pass), verdict, || took, || now);
        match self.one() {
            Some(one) => leave(one),
            None => leave(&self.each.get().circuits[index as usize]),
        }
    }
}

impl fmt::Debug for Circuits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all()).finish()
    }
}
