//! The timer of a call or an attempt.

use crate::{
    bound::{Bound, TICK, Terms},
    stage::Stage,
};
use cinchona_plumbing::{Elapsed, timer};
use pin_project_lite::pin_project;
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::time::{Instant, Sleep};

pin_project! {
    /// A bound and its timer, from the call to the end of its response's body. Boxed: it is large,
    /// and what is around it moves.
    #[derive(Debug)]
    pub(crate) struct Timer {
        bound: Bound,
        // Created at the first wait.
        #[pin]
        sleep: Option<Sleep>,
    }
}

// === impl Timer ===

impl Timer {
    /// For a call that begins `now`, with these limits.
    pub(crate) fn new<B: 'static>(
        terms: Terms,
        request: &mut http::Request<B>,
        now: Instant,
    ) -> Pin<Box<Self>> {
        Box::pin(Self { bound: Bound::new(terms, request, now), sleep: None })
    }

    pub(crate) fn bound_mut(self: Pin<&mut Self>) -> &mut Bound {
        self.project().bound
    }

    pub(crate) const fn bound(&self) -> &Bound {
        &self.bound
    }

    /// The head of the response has arrived: returns whether its body is bound, too.
    pub(crate) fn bounds_body(self: Pin<&mut Self>) -> bool {
        self.project().bound.bounds_body()
    }

    /// A frame has arrived.
    pub(crate) fn heard(self: Pin<&mut Self>, data: &[u8]) {
        let bound = self.project().bound;
        bound.messages.read(data);
        bound.heard();
    }

    /// The error if another timer has fired in this `stage`; `None` if the time is not over.
    pub(crate) fn due(self: Pin<&mut Self>, stage: Stage) -> Option<Elapsed> {
        let (bound, now) = (self.project().bound, Instant::now());
        let end = bound.end(stage).filter(|end| end.at <= now + TICK && !bound.counts())?;
        Some(bound.elapsed(end, stage, now))
    }

    /// The error at the end, in this `stage`.
    pub(crate) fn poll_end(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        stage: Stage,
    ) -> Poll<Elapsed> {
        let mut this = self.project();
        let bound = this.bound;
        loop {
            if matches!(stage, Stage::Readiness | Stage::Head) && bound.is_kept() {
                return Poll::Pending;
            }
            let Some(end) = bound.end(stage) else { return Poll::Pending };
            bound.asks(end);
            if this.sleep.is_none() {
                this.sleep.set(Some(timer(end.at)));
            }
            let Some(mut sleep) = this.sleep.as_mut().as_pin_mut() else { return Poll::Pending };
            // A timer that fires too early is reset then, which most never need.
            if end.at < sleep.deadline() || (sleep.is_elapsed() && sleep.deadline() < end.at) {
                sleep.as_mut().reset(end.at);
            }
            ready!(sleep.as_mut().poll(cx));
            if end.at <= sleep.deadline() && !bound.count(end) {
                return Poll::Ready(bound.elapsed(end, stage, Instant::now()));
            }
        }
    }
}
