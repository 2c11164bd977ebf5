//! A service whose answers the test gives: calls overlap as it likes.

use super::*;
use futures_util::{FutureExt, stream};
use http_body::Frame;
use http_body_util::StreamBody;
use std::{
    pin::Pin,
    sync::{Arc, Mutex},
};
use tokio::sync::oneshot;
use tokio_test::task::{self, Spawn};

type Outcome = Result<Response<Body>, BoxError>;

/// Passes the answer of each call to the test, in the order of arrival.
#[derive(Clone, Debug, Default)]
pub(super) struct Manual(Arc<Mutex<Option<oneshot::Sender<Outcome>>>>);

/// A call in flight.
pub(super) struct Flight {
    call: Spawn<Pin<Box<dyn Future<Output = Got>>>>,
    answer: Option<oneshot::Sender<Outcome>>,
    /// Sends the rest of an answer whose head was sent.
    rest: Option<oneshot::Sender<()>>,
}

impl Service<Request<Body>> for Manual {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Outcome> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        let (sender, receiver) = oneshot::channel();
        *self.0.lock().unwrap() = Some(sender);
        Box::pin(async { receiver.await? })
    }
}

impl Flight {
    /// Begins a call.
    pub(super) fn begin(client: &Fallback<Manual>, request: Request<Body>) -> Self {
        let own = client.clone();
        let mut call: Spawn<Pin<Box<dyn Future<Output = Got>>>> =
            task::spawn(Box::pin(async move { ask(&own, request).await }));
        assert!(call.poll().is_pending());
        Self { call, answer: client.inner.0.lock().unwrap().take(), rest: None }
    }

    /// The head of the answer arrives, and not yet the rest.
    pub(super) fn head(&mut self, reply: Reply) {
        let (head, body) = respond(reply).into_parts();
        let frames = body.collect().now_or_never().unwrap().unwrap();
        let trailers = frames.trailers().cloned().map(Frame::trailers);
        let frames = [Frame::data(frames.to_bytes())].into_iter().chain(trailers);
        let (sender, released) = oneshot::channel::<()>();
        let frames = released.map(|_| stream::iter(frames.map(Ok::<_, Status>))).flatten_stream();
        let response = Response::from_parts(head, Body::new(StreamBody::new(frames)));
        self.answer.take().unwrap().send(Ok(response)).unwrap();
        assert!(self.call.poll().is_pending());
        self.rest = Some(sender);
    }

    pub(super) fn has_head(&self) -> bool {
        self.rest.is_some()
    }

    /// The rest of the answer arrives.
    pub(super) fn rest(mut self) -> Got {
        self.rest.take().unwrap().send(()).unwrap();
        self.got()
    }

    /// The whole answer arrives.
    pub(super) fn answer(self, reply: Reply) -> Got {
        self.outcome(Ok(respond(reply)))
    }

    pub(super) fn outcome(mut self, outcome: Outcome) -> Got {
        let _ = self.answer.take().unwrap().send(outcome);
        self.got()
    }

    fn got(mut self) -> Got {
        let Poll::Ready(got) = self.call.poll() else { panic!("the answer was given") };
        got
    }
}

/// The response that a scripted server would give.
pub(super) fn respond(reply: Reply) -> Response<Body> {
    let server = ScriptedServer::new([reply]);
    server.oneshot(balance()).now_or_never().unwrap().unwrap()
}

/// The answer of a proxy, which speaks no gRPC.
pub(super) fn proxy(status: u16) -> Response<Body> {
    let body = Body::new(http_body_util::Full::from("<html>"));
    Response::builder().status(status).header("content-type", "text/html").body(body).unwrap()
}
