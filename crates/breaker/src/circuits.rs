//! The circuits of one service or endpoint: one, or one for each method.

use crate::{BreakerPolicy, Circuit, state::Pass};
use cinchona_core::{Gate, Live, Mode, Rng, Switch, Ticket, Unsent, Verdict};
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
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
    pub(crate) name: String,
    pub(crate) all: Live<Known>,
    adding: Mutex<()>,
}

/// In the order in which they were made; one alone is of all methods.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    pub(crate) circuits: Vec<Circuit>,
    by_path: HashMap<Box<str>, u32>,
}

/// With more methods than this, the rest share a circuit: a proxy's paths are not its own.
const MOST_METHODS: usize = 1000;

// === impl Circuits ===

impl Circuits {
    pub(crate) fn new(settings: &Arc<Settings>, name: String) -> Arc<Self> {
        let all = Live::new(Known::default());
        let circuits =
            Arc::new(Self { settings: settings.clone(), name, all, adding: Mutex::new(()) });
        let mut known = settings.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|circuits| circuits.strong_count() > 0);
        known.push(Arc::downgrade(&circuits));
        circuits
    }

    /// The circuit of the method at `path`, and its number.
    pub(crate) fn of(&self, path: &str) -> (u32, Circuit) {
        self.find(path).unwrap_or_else(|| self.add(path))
    }

    fn find(&self, path: &str) -> Option<(u32, Circuit)> {
        let known = self.all.get();
        let index = match self.settings.per_method {
            true => *known.by_path.get(path)?,
            false => 0,
        };
        known.circuits.get(index as usize).map(|circuit| (index, circuit.clone()))
    }

    fn add(&self, path: &str) -> (u32, Circuit) {
        let _adding = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = self.find(path) {
            return found;
        }
        let Settings { policy, per_method, rng, switch, .. } = &*self.settings;
        let mut known = Known::clone(&self.all.get());
        let index = known.circuits.len().min(MOST_METHODS);
        if index == known.circuits.len() {
            let method = if *per_method { path } else { "" };
            let name = format!("{}{method}", self.name);
            known.circuits.push(Circuit::new(name, *policy, rng.clone(), switch.clone()));
        }
        let found = (index as u32, known.circuits[index].clone());
        if *per_method && index < MOST_METHODS {
            known.by_path.insert(path.into(), found.0);
        }
        self.all.set(known);
        found
    }
}

impl Gate for Circuits {
    fn is_open_to(&self, path: &str, now: Instant) -> bool {
        self.settings.switch.mode() != Mode::Enforce
            || self.find(path).is_none_or(|(_, circuit)| circuit.would_admit(|| now))
    }

    fn enter(&self, path: &str, now: Instant) -> Result<Ticket, Unsent> {
        let mode = self.settings.switch.mode();
        if mode == Mode::Off {
            return Ok(Ticket(u32::MAX, 0));
        }
        let (index, circuit) = self.of(path);
        match circuit.enter(|| now) {
            Ok(pass) => Ok(Ticket(index, pass.number())),
            Err(_) if mode == Mode::Shadow => {
                circuit.switch().count();
                Ok(Ticket(u32::MAX, 0))
            }
            Err(unsent) => Err(unsent),
        }
    }

    fn leave(&self, ticket: Ticket, verdict: Option<Verdict>, took: Duration, now: Instant) {
        let Ticket(index, pass) = ticket;
        if let Some(circuit) = self.all.get().circuits.get(index as usize) {
            circuit.leave(Pass::of(pass), verdict, || took, || now);
        }
    }
}

impl fmt::Debug for Circuits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.all.get().circuits).finish()
    }
}
