//! One call: the request is sent, its answer awaited.

use super::{
    incoming::Incoming,
    shared::InFlight,
    upload::{Task, Upload},
};
use cinchona_core::{BoxError, Call};
use cinchona_plumbing::{Elapsed, clock::FOR_EVER, timeout::parse_timeout};
use h2::client::ResponseFuture;
use http::{Request, Response};
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    runtime::Handle,
    time::{Sleep, sleep},
};
use tonic::body::Body;

/// Sends the body of a request, and awaits the head of the answer. Dropped before, it resets the
/// stream.
pub(crate) struct Exchange {
    upload: Option<Upload>,
    /// The upload, where its body was not there at once.
    task: Option<Task>,
    response: ResponseFuture,
    limit: Option<Pin<Box<Limit>>>,
    /// `None` once the answer has begun.
    in_flight: Option<InFlight>,
}

/// The time of a call that no layer bounds.
pub(super) struct Limit {
    limit: Duration,
    sleep: Pin<Box<Sleep>>,
}

/// The limit that the request's `grpc-timeout` says, if no layer has taken it over. Its timer is
/// that of `runtime`: a call may be made from elsewhere.
pub(super) fn limit(request: &Request<Body>, runtime: &Handle) -> Option<Pin<Box<Limit>>> {
    if Call::find(request).is_some_and(|call| call.deadline().is_some()) {
        return None;
    }
    let limit = parse_timeout(request.headers()).ok().flatten()?;
    let _entered = runtime.enter();
    Some(Box::pin(Limit { limit, sleep: Box::pin(sleep(limit.min(FOR_EVER))) }))
}

// === impl Exchange ===

impl Exchange {
    pub(super) const fn new(
        upload: Option<Upload>,
        response: ResponseFuture,
        limit: Option<Pin<Box<Limit>>>,
        in_flight: InFlight,
    ) -> Self {
        Self { upload, task: None, response, limit, in_flight: Some(in_flight) }
    }

    /// Sends the body as far as it is there. The rest is for a task, as the caller may have to do
    /// something else before there is more.
    fn uploads(&mut self, cx: &mut Context<'_>) {
        if let (Some(mut upload), Some(in_flight)) = (self.upload.take(), &self.in_flight)
            && Pin::new(&mut upload).poll(cx).is_pending()
        {
            self.task = Some(Task::new(in_flight.runtime(), upload));
        }
    }
}

impl Future for Exchange {
    type Output = Result<Response<Incoming>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.uploads(cx);
        match Pin::new(&mut self.response).poll(cx) {
            Poll::Ready(Ok(response)) => {
                let (task, in_flight) = (self.task.take(), self.in_flight.take());
                Poll::Ready(Ok(response.map(|body| Incoming::new(body, task, in_flight))))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(match &self.in_flight {
                Some(in_flight) => in_flight.explain(error),
                None => error.into(),
            })),
            Poll::Pending => match &mut self.limit {
                Some(limit) => limit.as_mut().poll(cx).map(|elapsed| Err(elapsed.into())),
                None => Poll::Pending,
            },
        }
    }
}

// === impl Limit ===

impl Future for Limit {
    type Output = Elapsed;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Elapsed> {
        let limit = self.limit;
        self.sleep
            .as_mut()
            .poll(cx)
            .map(|()| Elapsed::new(format!("no answer within the call's timeout of {limit:?}")))
    }
}
