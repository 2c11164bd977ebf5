//! The observation of one call by a layer: numbers always, a span if wanted.

use crate::{
    ending::Ending,
    measurement::Measurement,
    place::Role,
    series::Table,
    spans::{self, Entered, Tracer},
};
use cinchona_core::{BoxError, Mode, Switch, Verdict};
use cinchona_plumbing::{Misplaced, Next, Polled, ResponseBody, Seen, Watcher, begins, status};
use http::StatusCode;
use std::{any::Any, error::Error, pin::Pin, sync::Arc};
use tokio::time::Instant;
use tonic::{Code, Status, body::Body};

/// The part of a layer that observes calls; shared by all services that it was applied to.
#[derive(Clone, Debug)]
pub(crate) struct Observer {
    pub(crate) role: Role,
    pub(crate) table: Arc<Table>,
    pub(crate) tracer: Arc<Tracer>,
    pub(crate) switch: Switch,
    pub(crate) misplaced: Misplaced,
}

const WITHIN_ATTEMPTS: &str = "a layer of calls stands within the attempts of a retry layer, so \
    that each counts as a call, and the attempts of the others as its own: put `CallLayer` around \
    `RetryLayer`, and `AttemptLayer` within";

/// The observation of one call, until the head of its response.
#[derive(Debug)]
pub(crate) struct Observation(Option<Box<Measurement>>);

// === impl Observer ===

impl Observer {
    /// A call is about to be made.
    #[inline]
    pub(crate) fn begin(
        self: &Arc<Self>,
        request: &mut http::Request<Body>,
        now: Instant,
    ) -> Observation {
        if self.switch.mode() == Mode::Off {
            return Observation(None);
        }
        let mut note = Measurement::take();
        note.begin(self.role, &self.table, request, now);
        if note.is_call_within_attempts() {
            self.misplaced.warn(request.uri().path(), WITHIN_ATTEMPTS);
        }
        note.span = match self.role {
            Role::Call => Tracer::call(&self.tracer, request),
            Role::Attempt => Tracer::attempt(&self.tracer, request, || note.place()),
            Role::Served => Tracer::serve(&self.tracer, request),
        };
        Observation(Some(note))
    }
}

// === impl Observation ===

impl Observation {
    /// While the guard lives, events of this thread belong to the call's span.
    #[inline(always)]
    pub(crate) fn enter(&self) -> Option<Entered<'_>> {
        self.0.as_deref()?.enter()
    }

    /// Continues with the body of the response.
    pub(crate) fn watches(&mut self, body: &mut ResponseBody) {
        let Some(note) = self.0.take() else { return };
        if note.is_served_unary() {
            let _scope = note.enter();
            body.settle();
        }
        match note.span {
            Some(_) => body.watch_boxed_within(Box::into_pin(note)),
            None => body.watch_boxed(Box::into_pin(note)),
        }
    }

    /// The head of a response has arrived, and with it the end of a trailers-only one.
    #[inline]
    pub(crate) fn head(&mut self, head: &http::Response<ResponseBody>) {
        let Some(note) = self.0.as_deref_mut() else { return };
        if let Some(span) = &mut note.span {
            span.head(head.extensions());
        }
        if begins(head) {
            return;
        }
        if let Some(code) = status::code(head.headers()) {
            self.end(code, || Ending::Verdict(Verdict::of_head(head)));
        } else if head.status() != StatusCode::OK {
            let code = status::code_of_http(head.status());
            self.end(code, || Ending::Verdict(Verdict::of_head(head)));
        } else {
            self.end_unsaid();
        }
    }

    #[cold]
    pub(crate) fn failed(&mut self, error: &dyn Any) {
        match as_error(error) {
            Some(error) => {
                let verdict = Verdict::of_error(error);
                self.end(verdict.code(), || Ending::Failed(verdict, error));
            }
            None => self.end_unsaid(),
        }
    }

    /// It has ended without a status.
    fn end_unsaid(&mut self) {
        self.end(Code::Unknown, || UNSAID);
    }

    /// It has ended with `code`; `how` is called if more is needed.
    #[inline]
    fn end<'a>(&mut self, code: Code, how: impl Fn() -> Ending<'a>) {
        let Some(mut note) = self.0.take() else { return };
        note.ends(code, Instant::now(), how);
        note.keep();
    }
}

/// It has ended without a status.
const UNSAID: Ending<'static> = Ending::Verdict(Verdict::MaybeProcessed(Code::Unknown));

// === impl Measurement ===

impl Measurement {
    /// It has ended with `code`; `how` is called if more is needed.
    #[inline]
    fn ends<'a>(&mut self, code: Code, now: Instant, how: impl Fn() -> Ending<'a>) {
        // Only the request of a failed call may not have left.
        let took = self.end(code, now, || code == Code::Ok || how().has_left());
        match self.span.take() {
            Some(span) => span.end(code, &how(), self.attempts(), took, self.method()),
            None if self.is_served() && code != Code::Ok => {
                if let Some(method) = self.method() {
                    spans::report(code, took, method, true, None);
                }
            }
            None => {}
        }
    }
}

impl Watcher for Measurement {
    /// A call's size is that of its last attempt, which has counted it.
    fn sees_data(&self) -> bool {
        self.role() != Role::Call
    }

    #[inline]
    fn sees(self: Pin<&mut Self>, polled: &mut Polled, seen: &mut Seen) -> Next {
        let note = self.get_mut();
        match polled {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    note.answered(data);
                    return Next::Watch;
                }
                let Some(trailers) = frame.trailers_ref() else { return Next::Watch };
                let code = seen.code(trailers).unwrap_or(Code::Unknown);
                note.ends(code, seen.now(), || Ending::Verdict(Verdict::of_code(code)));
            }
            Some(Err(error)) => {
                let verdict = Verdict::of_error(error);
                note.ends(verdict.code(), seen.now(), || Ending::Failed(verdict, error));
            }
            None => note.ends(Code::Unknown, seen.now(), || UNSAID),
        }
        Next::Over
    }

    fn scope(self: Pin<&mut Self>, poll: &mut dyn FnMut()) {
        let _scope = self.enter();
        poll();
    }

    fn is_over(self: Pin<Box<Self>>) {
        Pin::into_inner(self).keep();
    }
}

impl Drop for Measurement {
    #[inline]
    fn drop(&mut self) {
        if self.is_open {
            self.ends(Code::Cancelled, Instant::now(), || Ending::Dropped);
        }
    }
}

fn as_error(error: &dyn Any) -> Option<&(dyn Error + 'static)> {
    if let Some(boxed) = error.downcast_ref::<BoxError>() {
        return Some(&**boxed);
    }
    if let Some(status) = error.downcast_ref::<Status>() {
        return Some(status);
    }
    error.downcast_ref::<tonic::transport::Error>().map(|error| error as _)
}
