//! The state of a circuit in one word, so that every change is one compare-and-swap.
//!
//! Two bits say which state, 16 count the changes (a call that began before the last one is a
//! straggler, and changes nothing), and 46 hold what the state has to remember: closed, how many
//! calls have failed in a row; open, until when; half-open, the probes under way, those that
//! succeeded, and when one more is let through.

use crate::atomic::{AtomicU64, Ordering};

/// Which state it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Closed,
    Open,
    HalfOpen,
    Isolated,
}

/// What makes a state change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// So many failures in a row open it.
    pub(crate) consecutive: Option<u32>,
    /// So many probes may be under way.
    pub(crate) probes: u32,
    /// So many that succeed close it.
    pub(crate) successes: u32,
    /// After so many milliseconds one more probe is let through.
    pub(crate) patience: u64,
}

/// A call that was let through, and under which state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pass(u64);

/// What a call ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    Failure,
    /// It says nothing about the service.
    Ignored,
}

/// Whether a call is let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    Admitted(Pass),
    /// The first probe: the state has changed.
    HalfOpened(Pass),
    /// For so many milliseconds, if that is known.
    Rejected(Option<u64>),
}

/// How the end of a call has changed the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Nothing,
    /// After so many failures in a row.
    Opened(u32),
    ProbeFailed,
    Closed,
}

/// The word.
#[derive(Debug)]
pub(crate) struct Cell(AtomicU64);

/// A value of it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Word(u64);

const EPOCH: u32 = 2;
const DATA: u32 = 18;
const EPOCHS: u64 = (1 << 16) - 1;
const MOST_DATA: u64 = (1 << (64 - DATA)) - 1;
const MOST_UNDER_WAY: u64 = (1 << 8) - 1;
/// What is subtracted when a probe has ended.
const UNDER_WAY: u64 = 1;
const SUCCEEDED: u64 = 1 << 8;
/// In seconds.
const ONE_MORE: u32 = 16;

// === impl Cell ===

impl Cell {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub(crate) fn kind(&self) -> Kind {
        self.load().kind()
    }

    /// Whether it is closed, and has been since `pass`.
    pub(crate) fn is_closed_since(&self, pass: Pass) -> bool {
        let word = self.load();
        word.kind() == Kind::Closed && word.pass() == pass
    }

    /// How long it stays open at `now`, in milliseconds.
    pub(crate) fn remaining(&self, now: u64) -> Option<u64> {
        let word = self.load();
        (word.kind() == Kind::Open).then(|| word.data().saturating_sub(now))
    }

    /// Whether a call would be let through; `now` is asked for in milliseconds where it matters.
    pub(crate) fn would_admit(&self, limits: &Limits, now: impl Fn() -> u64) -> bool {
        let word = self.load();
        match word.kind() {
            Kind::Closed => true,
            Kind::Isolated => false,
            Kind::Open => word.data() <= now(),
            Kind::HalfOpen => {
                word.under_way() < u64::from(limits.probes) || word.one_more() <= now() / 1000
            }
        }
    }

    /// Lets a call through, or not.
    pub(crate) fn admit(&self, limits: &Limits, now: impl Fn() -> u64) -> Admission {
        let mut word = self.load();
        loop {
            let next = match word.kind() {
                Kind::Closed => return Admission::Admitted(word.pass()),
                Kind::Isolated => return Admission::Rejected(None),
                Kind::Open => {
                    let now = now();
                    if now < word.data() {
                        return Admission::Rejected(Some(word.data() - now));
                    }
                    let one_more = (now + limits.patience).div_ceil(1000) << ONE_MORE;
                    word.next(Kind::HalfOpen, UNDER_WAY | one_more)
                }
                Kind::HalfOpen if word.under_way() < u64::from(limits.probes) => {
                    word.with(word.data() + UNDER_WAY)
                }
                Kind::HalfOpen => {
                    let now = now();
                    if now / 1000 < word.one_more() || word.under_way() == MOST_UNDER_WAY {
                        return Admission::Rejected(None);
                    }
                    let one_more = (now + limits.patience).div_ceil(1000) << ONE_MORE;
                    let counts = word.data() & ((1 << ONE_MORE) - 1);
                    word.with((counts + UNDER_WAY) | one_more)
                }
            };
            match self.change(word, next) {
                Ok(()) if word.kind() == Kind::Open => return Admission::HalfOpened(next.pass()),
                Ok(()) => return Admission::Admitted(next.pass()),
                Err(current) => word = current,
            }
        }
    }

    /// A call has ended. Where that opens the circuit, `until` says until when.
    pub(crate) fn leave(
        &self,
        pass: Pass,
        outcome: Outcome,
        limits: &Limits,
        until: impl Fn() -> u64,
    ) -> Change {
        let mut word = self.load();
        loop {
            if word.pass() != pass {
                return Change::Nothing;
            }
            let (next, change) = match word.kind() {
                Kind::Closed => match word.closed(outcome, limits, &until) {
                    Some(changed) => changed,
                    None => return Change::Nothing,
                },
                Kind::HalfOpen => word.half_open(outcome, limits, &until),
                // No call was let through in these.
                Kind::Open | Kind::Isolated => return Change::Nothing,
            };
            match self.change(word, next) {
                Ok(()) => return change,
                Err(current) => word = current,
            }
        }
    }

    /// Opens it, if it is still as it was for `pass`.
    pub(crate) fn trip(&self, pass: Pass, until: impl Fn() -> u64) -> bool {
        let mut word = self.load();
        while word.pass() == pass && word.kind() == Kind::Closed {
            match self.change(word, word.next(Kind::Open, until().min(MOST_DATA))) {
                Ok(()) => return true,
                Err(current) => word = current,
            }
        }
        false
    }

    /// Makes it closed or isolated, whatever it was; what it was.
    pub(crate) fn force(&self, kind: Kind) -> Kind {
        let mut word = self.load();
        loop {
            match self.change(word, word.next(kind, 0)) {
                Ok(()) => return word.kind(),
                Err(current) => word = current,
            }
        }
    }

    fn load(&self) -> Word {
        Word(self.0.load(Ordering::Acquire))
    }

    fn change(&self, from: Word, to: Word) -> Result<(), Word> {
        let changed = self.0.compare_exchange(from.0, to.0, Ordering::AcqRel, Ordering::Acquire);
        changed.map(drop).map_err(Word)
    }
}

// === impl Word ===

impl Word {
    const fn kind(self) -> Kind {
        match self.0 & 3 {
            0 => Kind::Closed,
            1 => Kind::Open,
            2 => Kind::HalfOpen,
            _ => Kind::Isolated,
        }
    }

    const fn data(self) -> u64 {
        self.0 >> DATA
    }

    const fn under_way(self) -> u64 {
        self.data() & MOST_UNDER_WAY
    }

    const fn succeeded(self) -> u64 {
        self.data() >> 8 & MOST_UNDER_WAY
    }

    const fn one_more(self) -> u64 {
        self.data() >> ONE_MORE
    }

    /// State and epoch.
    const fn pass(self) -> Pass {
        Pass(self.0 & ((1 << DATA) - 1))
    }

    const fn with(self, data: u64) -> Self {
        Self(self.pass().0 | data << DATA)
    }

    const fn next(self, kind: Kind, data: u64) -> Self {
        let epoch = ((self.0 >> EPOCH) + 1) & EPOCHS;
        Self(kind as u64 | epoch << EPOCH | data << DATA)
    }

    /// What becomes of it while it is closed.
    fn closed(
        self,
        outcome: Outcome,
        limits: &Limits,
        until: impl Fn() -> u64,
    ) -> Option<(Self, Change)> {
        match outcome {
            Outcome::Ignored => None,
            // The usual case, in which nothing is written.
            Outcome::Success if self.data() == 0 => None,
            Outcome::Success => Some((self.with(0), Change::Nothing)),
            Outcome::Failure => {
                let failures = self.data() + 1;
                let most = u64::from(limits.consecutive?);
                Some(if failures < most {
                    (self.with(failures), Change::Nothing)
                } else {
                    let open = self.next(Kind::Open, until().min(MOST_DATA));
                    (open, Change::Opened(failures as u32))
                })
            }
        }
    }

    /// What becomes of it when a probe has ended.
    fn half_open(
        self,
        outcome: Outcome,
        limits: &Limits,
        until: impl Fn() -> u64,
    ) -> (Self, Change) {
        let ended = self.data() - UNDER_WAY;
        match outcome {
            Outcome::Ignored => (self.with(ended), Change::Nothing),
            Outcome::Failure => {
                (self.next(Kind::Open, until().min(MOST_DATA)), Change::ProbeFailed)
            }
            Outcome::Success if self.succeeded() + 1 < u64::from(limits.successes) => {
                (self.with(ended + SUCCEEDED), Change::Nothing)
            }
            Outcome::Success => (self.next(Kind::Closed, 0), Change::Closed),
        }
    }
}

// === impl Pass ===

impl Pass {
    /// That of no call: an epoch has fewer bits.
    pub(crate) const NONE: Self = Self(u64::MAX);

    /// As a number, and back.
    pub(crate) const fn number(self) -> u64 {
        self.0
    }

    pub(crate) const fn of(number: u64) -> Self {
        Self(number)
    }
}
