//! What is noted of one call.

use crate::{
    names,
    series::{Method, Table},
    size::{Request, Sizer},
    spans::{Entered, Traced},
    tally::{self, Lent, Place, Tally},
};
use cinchona_core::status;
use std::{cell::RefCell, sync::Arc, time::Duration};
use tokio::time::Instant;
use tonic::{Code, GrpcMethod, body::Body};

/// How many notes a thread keeps for calls to come.
const MOST: usize = 64;

thread_local! {
    #[expect(clippy::vec_box, reason = "the boxes are what is kept")]
    static KEPT: RefCell<Vec<Box<Note>>> = RefCell::new(Vec::with_capacity(MOST));
}

/// What is noted of one call, or an attempt; then of another, so that none has to be allocated.
#[derive(Debug, Default)]
pub(crate) struct Note {
    /// That of the call before, at first: mostly it is the same.
    method: Option<Arc<Method>>,
    role: Role,
    /// Of a call: with its first attempt, or when it was first polled.
    began: Option<Instant>,
    /// Of a call; lent while it is polled.
    tally: Option<Box<Tally>>,
    request: Request,
    response: Sizer,
    pub(crate) span: Option<Traced>,
}

/// While it lasts, what happens in this thread belongs to a call: to the numbers of a client's, and
/// to its span.
#[derive(Debug)]
pub(crate) struct Scope<'a> {
    _lent: Option<Lent<'a>>,
    _entered: Option<Entered<'a>>,
}

/// What a layer sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Role {
    /// A call of a client, outside of all that repeats it.
    #[default]
    Call,
    /// An attempt at it.
    Attempt,
    /// A call that a server got.
    Served,
}

// === impl Note ===

impl Note {
    /// One that the thread has kept, or a new one.
    #[inline]
    pub(crate) fn take() -> Box<Self> {
        let kept = KEPT.try_with(|kept| kept.borrow_mut().pop());
        // A thread that is ending keeps none.
        kept.ok().flatten().unwrap_or_default()
    }

    /// Is kept for another call.
    #[inline]
    pub(crate) fn keep(self: Box<Self>) {
        _ = KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            if kept.len() < MOST {
                kept.push(self);
            }
        });
    }

    /// A call to one of the methods in `table` begins; an attempt's place is `None` where no layer
    /// watches its call.
    #[inline]
    pub(crate) fn begin(
        &mut self,
        role: Role,
        table: &Table,
        request: &mut http::Request<Body>,
    ) -> Option<Place> {
        let method = match &self.method {
            Some(method) if method.is(table, request.uri().path()) => method,
            _ => self.method.insert(find(role, table, request)),
        };
        let (mut place, mut began) = (None, None);
        match role {
            Role::Call => **self.tally.get_or_insert_default() = Tally::default(),
            Role::Attempt => {
                let previous = || status::previous_attempts(request.headers());
                let (now, among) = tally::begins(previous);
                (place, began) = (among, Some(now));
            }
            Role::Served => began = Some(Instant::now()),
        }
        if role != Role::Call {
            let (counted, writer) = method.own();
            counted.transfers.started.add(1, writer);
            self.request.watch(request);
            self.response = Sizer::default();
        }
        (self.role, self.began) = (role, began);
        place
    }

    /// The service below is about to be called, within the scope.
    #[inline(always)]
    pub(crate) fn call(&mut self) -> Scope<'_> {
        if self.role == Role::Call {
            tally::wake();
        }
        self.scope()
    }

    /// It was called.
    #[inline]
    pub(crate) fn called(&mut self) {
        if self.role == Role::Call {
            self.began = tally::seen();
        }
    }

    /// The response is about to be polled, within the scope.
    #[inline(always)]
    pub(crate) fn poll(&mut self) -> Scope<'_> {
        if self.role == Role::Call {
            tally::wake();
            if self.began.is_none() {
                self.began = Some(tally::look());
            }
        }
        self.scope()
    }

    #[inline(always)]
    fn scope(&mut self) -> Scope<'_> {
        let is_call = self.role == Role::Call;
        Scope {
            _lent: is_call.then(|| Lent::new(&mut self.tally)),
            _entered: self.span.as_ref().map(Traced::enter),
        }
    }

    /// The response's body is about to be polled, within the scope: there no attempt begins any
    /// more.
    #[inline]
    pub(crate) fn poll_body(&self) -> Option<Entered<'_>> {
        if self.role == Role::Call {
            tally::wake();
        }
        self.span.as_ref().map(Traced::enter)
    }

    /// Some of its answer is there.
    #[inline]
    pub(crate) fn answered(&mut self, data: &[u8]) {
        // A call's is that of its last attempt, which has counted it.
        if self.role != Role::Call {
            self.response.add(data);
        }
    }

    /// How many attempts it took, if it is a call.
    pub(crate) fn attempts(&self) -> Option<u32> {
        let is_call = self.role == Role::Call;
        self.tally.as_ref().filter(|_| is_call).map(|tally| tally.attempts())
    }

    /// It has ended with `code`, and its request `has_left` the client, for all that is known; how
    /// long it took.
    #[inline]
    pub(crate) fn end(&self, code: Code, has_left: impl FnOnce() -> bool) -> Duration {
        let now = match self.role {
            Role::Call => tally::look(),
            Role::Attempt => tally::ends(),
            Role::Served => Instant::now(),
        };
        let took = now - self.began.unwrap_or(now);
        let Some(method) = &self.method else { return took };
        let (counted, writer) = method.own();
        if self.role == Role::Call {
            counted.ended(code, nanos(took), writer);
            if let Some(tally) = &self.tally
                && tally.attempts() > 1
            {
                end_repeated(method, tally);
            }
            return took;
        }
        let answer = self.response.total();
        let sizes = match self.role {
            Role::Served => [answer, self.request.total()],
            _ if has_left() => [self.request.total(), answer],
            _ => [0, answer],
        };
        counted.transfers.ended(code, nanos(took), sizes, writer);
        took
    }
}

#[cold]
fn end_repeated(method: &Method, tally: &Tally) {
    let (counted, writer) = method.own();
    let repeated = counted.repeated.get_or_init(Box::default);
    repeated.ended([tally.retries(), tally.transparent(), tally.hedges()], writer);
    repeated.delay.record(names::LATENCY, nanos(tally.delay()), writer);
}

/// A method that the note was not about.
fn find(role: Role, table: &Table, request: &http::Request<Body>) -> Arc<Method> {
    // The generated client has put that there; it knows no methods but those of its .proto.
    let is_generated = || request.extensions().get::<GrpcMethod<'_>>().is_some();
    table.get(request.uri().path(), || role != Role::Served && is_generated())
}

/// Enough for 584 years.
const fn nanos(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000_000).saturating_add(duration.subsec_nanos() as u64)
}
