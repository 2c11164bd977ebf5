//! A call at an endpoint, and its evidence about the endpoint.

use crate::{
    callback,
    failed::{self, Whereto},
    node::{Connection, Node},
    pick::Picked,
    set::Set,
    wire::End,
};
use cinchona_core::{BoxError, Deadline, Evidence, Stage, Verdict};
use cinchona_plumbing::{
    Allowed, Framing, Next, Polled, ResponseBody, Seen, Spent, Ticket, Watcher, begins, status,
};
use cinchona_policy::load::FAILURE;
use http::{HeaderMap, Request, Response};
use std::{pin::Pin, sync::Arc, time::Duration};
use tokio::time::Instant;
use tonic::{Code, Status, body::Body};

/// A call at an endpoint.
pub(crate) struct Flight {
    pub(crate) set: Arc<Set>,
    pub(crate) node: Arc<Node>,
    began: Instant,
    allowed: Allowed,
    /// The ticket of the endpoint's gate, until it is given back.
    ticket: Option<Ticket>,
    /// The time to the head of the response, once it has arrived.
    took: Option<Duration>,
    framing: Framing,
    pub(crate) has_ended: bool,
    /// Its connection, and the count of data received on that before.
    pub(crate) sent: Option<(Arc<Connection>, u64)>,
    pub(crate) whereto: Whereto,
}

// === impl Flight ===

impl Flight {
    pub(crate) fn new(
        set: &Arc<Set>,
        (node, ticket): Picked,
        request: &Request<Body>,
        now: Instant,
    ) -> Self {
        node.load.begins();
        let call = Deadline::handed_on(request).map(|call| call.remaining(now));
        Self {
            set: set.clone(),
            node,
            began: now,
            allowed: Allowed::of(request.headers(), call),
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
        Spent {
            allowed: self.allowed.clone(),
            took: now - self.began,
            usual: self.node.load.usual(),
        }
    }

    /// The head of the response, or a failure, has arrived.
    pub(crate) fn answered(&mut self, outcome: &Result<Response<ResponseBody>, BoxError>) {
        let now = Instant::now();
        let took = now - self.began;
        self.took = Some(took);
        let spent = || self.spent(now);
        let headers = outcome.as_ref().ok().map(Response::headers);
        let evidence = match outcome {
            Ok(response) if begins(response) => None,
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
        if let Some(last) = headers.filter(|_| evidence.is_some()) {
            self.node.heard_last(last, now);
        }
        match (evidence, &self.node.gate, &mut self.ticket) {
            (Some(evidence), ..) => self.ended(evidence, now),
            (None, Some(gate), Some(ticket)) => {
                let answered = callback::call("gate", || gate.answered(*ticket, took, now));
                *ticket = answered.unwrap_or(*ticket);
            }
            (None, ..) => {}
        }
    }

    /// There was no answer.
    fn failed(&self, error: &(dyn std::error::Error + 'static), took: Duration) {
        if failed::is_of_too_many_pings(error) && !self.is_readable() {
            self.node.is_pinged_too_often();
        }
        if let (Verdict::NotProcessed(Stage::NotWritten), Some((connection, _))) =
            (Verdict::of_error(error), &self.sent)
        {
            // The connection takes no more calls, whether or not it has reported that.
            connection.line.ends(End::Closed);
        }
        self.unanswered(self.began + took);
    }

    /// Whether the connection itself sees the server's frames.
    fn is_readable(&self) -> bool {
        self.sent.as_ref().is_some_and(|(connection, _)| connection.line.is_readable())
    }

    /// The wait was unsuccessful. If no data has arrived either, the server may be gone.
    fn unanswered(&self, now: Instant) {
        if let Some((connection, reads)) = &self.sent
            && connection.line.reads() == *reads
        {
            self.node.suspects(connection, self.began, now);
        }
    }

    /// Records the latency for the picker. A fast failure does not count as fast.
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
            // It fails, or sheds load.
            Some(Evidence::Bad(_) | Evidence::Nothing(Some(_))) => {
                let least = match headers.and_then(status::pushback) {
                    Some(status::Pushback::After(wait)) => wait,
                    _ => FAILURE,
                };
                load.record(took.max(least), now);
            }
        }
    }

    /// A caller that gives up has waited for at least this long.
    fn waited(&self, waited: Duration, now: Instant) {
        if self.node.load.average() < waited {
            self.node.load.record(waited, now);
        }
    }

    fn trailers(&self, trailers: &HeaderMap, seen: &mut Seen) -> Evidence {
        let now = seen.now();
        self.node.heard_last(trailers, now);
        match seen.code(trailers) {
            Some(Code::Ok) if self.framing.is_whole() => Evidence::Good(Code::Ok),
            Some(Code::Ok) => Evidence::of_broken(),
            _ => Evidence::of_trailers(trailers, || self.spent(now)),
        }
    }

    /// The failure of its body, with method and endpoint.
    fn explain(&self, error: Status) -> Status {
        self.whereto.explain_status(Verdict::status_of(error.into()), self.node.name())
    }

    /// The call has ended with this evidence about the endpoint.
    fn ended(&mut self, evidence: Evidence, now: Instant) {
        self.has_ended = true;
        if let (Some(gate), Some(ticket)) = (&self.node.gate, self.ticket.take()) {
            let took = self.took.unwrap_or(now - self.began);
            // A panic of a gate does not fail the call.
            _ = callback::call("gate", || gate.leave(ticket, evidence, took, now));
        }
        let failures = self.node.tally.count(evidence.into());
        if failures > 0 {
            self.set.failed_in_a_row(&self.node, failures);
        }
    }

    /// It was not sent.
    pub(crate) fn returns(mut self) {
        self.took = Some(Duration::ZERO);
        self.ended(Evidence::Nothing(None), self.began);
    }
}

impl Watcher for Flight {
    fn sees(self: Pin<&mut Self>, polled: &mut Polled, seen: &mut Seen) -> Next {
        let flight = self.get_mut();
        let evidence = match polled {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    flight.framing.read(data);
                    flight.framing.is_broken().then(Evidence::of_broken)
                } else {
                    frame.trailers_mut().map(|trailers| {
                        seen.mend(trailers);
                        flight.trailers(trailers, seen)
                    })
                }
            }
            Some(Err(error)) => Some(Evidence::of_error(error, || flight.spent(seen.now()))),
            None => Some(Evidence::of_broken()),
        };
        if let Some(evidence) = evidence {
            let now = seen.now();
            if let Evidence::Bad(_) = evidence {
                // Its good head has made it look fast.
                flight.node.load.record((now - flight.began).max(FAILURE), now);
            }
            flight.ended(evidence, now);
        }
        if let Some(Err(_)) = polled {
            *polled = polled.take().map(|frame| frame.map_err(|error| flight.explain(error)));
        }
        if flight.has_ended { Next::Over } else { Next::Watch }
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
            self.unanswered(now);
        }
        let read = self.took.map(|_| &self.framing);
        self.ended(Evidence::of_dropped(self.spent(now), read), now);
    }
}
