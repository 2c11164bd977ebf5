//! A call on its way: to an endpoint, or waiting for one.

use crate::{
    Balance,
    failed::{self, Whereto},
    load::FAILURE,
    node::{Connection, Node},
    pick::Picked,
    set::Set,
};
use bytes::Bytes;
use cinchona_core::{
    Allowed, BoxError, DOMAIN, Evidence, Framing, Spent, Ticket, Tried, Unsent, deadline::take_off,
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
    allowed: Allowed,
    /// What the endpoint's gate has given, until it is given back.
    ticket: Option<Ticket>,
    /// How long the head of the response took, once it is there.
    took: Option<Duration>,
    framing: Framing,
    has_ended: bool,
    /// What it was sent on, and how much had come on that before.
    sent: Option<(Arc<Connection>, u64)>,
    whereto: Whereto,
}

/// A call that has waited for less may be one whose caller is impatient.
const SILENCE: Duration = Duration::from_millis(500);

// === impl ResponseFuture ===

impl ResponseFuture {
    /// Sends a call to the endpoint that was picked, or waits for another if its connection has
    /// just gone.
    pub(crate) fn send(
        balance: &Balance,
        picked: Picked,
        request: Request<Body>,
        now: Instant,
    ) -> Self {
        let sent = Self::try_send(&balance.set, picked, request, now);
        sent.unwrap_or_else(|request| Self::wait(balance.clone(), request))
    }

    #[expect(clippy::result_large_err, reason = "it is the request, which goes on")]
    fn try_send(
        set: &Arc<Set>,
        picked: Picked,
        mut request: Request<Body>,
        now: Instant,
    ) -> Result<Self, Request<Body>> {
        let connection = picked.0.connection();
        let mut flight = Flight::new(set, picked, &request, now);
        let Some(connection) = connection else {
            flight.returns();
            return Err(request);
        };
        // For the span of whoever makes the attempt, if it has such a field.
        Span::current().record("endpoint", &**flight.node.name());
        if let Some(tried) = request.extensions().get::<Tried>().cloned() {
            if let Some(first) = tried.domain().filter(|_| !tried.is_empty()) {
                request.headers_mut().insert(DOMAIN, first.clone());
            }
            tried.add(flight.node.id, flight.node.name(), flight.node.domain().as_ref());
        }
        let channel = connection.channel.clone();
        let reads = connection.line.reads();
        flight.sent = Some((connection, reads));
        Ok(Self { way: Way::Sent { sent: channel.oneshot(request), flight: Some(flight) } })
    }

    /// No endpoint lets the call through.
    pub(crate) fn rejected(unsent: Unsent, request: &Request<Body>) -> Self {
        Self { way: Way::Rejected { unsent: Some(unsent.of_call(request.uri())) } }
    }

    /// Waits for an endpoint that can be used, and sends the call to it. Meanwhile it holds the
    /// balancer, whose endpoints are connected for as long as somebody does.
    pub(crate) fn wait(balance: Balance, mut request: Request<Body>) -> Self {
        let waiting = Box::pin(async move {
            // All of it, and not only what is used.
            let balance = balance;
            let set = &balance.set;
            let mut changed = set.subscribe();
            let began = Instant::now();
            let mut last = began;
            set.is_used.send_if_modified(|used| !std::mem::replace(used, true));
            loop {
                changed.mark_unchanged();
                let now = Instant::now();
                // The server is told what is left when the request is sent.
                take_off(request.headers_mut(), now - last);
                last = now;
                match set.pick(&request, now) {
                    Some(Ok(picked)) => match Self::try_send(set, picked, request, now) {
                        Ok(sent) => return sent.await,
                        Err(unsent) => request = unsent,
                    },
                    Some(Err(unsent)) if !set.has_more() => {
                        return Err(unsent.of_call(request.uri()).into());
                    }
                    Some(Err(_)) | None => {}
                }
                let until = set.until(began, now);
                let until = until.map_err(|unsent| unsent.of_call(request.uri()))?;
                drop(timeout_at(until, changed.changed()).await);
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
                let told = |error| match &flight {
                    Some(flight) => flight.whereto.explain(error, flight.node.name()),
                    None => error,
                };
                let outcome = outcome.map_err(told);
                Poll::Ready(outcome.map(|mut response| {
                    status::mend(response.headers_mut());
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
        Self {
            set: set.clone(),
            node,
            began: now,
            allowed: Allowed::of(request, now),
            ticket,
            took: None,
            framing: Framing::default(),
            has_ended: false,
            sent: None,
            whereto: Whereto::of(request),
        }
    }

    /// How it has spent its time so far.
    fn spent(&self, now: Instant) -> Spent {
        Spent { allowed: self.allowed, took: now - self.began, usual: self.node.load.usual() }
    }

    /// The head of the response, or a failure, is there.
    fn answered(&mut self, outcome: &Result<Response<Body>, BoxError>) {
        let now = Instant::now();
        let took = now - self.began;
        self.took = Some(took);
        let spent = || self.spent(now);
        let headers = outcome.as_ref().ok().map(Response::headers);
        let evidence = match outcome {
            Ok(response) => Evidence::of_head(response, spent),
            Err(error) => Some(Evidence::of_error(&**error, spent)),
        };
        match outcome {
            Ok(response) => {
                self.node.heard(response.headers());
                if let Some((connection, _)) = &self.sent {
                    connection.answers();
                }
            }
            Err(error) => self.failed(&**error, took),
        }
        self.weigh(evidence, headers, took, now);
        if let Some(last) = headers.filter(|headers| status::code(headers).is_some()) {
            self.node.heard_last(last, now);
        }
        match (evidence, &self.node.gate, &mut self.ticket) {
            (Some(evidence), ..) => self.ended(evidence, now),
            (None, Some(gate), Some(ticket)) => *ticket = gate.answered(*ticket, took, now),
            (None, ..) => {}
        }
    }

    /// There is no answer.
    fn failed(&self, error: &(dyn std::error::Error + 'static), took: Duration) {
        if failed::is_of_too_many_pings(error) && !self.is_readable() {
            self.node.is_pinged_too_often();
        }
        self.unanswered(took);
    }

    /// Whether the connection itself tells of what the server says.
    fn is_readable(&self) -> bool {
        self.sent.as_ref().is_some_and(|(connection, _)| connection.line.is_readable())
    }

    /// It was waited for so long in vain. If nothing else has come either, the server may be gone.
    fn unanswered(&self, waited: Duration) {
        if let Some((connection, reads)) = &self.sent
            && waited >= SILENCE
            && connection.line.reads() == *reads
        {
            self.node.suspects(connection);
        }
    }

    /// Lets the picker know how long the endpoint takes. What fails fast is not fast.
    fn weigh(
        &self,
        evidence: Option<Evidence>,
        headers: Option<&HeaderMap>,
        took: Duration,
        now: Instant,
    ) {
        let load = &self.node.load;
        match evidence {
            None | Some(Evidence::Good(_)) => {
                load.record_good(took, now);
                load.record(took, now);
            }
            Some(Evidence::Nothing(None | Some(Code::Cancelled | Code::DeadlineExceeded))) => {
                self.waited(took, now);
            }
            // It fails, or sheds.
            Some(Evidence::Bad(_) | Evidence::Nothing(Some(_))) => {
                let least = match headers.and_then(status::pushback) {
                    Some(status::Pushback::After(wait)) => wait,
                    _ => FAILURE,
                };
                load.record(took.max(least), now);
            }
        }
    }

    /// Who gives up has waited for so long at least.
    fn waited(&self, waited: Duration, now: Instant) {
        if self.node.load.average() < waited {
            self.node.load.record(waited, now);
        }
    }

    /// The body goes on, or not.
    fn read(&mut self, frame: Option<&Result<Frame<Bytes>, Status>>) {
        let evidence = match frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.framing.read(data);
                    self.framing.is_broken().then(Evidence::of_broken)
                } else {
                    frame.trailers_ref().map(|trailers| self.trailers(trailers))
                }
            }
            Some(Err(status)) => {
                let now = Instant::now();
                Some(Evidence::of_error(status, || self.spent(now)))
            }
            None => Some(Evidence::of_broken()),
        };
        if let Some(evidence) = evidence.filter(|_| !self.has_ended) {
            let now = Instant::now();
            if let Evidence::Bad(_) = evidence {
                // Its good head has made it look fast.
                self.node.load.record((now - self.began).max(FAILURE), now);
            }
            self.ended(evidence, now);
        }
    }

    fn trailers(&self, trailers: &HeaderMap) -> Evidence {
        let now = Instant::now();
        self.node.heard_last(trailers, now);
        match Evidence::of_trailers(trailers, || self.spent(now)) {
            Evidence::Good(Code::Ok) if !self.framing.is_whole() => Evidence::of_broken(),
            evidence => evidence,
        }
    }

    /// The call has ended, and says this of the endpoint.
    fn ended(&mut self, evidence: Evidence, now: Instant) {
        self.has_ended = true;
        if let (Some(gate), Some(ticket)) = (&self.node.gate, self.ticket.take()) {
            gate.leave(ticket, evidence, self.took.unwrap_or(now - self.began), now);
        }
        let failures = self.node.tally.count(evidence);
        if failures > 0 {
            self.set.failed_in_a_row(&self.node, failures);
        }
    }

    /// It was not sent.
    fn returns(mut self) {
        self.took = Some(Duration::ZERO);
        self.ended(Evidence::Nothing(None), self.began);
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
            self.waited(now - self.began, now);
            self.unanswered(now - self.began);
        }
        let read = self.took.map(|_| &self.framing);
        self.ended(Evidence::of_dropped(self.spent(now), read), now);
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
        let mut frame = ready!(this.inner.poll_frame(cx));
        if let Some(Ok(frame)) = &mut frame {
            frame.trailers_mut().into_iter().for_each(status::mend);
        }
        if let Some(flight) = this.flight {
            flight.read(frame.as_ref());
            if let Some(Err(status)) = frame {
                frame = Some(Err(flight.whereto.explain_status(status, flight.node.name())));
            }
            if flight.has_ended {
                *this.flight = None;
            }
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
