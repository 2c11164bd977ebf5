//! A call that is sent to an endpoint, or waits for one.

use crate::{flight::Flight, handle::Handle, pick::Picked, sender::Sent, set::Set};
use cinchona_core::{BoxError, Call, DOMAIN, Rejected};
use cinchona_plumbing::{ResponseBody, begins, polled_again, status, timeout::take_off};
use http::{Request, Response};
use pin_project_lite::pin_project;
use std::{
    fmt,
    future::{Future, ready},
    pin::Pin,
    sync::Arc,
    task::{self, Context, Poll},
};
use tokio::time::{Instant, timeout_at};
use tonic::{Status, body::Body};
use tracing::Span;

pin_project! {
    /// The future of a [`Balance`](crate::Balance) call.
    pub struct ResponseFuture {
        #[pin]
        journey: Journey,
    }
}

pin_project! {
    #[project = JourneyProj]
    enum Journey {
        Sent { #[pin] sent: Sent, flight: Option<Box<Flight>> },
        Waiting { waiting: Pin<Box<dyn Future<Output = Answer> + Send>> },
        Rejected { rejected: Option<Rejected> },
    }
}

type Answer = Result<Response<ResponseBody>, BoxError>;

// === impl ResponseFuture ===

impl ResponseFuture {
    /// Sends a call to the picked endpoint, or waits for another if its connection has just failed.
    pub(crate) fn send(
        balance: &Handle,
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
        // Boxed: it is kept from the call to the end of the response's body.
        let mut flight = Box::new(Flight::new(set, picked, &request, now));
        let Some(connection) = connection else {
            flight.returns();
            return Err(request);
        };
        if let Some(status) = too_large(&request, connection.line.most_headers()) {
            flight.returns();
            return Ok(Self::failed(status));
        }
        // For the span of the attempt, if it has such a field.
        Span::current().record("endpoint", &**flight.node.name());
        if let Some(call) = Call::find(&request) {
            let first = call.domain();
            call.sent_to(flight.node.id, flight.node.name(), flight.node.domain().as_ref());
            if let Some(first) = first {
                request.headers_mut().insert(DOMAIN, first);
            }
        }
        let reads = connection.line.reads();
        let sent = connection.sender.send(request);
        flight.sent = Some((connection, reads));
        Ok(Self { journey: Journey::Sent { sent, flight: Some(flight) } })
    }

    /// The request cannot be sent to any endpoint.
    fn failed(status: Status) -> Self {
        Self { journey: Journey::Waiting { waiting: Box::pin(ready(Err(status.into()))) } }
    }

    /// No endpoint admits the call.
    pub(crate) fn rejected(rejected: Rejected, request: &Request<Body>) -> Self {
        Self { journey: Journey::Rejected { rejected: Some(rejected.of_call(request.uri())) } }
    }

    /// Waits for a usable endpoint, and sends the call to it. Meanwhile it holds the balancer, so
    /// that its endpoints stay connected.
    pub(crate) fn wait(balance: Handle, mut request: Request<Body>) -> Self {
        let waiting = Box::pin(async move {
            // All of it, not only the used part.
            let balance = balance;
            let set = &balance.set;
            let mut changed = set.subscribe();
            let began = Instant::now();
            let mut last = began;
            set.is_used.send_if_modified(|used| !std::mem::replace(used, true));
            loop {
                changed.mark_unchanged();
                let now = Instant::now();
                // The timeout sent to the server is the remaining time at this moment.
                take_off(request.headers_mut(), now - last);
                last = now;
                match set.pick(&request, now) {
                    Some(Ok(picked)) => match Self::try_send(set, picked, request, now) {
                        Ok(sent) => return sent.await,
                        Err(rejected) => request = rejected,
                    },
                    Some(Err(rejected)) if !set.has_more() => {
                        return Err(rejected.of_call(request.uri()).into());
                    }
                    Some(Err(_)) | None => {}
                }
                let until = set.until(began, now);
                let until = until.map_err(|rejected| rejected.of_call(request.uri()))?;
                drop(timeout_at(until, changed.changed()).await);
            }
        });
        Self { journey: Journey::Waiting { waiting } }
    }
}

impl Future for ResponseFuture {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        match self.project().journey.project() {
            JourneyProj::Waiting { waiting } => waiting.as_mut().poll(cx),
            JourneyProj::Rejected { rejected } => {
                Poll::Ready(Err(rejected.take().map_or_else(polled_again, Into::into)))
            }
            JourneyProj::Sent { sent, flight } => {
                let outcome = task::ready!(sent.poll(cx));
                Poll::Ready(landed(outcome, flight.take()))
            }
        }
    }
}

/// Why a request is not sent on a connection whose server accepts header lists of at most `most`
/// bytes: the server would not only refuse the request, but end the connection with all its calls.
/// The status is grpc-go's.
fn too_large(request: &Request<Body>, most: u32) -> Option<Status> {
    if most == u32::MAX {
        return None;
    }
    // Without the headers that tonic adds: a larger size is certainly over the limit.
    let fields = request.headers().iter();
    let fields = fields.map(|(name, value)| name.as_str().len() + value.len() + PER_HEADER);
    let size = fields.sum::<usize>() + request.uri().path().len();
    let status = || {
        let limit = format!("the metadata of {size} bytes is over the server's limit of {most}");
        Status::internal(format!("{limit} (SETTINGS_MAX_HEADER_LIST_SIZE)"))
    };
    (size > most as usize).then(status)
}

/// The overhead of a header beside its name and its value (RFC 9113, section 6.5.2).
const PER_HEADER: usize = 32;

/// The head of the response, or a failure, has arrived.
fn landed(outcome: Answer, mut flight: Option<Box<Flight>>) -> Answer {
    if let Some(flight) = &mut flight {
        flight.answered(&outcome);
    }
    match outcome {
        Ok(mut response) => {
            if !begins(&response) {
                status::mend(response.headers_mut());
            }
            // Its endpoint counts as busy until the body has ended.
            if let Some(flight) = flight.filter(|flight| !flight.has_ended) {
                response.body_mut().watch_boxed(Box::into_pin(flight));
            }
            Ok(response)
        }
        Err(error) => Err(match &flight {
            Some(flight) => flight.whereto.explain(error, flight.node.name()),
            None => error,
        }),
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
