//! The state of a circuit in one word, so that every change is one compare-and-swap.
//!
//! Two bits are the kind of state, 16 count the openings (a call that began before the last one is
//! a straggler, and changes nothing), and 46 are the details: closed, the run of failures
//! ([`Run`](super::limits::Run)), when it began, and whether the circuit is on probation; open,
//! until when; half-open, the probes in flight, those that succeeded, and when one more is
//! admitted.

use super::{
    limits::{Limits, MOST_FAILURES},
    pass::{EPOCHS, Pass},
};
use crate::sync::{AtomicU64, Ordering};

/// The kind of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Calls are let through.
    Closed,
    /// Calls are rejected until the next probe is due.
    Open,
    /// A few calls are admitted as probes; their outcome decides.
    HalfOpen,
    /// Calls are rejected until it is closed.
    Isolated,
}

/// The outcome of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sample {
    Success,
    Failure,
    /// It is no evidence about the service.
    Ignored,
}

/// Whether a call is admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    Admitted(Pass),
    /// The first probe: the state has changed.
    HalfOpened(Pass),
    /// For so many milliseconds, if known.
    Rejected(Option<u64>),
}

/// How the end of a call has changed the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Nothing,
    /// A success has ended a run of failures, or a probation.
    Recovered,
    /// After so many failures in a row.
    Opened(u32),
    ProbeFailed,
    /// By a call that has succeeded.
    Closed,
    /// By the head of a response.
    OnProbation,
}

/// The word.
#[derive(Debug)]
pub(crate) struct Cell(AtomicU64);

/// A value of it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Word(u64);

const EPOCH: u32 = 2;
const DATA: u32 = 18;
const MOST_DATA: u64 = (1 << (64 - DATA)) - 1;
const MOST_UNDER_WAY: u64 = (1 << 8) - 1;
/// The amount subtracted when a probe has ended.
const UNDER_WAY: u64 = 1;
const SUCCEEDED: u64 = 1 << 8;
/// In seconds.
const ONE_MORE: u32 = 16;
/// The position of the time at which a run began, in milliseconds, modulo its bits.
const BEGAN: u32 = 16;
const BEGINNINGS: u64 = (1 << 29) - 1;
/// Closed by the head of a response: the first call that ends decides.
const PROBATION: u64 = 1 << 45;

// === impl Cell ===

impl Cell {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    #[inline]
    pub(crate) fn kind(&self) -> Kind {
        self.load().kind()
    }

    /// Whether it is closed, and has not opened since `pass`.
    #[inline]
    pub(crate) fn is_closed_since(&self, pass: Pass) -> bool {
        let word = self.load();
        word.kind() == Kind::Closed && word.is_of(pass)
    }

    /// How long it stays open at `now`, in milliseconds.
    #[inline]
    pub(crate) fn remaining(&self, now: u64) -> Option<u64> {
        let word = self.load();
        (word.kind() == Kind::Open).then(|| word.data().saturating_sub(now))
    }

    /// Whether a call would be admitted; `now`, in milliseconds, is called only if needed.
    #[inline]
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

    /// Admits a call, or rejects it.
    #[inline]
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
                    word.turns(Kind::HalfOpen, UNDER_WAY | (limits.one_more(now) << ONE_MORE))
                }
                Kind::HalfOpen if word.under_way() < u64::from(limits.probes) => {
                    word.with(word.data() + UNDER_WAY)
                }
                Kind::HalfOpen => {
                    let now = now();
                    if now / 1000 < word.one_more() || word.under_way() == MOST_UNDER_WAY {
                        return Admission::Rejected(None);
                    }
                    let counts = word.data() & ((1 << ONE_MORE) - 1);
                    word.with((counts + UNDER_WAY) | (limits.one_more(now) << ONE_MORE))
                }
            };
            match self.change(word, next) {
                Ok(()) if word.kind() == Kind::Open => {
                    return Admission::HalfOpened(next.pass().with(Pass::PROBE));
                }
                Ok(()) => return Admission::Admitted(next.pass().with(Pass::PROBE)),
                Err(current) => word = current,
            }
        }
    }

    /// Admits a call that [`admit`](Self::admit) has rejected, unless the circuit is isolated.
    pub(crate) fn admit_beside(&self) -> Option<Pass> {
        let word = self.load();
        (word.kind() != Kind::Isolated).then(|| word.pass().with(Pass::BESIDE))
    }

    /// The head of a response that goes on has arrived: an answer, so a probe has succeeded, and
    /// gives its place back. Returns the rest of the pass.
    #[inline]
    pub(crate) fn answered(&self, pass: Pass, limits: &Limits) -> (Pass, Change) {
        if !pass.awaits_head() {
            return (pass, Change::Nothing);
        }
        let mut word = self.load();
        loop {
            let (next, change) = match word.kind() {
                _ if !word.is_of(pass) => return (pass.plain(), Change::Nothing),
                Kind::Closed | Kind::Isolated => return (pass.plain(), Change::Nothing),
                _ if pass.is(Pass::BESIDE) => {
                    (word.turns(Kind::Closed, PROBATION), Change::OnProbation)
                }
                _ => word.succeeded_one(limits, PROBATION),
            };
            match self.change(word, next) {
                Ok(()) => return (pass.plain(), change),
                Err(current) => word = current,
            }
        }
    }

    /// A call has ended at `now`. If that opens the circuit, it stays open until the result of
    /// `until`.
    #[inline]
    pub(crate) fn leave(
        &self,
        pass: Pass,
        outcome: Sample,
        limits: &Limits,
        now: impl Fn() -> u64,
        until: impl Fn() -> u64,
    ) -> Change {
        let mut word = self.load();
        loop {
            if !word.is_of(pass) {
                return Change::Nothing;
            }
            let changed = match word.kind() {
                Kind::Closed => word.closed(outcome, limits, &now, &until),
                Kind::HalfOpen => word.half_open(pass, outcome, limits, &until),
                Kind::Open if pass.is(Pass::BESIDE) && outcome == Sample::Success => {
                    Some((word.turns(Kind::Closed, 0), Change::Closed))
                }
                Kind::Open | Kind::Isolated => None,
            };
            let Some((next, change)) = changed else { return Change::Nothing };
            match self.change(word, next) {
                Ok(()) => return change,
                Err(current) => word = current,
            }
        }
    }

    /// Opens it, if it is closed and has not opened since `pass`.
    pub(crate) fn trip(&self, pass: Pass, until: impl Fn() -> u64) -> bool {
        let mut word = self.load();
        while word.is_of(pass) && word.kind() == Kind::Closed {
            match self.change(word, word.opens(&until)) {
                Ok(()) => return true,
                Err(current) => word = current,
            }
        }
        false
    }

    /// Makes it closed or isolated; returns its earlier kind.
    pub(crate) fn force(&self, kind: Kind) -> Kind {
        let mut word = self.load();
        loop {
            match self.change(word, word.next(kind, 0)) {
                Ok(()) => return word.kind(),
                Err(current) => word = current,
            }
        }
    }

    #[inline]
    fn load(&self) -> Word {
        Word(self.0.load(Ordering::Acquire))
    }

    #[inline]
    fn change(&self, from: Word, to: Word) -> Result<(), Word> {
        let changed = self.0.compare_exchange(from.0, to.0, Ordering::AcqRel, Ordering::Acquire);
        changed.map(drop).map_err(Word)
    }
}

// === impl Word ===

impl Word {
    #[inline]
    const fn kind(self) -> Kind {
        match self.0 & 3 {
            0 => Kind::Closed,
            1 => Kind::Open,
            2 => Kind::HalfOpen,
            _ => Kind::Isolated,
        }
    }

    #[inline]
    const fn data(self) -> u64 {
        self.0 >> DATA
    }

    #[inline]
    const fn epoch(self) -> u64 {
        self.0 >> EPOCH & EPOCHS
    }

    #[inline]
    const fn under_way(self) -> u64 {
        self.data() & MOST_UNDER_WAY
    }

    #[inline]
    const fn succeeded(self) -> u64 {
        self.data() >> 8 & MOST_UNDER_WAY
    }

    #[inline]
    const fn one_more(self) -> u64 {
        self.data() >> ONE_MORE
    }

    #[inline]
    const fn pass(self) -> Pass {
        Pass::since(self.epoch())
    }

    /// Whether it has not opened since.
    #[inline]
    const fn is_of(self, pass: Pass) -> bool {
        self.epoch() == pass.epoch()
    }

    #[inline]
    const fn with(self, data: u64) -> Self {
        Self(self.0 & ((1 << DATA) - 1) | data << DATA)
    }

    /// Another state of the same opening.
    #[inline]
    const fn turns(self, kind: Kind, data: u64) -> Self {
        Self(kind as u64 | self.epoch() << EPOCH | data << DATA)
    }

    /// A state for which all earlier calls are stragglers.
    #[inline]
    const fn next(self, kind: Kind, data: u64) -> Self {
        let epoch = (self.epoch() + 1) & EPOCHS;
        Self(kind as u64 | epoch << EPOCH | data << DATA)
    }

    fn opens(self, until: impl Fn() -> u64) -> Self {
        self.next(Kind::Open, until().min(MOST_DATA))
    }

    /// The next state while it is closed.
    fn closed(
        self,
        outcome: Sample,
        limits: &Limits,
        now: impl Fn() -> u64,
        until: impl Fn() -> u64,
    ) -> Option<(Self, Change)> {
        match outcome {
            Sample::Ignored => None,
            // The usual case, in which nothing is written.
            Sample::Success if self.data() == 0 => None,
            Sample::Success => Some((self.with(0), Change::Recovered)),
            Sample::Failure if self.data() == PROBATION => {
                Some((self.opens(until), Change::ProbeFailed))
            }
            Sample::Failure => {
                let run = limits.run?;
                let now = now() & BEGINNINGS;
                let began = if self.data() == 0 { now } else { self.data() >> BEGAN & BEGINNINGS };
                let failures = (self.data() & u64::from(MOST_FAILURES)) as u32;
                let failures = failures.saturating_add(1).min(MOST_FAILURES);
                // Threads may read the clock in another order than they arrive here.
                let lasted = now.wrapping_sub(began) & BEGINNINGS;
                let lasted = if lasted > BEGINNINGS / 2 { 0 } else { lasted };
                Some(if run.is_enough(failures, lasted) {
                    (self.opens(until), Change::Opened(failures))
                } else {
                    (self.with(began << BEGAN | u64::from(failures)), Change::Nothing)
                })
            }
        }
    }

    /// The next state when a call has ended while it is half-open.
    fn half_open(
        self,
        pass: Pass,
        outcome: Sample,
        limits: &Limits,
        until: impl Fn() -> u64,
    ) -> Option<(Self, Change)> {
        let is_beside = pass.is(Pass::BESIDE);
        match outcome {
            Sample::Failure if !is_beside => Some((self.opens(until), Change::ProbeFailed)),
            Sample::Success if is_beside => Some((self.turns(Kind::Closed, 0), Change::Closed)),
            // Its place has been given back, and its head counted.
            _ if !pass.is(Pass::PROBE) => None,
            Sample::Success => Some(self.succeeded_one(limits, 0)),
            _ => Some((self.with(self.data() - UNDER_WAY), Change::Nothing)),
        }
    }

    /// A probe has succeeded; `closed` are the details if that closes it.
    fn succeeded_one(self, limits: &Limits, closed: u64) -> (Self, Change) {
        if self.succeeded() + 1 < u64::from(limits.successes) {
            return (self.with(self.data() - UNDER_WAY + SUCCEEDED), Change::Nothing);
        }
        let change = if closed == 0 { Change::Closed } else { Change::OnProbation };
        (self.turns(Kind::Closed, closed), change)
    }
}
