//! A call on its way: to an endpoint, or waiting for one.

use crate::{load::FAILURE, node::Node, pick::Picked, set::Set};
use bytes::Bytes;
use cinchona_core::{
    BoxError, DOMAIN, Ticket, Tried, Unsent, Verdict,
    deadline::{is_why, parse_timeout},
    status,
};
use http::{HeaderMap, Request, Response};
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
use tracing::Span;

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
        Rejected { unsent: Option<Unsent> },
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
    /// How long a timer of this client gives it.
    limit: Option<Duration>,
    /// What the endpoint's gate has given, until it is given back.
    ticket: Option<Ticket>,
    /// How long the head of the response took, once it is there.
    took: Option<Duration>,
    has_ended: bool,
}

/// How long a call waits for an endpoint that would recognise it.
const PATIENCE: Duration = Duration::from_millis(1500);

// === impl ResponseFuture ===

impl ResponseFuture {
    /// Sends a call to the endpoint that was picked, or waits for another if its connection has
    /// just gone.
    pub(crate) fn send(
        set: &Arc<Set>,
        picked: Picked,
        request: Request<Body>,
        now: Instant,
    ) -> Self {
        let sent = Self::try_send(set, picked, request, now);
        sent.unwrap_or_else(|request| Self::wait(set.clone(), request))
    }

    #[expect(clippy::result_large_err, reason = "it is the request, which goes on")]
    fn try_send(
        set: &Arc<Set>,
        picked: Picked,
        mut request: Request<Body>,
        now: Instant,
    ) -> Result<Self, Request<Body>> {
        let (channel, flight) = (picked.0.channel(), Flight::new(set, picked, &request, now));
        let Some(channel) = channel else {
            flight.returns();
            return Err(request);
        };
        // For the span of whoever makes the attempt, if it has such a field.
        Span::current().record("endpoint", &*flight.node.name);
        if let Some(tried) = request.extensions().get::<Tried>().cloned() {
            if let Some(first) = tried.domain().filter(|_| !tried.is_empty()) {
                request.headers_mut().insert(DOMAIN, first.clone());
            }
            tried.add(flight.node.id, &flight.node.name, flight.node.domain().as_ref());
        }
        Ok(Self { way: Way::Sent { sent: channel.oneshot(request), flight: Some(flight) } })
    }

    /// No endpoint lets the call through.
    pub(crate) const fn rejected(unsent: Unsent) -> Self {
        Self { way: Way::Rejected { unsent: Some(unsent) } }
    }

    /// Waits for an endpoint that can be used, and sends the call to it.
    pub(crate) fn wait(set: Arc<Set>, mut request: Request<Body>) -> Self {
        let waiting = Box::pin(async move {
            let mut changed = set.subscribe();
            let began = Instant::now();
            loop {
                changed.mark_unchanged();
                let now = Instant::now();
                if let Some(picked) = set.pick(&request, now) {
                    match Self::try_send(&set, picked?, request, now) {
                        Ok(sent) => return sent.await,
                        Err(unsent) => request = unsent,
                    }
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
            WayProj::Rejected { unsent } => {
                let polled_again = || "polled after it had completed".into();
                Poll::Ready(Err(unsent.take().map_or_else(polled_again, Into::into)))
            }
            WayProj::Sent { sent, flight } => {
                let outcome = ready!(sent.poll(cx)).map_err(BoxError::from);
                let mut flight = flight.take();
                if let Some(flight) = &mut flight {
                    flight.answered(&outcome);
                }
                Poll::Ready(outcome.map(|response| {
                    // What has ended with its head is counted.
                    let flight = flight.filter(|flight| !flight.has_ended);
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
    fn new(set: &Arc<Set>, (node, ticket): Picked, request: &Request<Body>, now: Instant) -> Self {
        node.load.begins();
        let limit = parse_timeout(request.headers()).ok().flatten();
        let set = set.clone();
        Self { set, node, began: now, limit, ticket, took: None, has_ended: false }
    }

    /// The head of the response, or a failure, is there.
    fn answered(&mut self, outcome: &Result<Response<Body>, BoxError>) {
        let now = Instant::now();
        let took = now - self.began;
        self.took = Some(took);
        let verdict = Verdict::of(outcome);
        let headers = outcome.as_ref().ok().map(Response::headers);
        if let Some(headers) = headers {
            self.node.heard(headers);
        }
        let took = match verdict {
            Verdict::Ok | Verdict::Refused(_) => took,
            // What fails fast is not fast.
            _ => match headers.and_then(status::pushback) {
                Some(status::Pushback::After(wait)) => took.max(wait),
                _ => took.max(FAILURE),
            },
        };
        self.node.load.record(took, now);
        let last = headers.filter(|headers| status::code(headers).is_some());
        if let Some(last) = last {
            self.node.heard_last(last, now);
        }
        if verdict != Verdict::Ok || last.is_some() {
            self.ended(Some(verdict), headers, now);
        }
    }

    /// The call has ended, with this verdict where the endpoint is to be judged by it (gRFC A50:
    /// whatever is not OK is a failure), and by these headers or trailers, if there are any.
    fn ended(&mut self, verdict: Option<Verdict>, last: Option<&HeaderMap>, now: Instant) {
        self.has_ended = true;
        if let (Some(gate), Some(ticket)) = (&self.node.gate, self.ticket.take()) {
            let took = self.took.unwrap_or(now - self.began);
            let of_health = |verdict: Verdict| match last {
                Some(last) => verdict.unless_shed(last),
                None => Some(verdict),
            };
            gate.leave(ticket, verdict.and_then(of_health), took, now);
        }
        let Some(verdict) = verdict else { return };
        let failures = self.node.tally.count(verdict == Verdict::Ok);
        if failures > 0 {
            self.set.failed_in_a_row(&self.node, failures);
        }
    }

    /// It was not sent.
    fn returns(mut self) {
        self.took = Some(Duration::ZERO);
        self.ended(None, None, self.began);
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.node.load.ends();
        if self.has_ended {
            return;
        }
        let now = Instant::now();
        if self.took.is_none() {
            // Who gave up has waited for so long at least.
            let waited = now - self.began;
            if self.node.load.average() < waited {
                self.node.load.record(waited, now);
            }
        }
        let is_late = self.limit.is_some_and(|limit| is_why(limit, now - self.began));
        self.ended(is_late.then_some(Verdict::Deadline), None, now);
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
        let verdict = match &frame {
            Some(Ok(frame)) => frame.trailers_ref().map(Verdict::of_trailers),
            Some(Err(status)) => Some(Verdict::of_error(status)),
            None => Some(Verdict::MaybeProcessed(Code::Unknown)),
        };
        if let Some(verdict) = verdict
            && let Some(mut flight) = this.flight.take()
        {
            let now = Instant::now();
            let last = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.trailers_ref());
            if let Some(trailers) = last {
                flight.node.heard_last(trailers, now);
            }
            flight.ended(Some(verdict), last, now);
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
