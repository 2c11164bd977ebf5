//! The future of a call.

use crate::{
    answer::Reading,
    call::{Asking, Call, Next, Outcome},
};
use bytes::Bytes;
use cinchona_core::BoxError;
use cinchona_plumbing::ResponseBody;
use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tonic::Code;

pin_project! {
    /// The future of a [`Fallback`](crate::Fallback) call.
    pub struct ResponseFuture<F> {
        #[pin]
        stage: Stage<F>,
        // `None` for a call without second answers.
        call: Option<Box<Call>>,
    }
}

pin_project! {
    #[project = StageProj]
    enum Stage<F> {
        Calling { #[pin] inner: F },
        // Boxed, as they are large, and used by few calls or after the answer was read.
        Reading { reading: Box<Reading> },
        Asking { asking: Asking, code: Code, failed: Option<Box<Outcome>> },
        Ended { outcome: Option<Box<Outcome>> },
    }
}

// === impl ResponseFuture ===

impl<F> ResponseFuture<F> {
    pub(crate) const fn calling(inner: F, call: Option<Box<Call>>) -> Self {
        Self { stage: Stage::Calling { inner }, call }
    }

    /// A call that has failed before it was made.
    pub(crate) fn failed(error: BoxError, mut call: Option<Box<Call>>) -> Self {
        let stage = match &mut call {
            Some(call) => Stage::after(call.begun::<tonic::body::Body>(Err(error))),
            None => Stage::Ended { outcome: Some(Box::new(Err(error))) },
        };
        Self { stage, call }
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    E: Into<BoxError>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match (this.stage.as_mut().project(), &mut *this.call) {
                (StageProj::Calling { inner }, call) => {
                    let outcome = ready!(inner.poll(cx)).map_err(Into::into);
                    match call {
                        Some(call) => call.begun(outcome),
                        None => {
                            return Poll::Ready(outcome.map(|head| head.map(ResponseBody::of)));
                        }
                    }
                }
                (StageProj::Reading { reading }, Some(call)) => match ready!(reading.poll(cx)) {
                    Some(read) => call.read(read),
                    None => return Poll::Pending,
                },
                (StageProj::Asking { asking, code, failed }, Some(call)) => {
                    let asked = ready!(asking.as_mut().poll(cx));
                    match failed.take() {
                        Some(failed) => Next::End(call.asked(asked, *code, *failed)),
                        None => return Poll::Pending,
                    }
                }
                (StageProj::Ended { outcome }, _) => match outcome.take() {
                    Some(outcome) => return Poll::Ready(*outcome),
                    None => return Poll::Pending,
                },
                // Polling it after its end panics.
                (_, None) => return Poll::Pending,
            };
            if let Next::End(outcome) = next {
                return Poll::Ready(outcome);
            }
            this.stage.set(Stage::after(next));
        }
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

// === impl Stage ===

impl<F> Stage<F> {
    fn after(next: Next) -> Self {
        match next {
            Next::Read(reading) => Self::Reading { reading: Box::new(reading) },
            Next::Ask(asking, code, failed) => {
                Self::Asking { asking, code, failed: Some(Box::new(failed)) }
            }
            Next::End(outcome) => Self::Ended { outcome: Some(Box::new(outcome)) },
        }
    }
}
