//! What the metrics layers note of one call.

use crate::{
    series::{Calls, Table, Transfers},
    size::{self, Sizer},
    tally::{Book, Tally},
};
use cinchona_core::status;
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::time::Instant;
use tonic::{Code, GrpcMethod, body::Body};

/// A call, outside of all that repeats it.
#[derive(Debug)]
pub(crate) struct CallMeter {
    series: Arc<Calls>,
    began: Instant,
    pub(crate) tally: Tally,
}

/// An attempt, or a call that a server got.
#[derive(Debug)]
pub(crate) struct TransferMeter {
    series: Arc<Transfers>,
    began: Instant,
    request: size::Request,
    pub(crate) response: Sizer,
    is_server: bool,
}

/// The series of the method that is called, of a client.
fn of_client<T>(table: &Table<T>, request: &http::Request<Body>) -> Arc<T> {
    // The generated client has put that there; it knows no methods but those of its .proto.
    let is_generated = || request.extensions().get::<GrpcMethod<'_>>().is_some();
    table.get(request.uri().path(), is_generated)
}

// === impl CallMeter ===

impl CallMeter {
    pub(crate) fn begin(table: &Table<Calls>, request: &http::Request<Body>) -> Self {
        let (series, began) = (of_client(table, request), Instant::now());
        Self { series, began, tally: Tally::new(began) }
    }

    pub(crate) fn end(self, code: Code) {
        let Self { series, began, mut tally } = self;
        series.duration(code).record(nanos(tally.look() - began));
        if tally.attempts() < 2 {
            return;
        }
        for (histogram, count) in [
            (&series.retries, tally.retries()),
            (&series.transparent_retries, tally.transparent()),
            (&series.hedges, tally.hedges()),
        ] {
            if count > 0 {
                histogram.record(u64::from(count));
            }
        }
        series.retry_delay.record(nanos(tally.delay()));
    }
}

// === impl TransferMeter ===

impl TransferMeter {
    pub(crate) fn attempt(table: &Table<Transfers>, request: &mut http::Request<Body>) -> Self {
        let series = of_client(table, request);
        let (began, _) = Book::Metrics.begins(status::previous_attempts(request.headers()));
        Self::begin(series, began, request, false)
    }

    pub(crate) fn serve(table: &Table<Transfers>, request: &mut http::Request<Body>) -> Self {
        let series = table.get(request.uri().path(), || false);
        Self::begin(series, Instant::now(), request, true)
    }

    fn begin(
        series: Arc<Transfers>,
        began: Instant,
        request: &mut http::Request<Body>,
        is_server: bool,
    ) -> Self {
        series.started.fetch_add(1, Ordering::Relaxed);
        let request = size::Request::of(request);
        Self { series, began, request, response: Sizer::default(), is_server }
    }

    /// It has ended with `code`, and its request `has_left` the client for all that is known.
    pub(crate) fn end(self, code: Code, has_left: bool) {
        let now = if self.is_server { Instant::now() } else { Book::Metrics.ends() };
        let ended = self.series.ended(code);
        ended.duration.record(nanos(now - self.began));
        let request = if has_left { self.request.total() } else { 0 };
        let response = self.response.total();
        if self.is_server {
            ended.sent.record(response);
            ended.received.record(request);
        } else {
            ended.sent.record(request);
            ended.received.record(response);
        }
    }
}

/// Enough for 584 years.
fn nanos(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}
