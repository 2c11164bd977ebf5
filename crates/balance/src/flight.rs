//! A call on its way: to an endpoint, or waiting for one.

use crate::{load::FAILURE, node::Node, set::Set};
use bytes::Bytes;
use cinchona_core::{BoxError, DOMAIN, Tried, Unsent, Verdict, status};
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use pin_project_lite::pin_project;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Status, body::Body, transport::Channel};
use tower::{ServiceExt, util::Oneshot};

pin_project! {
    /// The future of a [`Balance`](crate::Balance) call.
    pub struct ResponseFuture {
        #[pin]
        way: Way,
    }
}

pin_project! {
    #[project = WayProj]
    enum Way {
        Sent { #[pin] sent: Oneshot<Channel, Request<Body>>, flight: Option<Flight> },
        Waiting { waiting: Pin<Box<dyn Future<Output = Answer> + Send>> },
    }
}

type Answer = Result<Response<ResponseBody>, BoxError>;

pin_project! {
    /// A response body; its endpoint counts as busy until it has ended.
    pub struct ResponseBody {
        #[pin]
        inner: Body,
        flight: Option<Flight>,
    }
}

/// A call that an endpoint has.
struct Flight {
    set: Arc<Set>,
    node: Arc<Node>,
    began: Instant,
    /// Whether its latency is known.
    is_answered: bool,
}

/// How long a call waits for an endpoint that would recognise it.
const PATIENCE: Duration = Duration::from_millis(1500);

// === impl ResponseFuture ===

impl ResponseFuture {
    /// Sends a call to `node`.
    pub(crate) fn send(
        set: &Arc<Set>,
        node: &Arc<Node>,
        mut request: Request<Body>,
        now: Instant,
    ) -> Self {
        let Some(channel) = node.channel() else { return Self::wait(set.clone(), request) };
        if let Some(tried) = request.extensions().get::<Tried>().cloned() {
            if let Some(first) = tried.domain().filter(|_| !tried.is_empty()) {
                request.headers_mut().insert(DOMAIN, first.clone());
            }
            tried.add(node.id, node.domain().as_ref());
        }
        node.load.begins();
        let (set, node) = (set.clone(), node.clone());
        let flight = Some(Flight { set, node, began: now, is_answered: false });
        Self { way: Way::Sent { sent: channel.oneshot(request), flight } }
    }

    /// Waits for an endpoint that can be used, and sends the call to it.
    pub(crate) fn wait(set: Arc<Set>, request: Request<Body>) -> Self {
        let waiting = Box::pin(async move {
            let mut changed = set.subscribe();
            let began = Instant::now();
            loop {
                changed.mark_unchanged();
                let now = Instant::now();
                let node = set.pick(&request, now);
                if let Some(node) = node.filter(|node| node.channel().is_some()) {
                    return Self::send(&set, &node, request, now).await;
                }
                // Endpoints there are, but none that would recognise the call.
                let patience = match set.choice.get().nodes.is_empty() {
                    true => set.patience(now),
                    false if now < began + PATIENCE => Ok(Some(began + PATIENCE)),
                    false => Err(Unsent::new("no endpoint would recognise this attempt", None)),
                };
                match patience.map_err(|unsent| status::of_error(unsent.into()))? {
                    None => drop(changed.changed().await),
                    Some(until) => drop(timeout_at(until, changed.changed()).await),
                }
            }
        });
        Self { way: Way::Waiting { waiting } }
    }
}

impl Future for ResponseFuture {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        match self.project().way.project() {
            WayProj::Waiting { waiting } => waiting.as_mut().poll(cx),
            WayProj::Sent { sent, flight } => {
                let outcome = ready!(sent.poll(cx)).map_err(BoxError::from);
                let mut flight = flight.take();
                if let Some(flight) = &mut flight {
                    flight.answered(&outcome);
                }
                Poll::Ready(outcome.map(|response| {
                    // What has ended with its head is counted.
                    let flight = flight.filter(|_| status::code(response.headers()).is_none());
                    response.map(|inner| ResponseBody { inner, flight })
                }))
            }
        }
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

// === impl Flight ===

impl Flight {
    /// The head of the response, or a failure, is there.
    fn answered(&mut self, outcome: &Result<Response<Body>, BoxError>) {
        self.is_answered = true;
        let now = Instant::now();
        let took = now - self.began;
        let verdict = Verdict::of(outcome);
        if let Ok(response) = outcome {
            self.node.heard(response.headers());
        }
        let took = match verdict {
            Verdict::Ok | Verdict::Refused(_) => took,
            // What fails fast is not fast.
            _ => {
                let headers = outcome.as_ref().ok().map(|response| response.headers());
                let pushback = headers.and_then(status::pushback);
                let asked = match pushback {
                    Some(status::Pushback::After(wait)) => wait,
                    _ => FAILURE,
                };
                took.max(asked)
            }
        };
        self.node.load.record(took, now);
        if verdict != Verdict::Ok {
            self.ended(verdict.code());
        }
    }

    /// The call has ended with `code` (gRFC A50: whatever is not OK is a failure).
    fn ended(&self, code: Code) {
        let failures = self.node.tally.count(code == Code::Ok);
        if failures > 0 {
            self.set.failed_in_a_row(&self.node, failures);
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.node.load.ends();
        if !self.is_answered {
            // Who gave up has waited for so long at least.
            let now = Instant::now();
            let waited = now - self.began;
            if self.node.load.average() < waited {
                self.node.load.record(waited, now);
            }
        }
    }
}

// === impl ResponseBody ===

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.project();
        let frame = ready!(this.inner.poll_frame(cx));
        let code = match &frame {
            Some(Ok(frame)) => {
                frame.trailers_ref().map(|trailers| status::code(trailers).unwrap_or(Code::Unknown))
            }
            Some(Err(status)) => Some(Verdict::of_error(status).code()),
            None => Some(Code::Unknown),
        };
        if let Some(code) = code
            && let Some(flight) = this.flight.take()
        {
            flight.ended(code);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").finish_non_exhaustive()
    }
}
