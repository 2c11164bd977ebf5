//! Who sends a call on a connection: our own HTTP/2, or a channel of tonic's.

use crate::http2::{Http2, Sending};
use cinchona_core::{BoxError, Rejected};
use cinchona_plumbing::{ResponseBody, polled_again};
use http::{Request, Response};
use pin_project_lite::pin_project;
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};
use tonic::{
    body::Body,
    transport::{Channel, channel},
};
use tower::{Service, ServiceExt, util::Oneshot};

/// Sends calls on a connection.
#[derive(Clone, Debug)]
pub(crate) enum Sender {
    /// Of a connection that nobody has configured.
    Own(Http2),
    /// Of one that a tonic `Endpoint` configures, whose settings only tonic can read.
    Tonic(Channel),
}

pin_project! {
    /// A call that was sent.
    #[project = SentProj]
    pub(crate) enum Sent {
        Own { sending: Option<Sending> },
        Tonic { #[pin] sent: channel::ResponseFuture },
        // Boxed: it is large, and rare.
        Queued { queued: Pin<Box<Oneshot<Channel, Request<Body>>>> },
        Rejected { rejected: Option<Rejected> },
    }
}

// === impl Sender ===

impl Sender {
    pub(crate) fn send(&self, request: Request<Body>) -> Sent {
        match self {
            Self::Own(http2) => match http2.send(request) {
                Ok(sending) => Sent::Own { sending: Some(sending) },
                Err(rejected) => Sent::Rejected { rejected: Some(rejected) },
            },
            Self::Tonic(channel) => {
                let mut channel = channel.clone();
                // Usually there is a place immediately; a call that has to queue is woken later.
                match channel.poll_ready(&mut Context::from_waker(Waker::noop())) {
                    Poll::Ready(Ok(())) => Sent::Tonic { sent: channel.call(request) },
                    _ => Sent::Queued { queued: Box::pin(channel.oneshot(request)) },
                }
            }
        }
    }
}

/// For the health check, whose client is tonic's.
impl Service<Request<Body>> for Sender {
    type Response = Response<ResponseBody>;
    type Error = BoxError;
    type Future = Sent;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Sent {
        self.send(request)
    }
}

impl Future for Sent {
    type Output = Result<Response<ResponseBody>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match self.project() {
            SentProj::Own { sending } => match sending {
                Some(sent) => {
                    let outcome = ready!(Pin::new(sent).poll(cx));
                    *sending = None;
                    outcome.map(|head| head.map(ResponseBody::of))
                }
                None => Err(polled_again()),
            },
            SentProj::Tonic { sent } => of_tonic(ready!(sent.poll(cx))),
            SentProj::Queued { queued } => of_tonic(ready!(queued.as_mut().poll(cx))),
            SentProj::Rejected { rejected } => {
                Err(rejected.take().map_or_else(polled_again, Into::into))
            }
        })
    }
}

fn of_tonic(
    outcome: Result<Response<Body>, tonic::transport::Error>,
) -> Result<Response<ResponseBody>, BoxError> {
    Ok(outcome?.map(ResponseBody::of))
}
