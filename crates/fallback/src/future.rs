//! The future of a call.

use crate::{
    answer::Reading,
    body::FallbackBody,
    call::{Asking, Call, Next, Outcome},
};
use bytes::Bytes;
use cinchona_core::BoxError;
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
    pub struct ResponseFuture<F, B> {
        #[pin]
        stage: Stage<F, B>,
        // None for a call that is not given second answers.
        call: Option<Box<Call>>,
    }
}

pin_project! {
    #[project = StageProj]
    enum Stage<F, B> {
        Calling { #[pin] inner: F },
        // Boxed, as they are large: the calls that come to them are few, or read to their end here.
        Reading { reading: Box<Reading<B>> },
        Asking { asking: Asking, code: Code, failed: Option<Box<Outcome<B>>> },
        Ended { outcome: Option<Box<Outcome<B>>> },
    }
}

// === impl ResponseFuture ===

impl<F, B> ResponseFuture<F, B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    pub(crate) const fn calling(inner: F, call: Option<Box<Call>>) -> Self {
        Self { stage: Stage::Calling { inner }, call }
    }

    /// A call that has failed before it was made.
    pub(crate) fn failed(error: BoxError, mut call: Option<Box<Call>>) -> Self {
        let stage = match &mut call {
            Some(call) => Stage::after(call.begun(Err(error))),
            None => Stage::Ended { outcome: Some(Box::new(Err(error))) },
        };
        Self { stage, call }
    }
}

impl<F, B, E> Future for ResponseFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
    E: Into<BoxError>,
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Output = Outcome<B>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match (this.stage.as_mut().project(), &mut *this.call) {
                (StageProj::Calling { inner }, call) => {
                    let outcome = ready!(inner.poll(cx)).map_err(Into::into);
                    match call {
                        Some(call) => call.begun(outcome),
                        None => {
                            return Poll::Ready(outcome.map(|head| head.map(FallbackBody::passed)));
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
                // Polled after its end, as all of these.
                (_, None) => return Poll::Pending,
            };
            if let Next::End(outcome) = next {
                return Poll::Ready(outcome);
            }
            this.stage.set(Stage::after(next));
        }
    }
}

impl<F, B> fmt::Debug for ResponseFuture<F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

// === impl Stage ===

impl<F, B> Stage<F, B> {
    fn after(next: Next<B>) -> Self {
        match next {
            Next::Read(reading) => Self::Reading { reading: Box::new(reading) },
            Next::Ask(asking, code, failed) => {
                Self::Asking { asking, code, failed: Some(Box::new(failed)) }
            }
            Next::End(outcome) => Self::Ended { outcome: Some(Box::new(outcome)) },
        }
    }
}
