//! The measurement of one call.

use crate::{
    place::{Place, Role, idle},
    series::{LATENCY, Method, Table},
    size::{Request, Sizer},
    spans::{Entered, Traced},
};
use cinchona_core::{Attempt, AttemptKind, Call, MethodKind, ServerContext};
use cinchona_plumbing::{Kept, clock::nanos, gather};
use std::{mem, sync::Arc, time::Duration};
use tokio::time::Instant;
use tonic::{Code, GrpcMethod, body::Body};

thread_local! {
    static KEPT: Kept<Measurement> = const { Kept::new() };
}

/// The measurement of one call, or an attempt; then reused for another, to avoid allocations.
#[derive(Debug, Default)]
pub(crate) struct Measurement {
    /// At first that of the call before, which is usually the same.
    method: Option<Arc<Method>>,
    role: Role,
    began: Option<Instant>,
    /// The record of the call, or the attempt's handle of it.
    call: Option<Call>,
    request: Request,
    response: Sizer,
    pub(crate) span: Option<Traced>,
    /// The call has not ended: dropped now, it was cancelled.
    pub(crate) is_open: bool,
}

// === impl Measurement ===

impl Measurement {
    /// A kept one of this thread, or a new one.
    #[inline]
    pub(crate) fn take() -> Box<Self> {
        Kept::take(&KEPT)
    }

    /// Keeps it for another call, of whose record it then has the memory.
    #[inline]
    pub(crate) fn keep(mut self: Box<Self>) {
        if self.role != Role::Call {
            self.call = None;
        }
        Kept::keep(&KEPT, self);
    }

    /// A call of one of the methods in `table` begins.
    #[inline]
    pub(crate) fn begin(
        &mut self,
        role: Role,
        table: &Table,
        request: &mut http::Request<Body>,
        now: Instant,
    ) {
        let method = match &self.method {
            Some(method) if method.is(table, request.uri().path()) => method,
            _ => self.method.insert(find(role, table, request)),
        };
        self.role = role;
        // Of an earlier call: only its memory is of use.
        let ended = self.call.take();
        let size = match role {
            Role::Call => {
                let call = Call::of_reusing(request, ended, || now);
                self.began = Some(call.began());
                self.call = Some(call.to_record());
                self.is_open = true;
                return;
            }
            Role::Attempt => {
                let call = request.extensions_mut().get_mut::<Call>();
                let (began, size) = match call {
                    Some(call) => {
                        let began = call.passes(|| now);
                        self.call = Some(call.to_record());
                        (began, call.size())
                    }
                    None => (now, None),
                };
                self.began = Some(began);
                size
            }
            Role::Served => {
                let (began, size) = serve(method.kind, request, now);
                self.began = began;
                size
            }
        };
        self.request.watch(request, size);
        self.response = Sizer::default();
        // Nothing from here on panics, as a body may: what has ended has begun.
        let (counted, writer) = method.own();
        counted.transfers.started.add(1, writer);
        self.is_open = true;
    }

    /// The place of an attempt in its call; `None` if no layer keeps a record of the call.
    pub(crate) fn place(&self) -> Option<Place> {
        self.call.as_ref().and_then(Place::of)
    }

    /// Whether it is taken for a call, and is an attempt of one.
    #[inline]
    pub(crate) fn is_call_within_attempts(&self) -> bool {
        self.role == Role::Call && self.call.as_ref().is_some_and(Call::is_of_attempt)
    }

    /// While the guard lives, events of this thread belong to the call's span.
    #[inline(always)]
    pub(crate) fn enter(&self) -> Option<Entered<'_>> {
        self.span.as_ref().map(Traced::enter)
    }

    /// A part of its answer has arrived.
    #[inline]
    pub(crate) fn answered(&mut self, data: &[u8]) {
        self.response.add(data);
    }

    /// What it measures.
    pub(crate) const fn role(&self) -> Role {
        self.role
    }

    /// Whether it is a call that is served.
    pub(crate) fn is_served(&self) -> bool {
        self.role == Role::Served
    }

    /// Whether it is a call that is served, of a method that is known to stream nothing.
    pub(crate) fn is_served_unary(&self) -> bool {
        let kind = self.method.as_ref().and_then(|method| method.kind);
        self.is_served() && kind == Some(MethodKind::Unary)
    }

    /// Its method.
    pub(crate) fn method(&self) -> Option<&Method> {
        self.method.as_deref()
    }

    /// The number of its attempts, if it is a call.
    pub(crate) fn attempts(&self) -> Option<u32> {
        let call = self.call.as_ref().filter(|_| self.role == Role::Call);
        call.map(|call| call.attempt_count() as u32)
    }

    /// It has ended `now` with `code`, and its request may have `has_left` the client; returns its
    /// duration.
    #[inline]
    pub(crate) fn end(
        &mut self,
        code: Code,
        now: Instant,
        has_left: impl FnOnce() -> bool,
    ) -> Duration {
        self.is_open = false;
        let took = now - self.began.unwrap_or(now);
        let Some(method) = &self.method else { return took };
        let (counted, writer) = method.own();
        if self.role == Role::Call {
            counted.ended(code, nanos(took), writer);
            if let Some(call) = self.call.as_ref().filter(|call| call.has_repeated()) {
                end_repeated(method, &call.attempts());
            }
            return took;
        }
        if let Some(attempt) = &self.call {
            attempt.ends(now);
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
fn end_repeated(method: &Method, attempts: &[Attempt]) {
    if attempts.len() < 2 {
        return;
    }
    let (counted, writer) = method.own();
    let repeated = counted.repeated.get_or_init(Box::default);
    let of = |kind| attempts.iter().filter(|attempt| attempt.kind == kind).count() as u32;
    let counts = [AttemptKind::Retry, AttemptKind::Transparent, AttemptKind::Hedge].map(of);
    repeated.ended(counts, writer);
    let delay = idle(attempts).into_iter().sum();
    repeated.delay.record(&LATENCY, nanos(delay), writer);
}

/// A call is served: when it began, and the length of its body if all of that has arrived. What
/// this layer knows of it is then in its record.
fn serve(
    kind: Option<MethodKind>,
    request: &mut http::Request<Body>,
    now: Instant,
) -> (Option<Instant>, Option<u64>) {
    // Apart, as both are changed, and the record is looked for once.
    let mut body = mem::take(request.body_mut());
    let context = ServerContext::of(request, || now);
    context.kind = context.kind.or(kind);
    let has_one_message = kind.is_some_and(|kind| !kind.streams_requests());
    if has_one_message && context.arrived().is_none() {
        match gather(&mut body) {
            Some(size) => context.has_arrived(size),
            None => context.is_still_arriving(),
        }
    }
    let known = (context.began(), context.arrived());
    *request.body_mut() = body;
    known
}

/// Another method than that of the last call.
fn find(role: Role, table: &Table, request: &http::Request<Body>) -> Arc<Method> {
    // Set by the generated client, which knows only the methods of its .proto.
    let is_generated = || request.extensions().get::<GrpcMethod<'_>>().is_some();
    table.get(request.uri().path(), || role != Role::Served && is_generated())
}
