//! The circuits of one service or endpoint: one, or one for each method.

use crate::{BreakerPolicy, Circuit, State};
use cinchona_core::{Evidence, Gate, Mode, Rejected, Rng, Switch};
use cinchona_plumbing::{Reloadable, Ticket};
use cinchona_policy::{
    breaker::{Pass, hash},
    shard::{Ref, Shared},
};
use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) name: String,
    pub(crate) policy: BreakerPolicy,
    pub(crate) per_method: bool,
    pub(crate) rng: Rng,
    pub(crate) switch: Switch,
    /// All circuits.
    pub(crate) known: Mutex<Vec<Weak<Circuits>>>,
}

/// The circuits of one service or endpoint: one, or one for each method.
pub(crate) struct Circuits {
    pub(crate) common: Arc<Common>,
    name: String,
    /// The circuit of all methods, unless each has its own.
    one: OnceLock<Shared<Circuit>>,
    each: Reloadable<Each>,
    adding: Mutex<()>,
    /// How often the layer had been off when a call last arrived.
    times_off: AtomicU64,
}

/// A circuit for each method, in the order of creation.
#[derive(Clone, Debug, Default)]
struct Each {
    circuits: Vec<Arc<Shared<Circuit>>>,
    by_path: HashMap<Box<str>, u32>,
}

/// With more methods than this, the rest share a circuit: paths that a proxy forwards are
/// unbounded.
const MOST_METHODS: usize = 1000;
/// The number of a call that is not judged.
const NOT_ASKED_FOR: Ticket = Ticket(u32::MAX, 0);

// === impl Circuits ===

impl Circuits {
    pub(crate) fn new(common: &Arc<Common>, name: String) -> Arc<Self> {
        let circuits = Arc::new(Self {
            common: common.clone(),
            name,
            one: OnceLock::new(),
            each: Reloadable::new(Each::default()),
            adding: Mutex::new(()),
            times_off: AtomicU64::new(0),
        });
        let mut known = common.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|circuits| circuits.strong_count() > 0);
        known.push(Arc::downgrade(&circuits));
        circuits
    }

    /// Closes the circuits, except those opened by hand, if the layer was off since the last call:
    /// the outcomes of the calls in between are unknown.
    pub(crate) fn look_at_switch(&self) {
        let (known, now) = (&self.times_off, self.common.switch.times_off());
        // Of several concurrent observers one closes them; the number never goes back.
        if known.load(Ordering::Relaxed) < now && known.fetch_max(now, Ordering::Relaxed) < now {
            let all = self.all().into_iter();
            all.filter(|circuit| circuit.state() != State::Isolated).for_each(|one| one.close());
        }
    }

    /// The circuits that calls have used.
    pub(crate) fn all(&self) -> Vec<Circuit> {
        let each = self.each.get();
        let each = each.circuits.iter().map(|circuit| circuit.get());
        self.one.get().map(Shared::get).into_iter().chain(each).cloned().collect()
    }

    /// The circuit of all methods, unless each has its own.
    fn one(&self) -> Option<&Shared<Circuit>> {
        let one = || self.one.get_or_init(|| self.make(""));
        (!self.common.per_method).then(one)
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

    /// The circuit that issued this ticket.
    fn circuit_of<T>(&self, ticket: Ticket, with: impl FnOnce(&Circuit) -> T) -> Option<T> {
        if ticket == NOT_ASKED_FOR {
            return None;
        }
        Some(match self.one() {
            Some(one) => with(one.get()),
            None => with(self.each.get().circuits.get(ticket.0 as usize)?.get()),
        })
    }

    /// The number of the method at `path` in its circuit: a circuit of one method needs none.
    pub(crate) fn method(&self, path: &str) -> u32 {
        if self.common.per_method { 1 } else { hash(path) }
    }

    fn make(&self, path: &str) -> Shared<Circuit> {
        let Common { policy, rng, .. } = &*self.common;
        Shared::new(Circuit::new(format!("{}{path}", self.name), *policy, rng.clone()))
    }
}

impl Gate for Circuits {
    fn is_open_to(&self, path: &str, now: Instant) -> bool {
        if self.common.switch.mode() != Mode::Enforce {
            return true;
        }
        self.look_at_switch();
        let ask =
            |circuit: &Shared<Circuit>| circuit.get().would_admit(|| self.method(path), || now);
        match self.one() {
            Some(one) => ask(one),
            None => self.each(path, |_, circuit| ask(circuit)),
        }
    }

    fn enter(&self, path: &str, now: Instant) -> Result<Ticket, Rejected> {
        let mode = self.common.switch.mode();
        if mode == Mode::Off {
            return Ok(NOT_ASKED_FOR);
        }
        self.look_at_switch();
        let method = self.method(path);
        let enter =
            |index, circuit: &Shared<Circuit>| (index, circuit.get().enter(method, mode, || now));
        let (index, entered) = match self.one() {
            Some(one) => enter(0, one),
            None => self.each(path, enter),
        };
        match entered {
            Ok(pass) => Ok(Ticket(index, pass.number())),
            Err(_) if mode == Mode::Shadow => {
                self.common.switch.count();
                Ok(NOT_ASKED_FOR)
            }
            Err(unsent) => Err(unsent),
        }
    }

    fn answered(&self, ticket: Ticket, took: Duration, now: Instant) -> Ticket {
        let Ticket(index, pass) = ticket;
        let answered = |circuit: &Circuit| circuit.answered(Pass::of(pass), || took, || now);
        match self.circuit_of(ticket, answered).flatten() {
            Some(pass) => Ticket(index, pass.number()),
            None => NOT_ASKED_FOR,
        }
    }

    fn leave(&self, ticket: Ticket, evidence: Evidence, took: Duration, now: Instant) {
        let pass = Pass::of(ticket.1);
        self.circuit_of(ticket, |circuit| circuit.leave(pass, evidence, || took, || now));
    }
}

impl fmt::Debug for Circuits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all()).finish()
    }
}
