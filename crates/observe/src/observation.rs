//! What is noted of one call, by the layer that sees it: numbers always, a span where it is wanted.

use crate::{
    ending::Ending,
    measurement::Measurement,
    place::Role,
    series::Table,
    spans::{Entered, Tracer},
};
use bytes::Bytes;
use cinchona_core::{BoxError, Mode, Switch, Verdict};
use cinchona_plumbing::status;
use http::StatusCode;
use http_body::Frame;
use std::{any::Any, error::Error, sync::Arc};
use tonic::{Code, Status, body::Body};

/// What a layer notes of each call; shared by all that it was applied to.
#[derive(Clone, Debug)]
pub(crate) struct Observer {
    pub(crate) role: Role,
    pub(crate) table: Arc<Table>,
    pub(crate) tracer: Arc<Tracer>,
    pub(crate) switch: Switch,
}

/// What is noted of one call, until its end; dropped before that, it was cancelled.
#[derive(Debug, Default)]
pub(crate) struct Observation(Option<Box<Measurement>>);

// === impl Observer ===

impl Observer {
    /// A call is about to be made.
    #[inline]
    pub(crate) fn begin(self: &Arc<Self>, request: &mut http::Request<Body>) -> Observation {
        if self.switch.mode() == Mode::Off {
            return Observation::default();
        }
        let mut note = Measurement::take();
        let place = note.begin(self.role, &self.table, request);
        note.span = match self.role {
            Role::Call => Tracer::call(&self.tracer, request),
            Role::Attempt => Tracer::attempt(&self.tracer, request, place),
            Role::Served => Tracer::serve(&self.tracer, request),
        };
        Observation(Some(note))
    }
}

// === impl Observation ===

impl Observation {
    /// While it lasts, what happens in this thread belongs to the call's span.
    #[inline(always)]
    pub(crate) fn enter(&self) -> Option<Entered<'_>> {
        self.0.as_deref()?.enter()
    }

    /// Whether nothing more is noted.
    #[inline]
    pub(crate) const fn is_off(&self) -> bool {
        self.0.is_none()
    }

    /// Leaves it to another.
    #[inline]
    pub(crate) const fn take(&mut self) -> Self {
        Self(self.0.take())
    }

    /// The head of a response is there, and with it the end, where it is all there is.
    #[inline]
    pub(crate) fn head<B: http_body::Body>(&mut self, head: &http::Response<B>) {
        if let Some(Measurement { span: Some(span), .. }) = self.0.as_deref_mut() {
            span.head(head.extensions());
        }
        if let Some(code) = status::code(head.headers()) {
            self.end(code, || Ending::Verdict(Verdict::of_head(head)));
        } else if head.status() != StatusCode::OK {
            let code = status::code_of_http(head.status());
            self.end(code, || Ending::Verdict(Verdict::of_head(head)));
        } else if head.body().is_end_stream() || !status::is_grpc(head.headers()) {
            self.end_unsaid();
        }
    }

    #[inline]
    pub(crate) fn frame<E: 'static>(&mut self, frame: Option<&Result<Frame<Bytes>, E>>) {
        match frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    if let Some(note) = &mut self.0 {
                        note.answered(data);
                    }
                } else if let Some(trailers) = frame.trailers_ref() {
                    let code = status::code(trailers).unwrap_or(Code::Unknown);
                    self.end(code, || Ending::Verdict(Verdict::of_trailers(trailers)));
                }
            }
            Some(Err(error)) => self.failed(error),
            None => self.end_unsaid(),
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

    #[cold]
    fn dropped(&mut self) {
        self.end(Code::Cancelled, || Ending::Dropped);
    }

    /// It has ended, and nothing says how.
    fn end_unsaid(&mut self) {
        self.end(Code::Unknown, || Ending::Verdict(Verdict::MaybeProcessed(Code::Unknown)));
    }

    /// It has ended with `code`; `how` is asked by who wants to know more.
    #[inline]
    fn end<'a>(&mut self, code: Code, how: impl Fn() -> Ending<'a>) {
        let Some(mut note) = self.0.take() else { return };
        // Only a request that failed has perhaps not left.
        let took = note.end(code, || code == Code::Ok || how().has_left());
        if let Some(span) = note.span.take() {
            span.end(code, &how(), note.attempts(), took);
        }
        note.keep();
    }
}

impl Drop for Observation {
    #[inline]
    fn drop(&mut self) {
        if self.0.is_some() {
            self.dropped();
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
