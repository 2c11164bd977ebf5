//! The permit of an admitted call, and what its end implies about the server.

use crate::Circuit;
use cinchona_core::{Deadline, Evidence};
use cinchona_plumbing::{
    Allowed, Framing, Next, Polled, ResponseBody, Seen, Spent, Watcher, begins,
    clock::{self, nanos},
    headers,
    timeout::GRPC_TIMEOUT,
};
use cinchona_policy::{breaker::Pass, shard::Ref};
use std::{error::Error, pin::Pin, time::Duration};
use tokio::time::Instant;
use tonic::Code;

/// The permit of an admitted call; dropping it gives its place back.
pub(crate) struct Permit {
    circuit: Ref<Circuit>,
    pass: Pass,
    /// In nanoseconds since the circuit was created, or [`NOT_TIMED`].
    began: u64,
    /// The time to the head of its response, or [`NOT_TIMED`].
    took: u64,
    allowed: Allowed,
    framing: Framing,
    /// The head of its response has arrived, and was not its end.
    has_begun: bool,
}

const NOT_TIMED: u64 = u64::MAX;
/// One in so many answers is timed to learn the usual response time.
const SAMPLE: u64 = 16;

// === impl Permit ===

impl Permit {
    pub(crate) fn new<B>(circuit: Ref<Circuit>, pass: Pass, request: &http::Request<B>) -> Self {
        let call = Deadline::handed_on(request);
        let is_bounded = call.is_some() || headers::has(request.headers(), &GRPC_TIMEOUT);
        let (began, allowed) = if is_bounded || circuit.needs_latency() {
            let now = clock::now();
            (
                circuit.nanos(now),
                Allowed::of(request.headers(), call.map(|call| call.remaining(now))),
            )
        } else {
            (NOT_TIMED, Allowed::default())
        };
        Self {
            circuit,
            pass,
            began,
            took: NOT_TIMED,
            allowed,
            framing: Framing::default(),
            has_begun: false,
        }
    }

    /// The head of the response has arrived; returns the rest of the permit if the response goes
    /// on.
    pub(crate) fn answered(
        mut self: Box<Self>,
        response: &http::Response<ResponseBody>,
    ) -> Option<Box<Self>> {
        let evidence = match begins(response) {
            true => None,
            false => Evidence::of_head(response, || self.spent()),
        };
        if matches!(evidence, None | Some(Evidence::Good(_))) {
            self.learn();
        }
        match evidence {
            None => self.goes_on(),
            Some(evidence) => {
                self.ended(evidence);
                None
            }
        }
    }

    /// The server has begun to answer, which settles a probe.
    fn goes_on(mut self: Box<Self>) -> Option<Box<Self>> {
        let took = if self.circuit.needs_latency() { self.took() } else { 0 };
        let took = || Duration::from_nanos(took);
        let pass = self.circuit.answered(self.pass, took, Instant::now);
        self.pass = pass.unwrap_or(Pass::NONE);
        self.has_begun = true;
        pass.is_some().then_some(self)
    }

    /// The call has failed without an answer.
    pub(crate) fn failed(mut self, error: &(dyn Error + 'static)) {
        let evidence = Evidence::of_error(error, || self.spent());
        self.ended(evidence);
    }

    /// The call has ended with this evidence about the server.
    fn ended(&mut self, evidence: Evidence) {
        self.leave(evidence);
        // Its own end no longer counts.
        self.pass = Pass::NONE;
    }

    fn leave(&mut self, evidence: Evidence) {
        let took = if self.circuit.needs_latency() { self.took() } else { 0 };
        let took = || Duration::from_nanos(took);
        self.circuit.leave(self.pass, evidence, took, Instant::now);
    }

    fn spent(&self) -> Spent {
        let took = if self.began == NOT_TIMED { Duration::ZERO } else { self.waited() };
        Spent { allowed: self.allowed.clone(), took, usual: self.circuit.usual().get() }
    }

    /// For calls that are timed anyway.
    fn learn(&mut self) {
        let usual = self.circuit.usual();
        if self.began != NOT_TIMED && (self.began.is_multiple_of(SAMPLE) || usual.get().is_none()) {
            let took = self.took();
            self.circuit.usual().learn(took);
        }
    }

    /// The time to the head, if this is first called when the head arrives.
    fn took(&mut self) -> u64 {
        if self.took == NOT_TIMED {
            self.took = nanos(self.waited()).min(NOT_TIMED - 1);
        }
        self.took
    }

    fn waited(&self) -> Duration {
        let now = self.circuit.nanos(Instant::now());
        Duration::from_nanos(now.saturating_sub(self.began))
    }
}

impl Watcher for Permit {
    fn sees(self: Pin<&mut Self>, polled: &mut Polled, seen: &mut Seen) -> Next {
        let permit = self.get_mut();
        let evidence = match polled {
            Some(Ok(frame)) => match (frame.data_ref(), frame.trailers_ref()) {
                (Some(data), _) => {
                    permit.framing.read(data);
                    permit.framing.is_broken().then(Evidence::of_broken)
                }
                (None, trailers) => trailers.map(|trailers| match seen.code(trailers) {
                    Some(Code::Ok) if permit.framing.is_whole() => Evidence::Good(Code::Ok),
                    Some(Code::Ok) => Evidence::of_broken(),
                    _ => Evidence::of_trailers(trailers, || permit.spent()),
                }),
            },
            Some(Err(error)) => Some(Evidence::of_error(error, || permit.spent())),
            None => Some(Evidence::of_broken()),
        };
        match evidence {
            None => Next::Watch,
            Some(evidence) => {
                permit.ended(evidence);
                Next::Over
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.pass == Pass::NONE {
            return;
        }
        let read = self.has_begun.then_some(&self.framing);
        self.leave(Evidence::of_dropped(self.spent(), read));
    }
}
