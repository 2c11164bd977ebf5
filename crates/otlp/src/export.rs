//! Sends spans to the collector, in a task of its own.

use crate::{
    layer::OtlpLayer,
    queue::{Asked, Queue, Waiting},
    told::text,
};
use cinchona_core::{Invalid, Verdict};
use cinchona_plumbing::status::{self, Pushback};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, trace_service_client::TraceServiceClient},
    common::v1::InstrumentationScope,
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use std::{
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, timeout, timeout_at},
};
use tonic::{
    Code, Status,
    body::Body,
    client::GrpcService,
    codegen::{Body as HttpBody, Bytes, StdError},
    transport::Endpoint,
};
use tracing::{Dispatch, instrument::WithSubscriber};

/// How many spans wait for the collector, how many are sent at once, and after how long fewer:
/// OpenTelemetry's defaults, but for the time, which is 5 s there.
const KEPT: usize = 2_048;
const BATCH: usize = 512;
const PATIENCE: Duration = Duration::from_secs(1);

/// How long the collector may take for what it is sent.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);

/// How often it is sent a batch, each time after twice as long.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(500);

/// The longest wait that a collector can ask for: more spans come meanwhile than are kept.
pub(crate) const LONGEST: Duration = Duration::from_secs(60);

/// What leads to a collector: a [`Channel`](tonic::transport::Channel), bare or with whatever is
/// put around it.
pub trait CollectorChannel:
    GrpcService<
        Body,
        Future: Send,
        ResponseBody: HttpBody<Data = Bytes, Error: Into<StdError> + Send> + Send + 'static,
    > + Clone
    + Send
    + Sync
    + 'static
{
}

/// What becomes of the spans; its clones are the same.
#[derive(Clone, Debug)]
pub struct Exporter(Queue);

struct Collector<T> {
    client: TraceServiceClient<T>,
    resource: Resource,
    lost: Arc<AtomicU64>,
}

/// A layer for a `tracing` subscriber that sends all spans to the collector at `endpoint`, such as
/// `http://127.0.0.1:4317`, under the name of this `service`; and what becomes of them.
///
/// # Errors
/// When `endpoint` is no URI of the scheme `http`, or holds a user or a password, which are never
/// sent by gRPC: a token goes with [`export_over`]. The error does not repeat it.
///
/// # Panics
/// Outside a tokio runtime.
pub fn export(endpoint: &str, service: &str) -> Result<(OtlpLayer, Exporter), Invalid> {
    Ok(export_over(self::endpoint(endpoint)?.connect_lazy(), service))
}

/// Where a collector is.
pub(crate) fn endpoint(endpoint: &str) -> Result<Endpoint, Invalid> {
    const ALLOWED: &str = "a URI such as http://127.0.0.1:4317";
    let refused = |wrong| Err(Invalid::new("endpoint", wrong, ALLOWED));
    let Ok(found) = Endpoint::from_shared(endpoint.to_owned()) else {
        return refused("what is no URI");
    };
    match (found.uri().scheme_str(), found.uri().authority()) {
        (Some("http"), Some(authority)) if authority.as_str().contains('@') => {
            refused("a user or a password in it")
        }
        (Some("http"), Some(_)) => Ok(found),
        _ => refused("a scheme other than http"),
    }
}

/// The resource that spans are of.
pub(crate) fn resource(service: &str) -> Resource {
    Resource { attributes: vec![text("service.name", service)], ..Resource::default() }
}

/// As [`export`], through a `channel` that there is: one with TLS, with a token for each request,
/// or with retries of its own.
///
/// ```
/// use tonic::{Request, service::interceptor::InterceptedService, transport::Endpoint};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tonic::transport::Error> {
/// let channel = Endpoint::from_static("http://collector.example:4317").connect_lazy();
/// let channel = InterceptedService::new(channel, |mut request: Request<()>| {
///     request.metadata_mut().insert("x-api-key", "secret".parse().unwrap());
///     Ok(request)
/// });
/// let (layer, exporter) = cinchona_otlp::export_over(channel, "calculator");
/// # Ok(())
/// # }
/// ```
///
/// # Panics
/// Outside a tokio runtime.
pub fn export_over(channel: impl CollectorChannel, service: &str) -> (OtlpLayer, Exporter) {
    let (spans, waiting) = mpsc::channel(KEPT);
    let queue = Queue { spans, lost: Arc::default() };
    let (client, resource) = (TraceServiceClient::new(channel), resource(service));
    let collector = Collector { client, resource, lost: queue.lost.clone() };
    // What it does itself is not told, or that would be told in turn.
    tokio::spawn(collector.run(waiting).with_subscriber(Dispatch::none()));
    (OtlpLayer::new(queue.clone()), Exporter(queue))
}

// === impl CollectorChannel ===

impl<T> CollectorChannel for T where
    T: GrpcService<
            Body,
            Future: Send,
            ResponseBody: HttpBody<Data = Bytes, Error: Into<StdError> + Send> + Send + 'static,
        > + Clone
        + Send
        + Sync
        + 'static
{
}

// === impl Exporter ===

impl Exporter {
    /// Waits until the spans that have ended were sent, for as long as `within`.
    ///
    /// # Errors
    /// What the collector had against those that were left, or `DEADLINE_EXCEEDED`.
    pub async fn flush(&self, within: Duration) -> Result<(), Status> {
        flush(async |asked| drop(self.0.spans.send(Waiting::Flush(asked)).await), within).await
    }

    /// How many spans the collector did not take, or were too many to wait for it.
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }
}

/// Asks for all to be sent, and waits for it, for as long as `within`. An exporter
/// that drops the question has ended.
pub(crate) async fn flush(ask: impl AsyncFnOnce(Asked), within: Duration) -> Result<(), Status> {
    let flushed = async {
        let (asked, answer) = oneshot::channel();
        ask(asked).await;
        let gone = || Err(Status::cancelled("the runtime of the exporter has ended"));
        answer.await.unwrap_or_else(|_| gone())
    };
    let late = |_| Err(Status::deadline_exceeded(format!("the collector took over {within:?}")));
    timeout(within, flushed).await.unwrap_or_else(late)
}

// === impl Collector ===

impl<T: CollectorChannel> Collector<T> {
    /// Sends what comes, until nobody can send any more.
    async fn run(self, mut waiting: mpsc::Receiver<Waiting>) {
        while let Some(first) = waiting.recv().await {
            let (mut batch, mut asked) = (Vec::new(), None);
            let due = Instant::now() + PATIENCE;
            let mut next = Some(first);
            while let Some(found) = next {
                match found {
                    Waiting::Span(span) => batch.push(*span),
                    Waiting::Flush(done) => {
                        asked = Some(done);
                        break;
                    }
                }
                if batch.len() == BATCH {
                    break;
                }
                next = timeout_at(due, waiting.recv()).await.unwrap_or_default();
            }
            let taken = if batch.is_empty() { Ok(()) } else { self.send(batch).await };
            if let Some(asked) = asked {
                // Whoever asked may have given up.
                _ = asked.send(taken);
            }
        }
    }

    /// Sends them, again where OTLP says so; what the collector does not take is lost, in part or
    /// all of it.
    async fn send(&self, spans: Vec<Span>) -> Result<(), Status> {
        let count = spans.len() as u64;
        let scope = InstrumentationScope { name: "cinchona".to_owned(), ..Default::default() };
        let spans = ScopeSpans { scope: Some(scope), spans, ..Default::default() };
        let of = ResourceSpans {
            resource: Some(self.resource.clone()),
            scope_spans: vec![spans],
            ..Default::default()
        };
        let request = ExportTraceServiceRequest { resource_spans: vec![of] };
        let mut tries = 1;
        let (lost, why) = loop {
            let export = async { self.client.clone().export(request.clone()).await };
            match in_time(export).await {
                Ok(answer) => {
                    let partial = answer.into_inner().partial_success.unwrap_or_default();
                    let why = Status::invalid_argument(partial.error_message);
                    break (partial.rejected_spans.max(0) as u64, why);
                }
                Err(status) => match pause(&status, tries) {
                    Some(pause) => sleep(pause).await,
                    None => break (count, status),
                },
            }
            tries += 1;
        };
        self.lost.fetch_add(lost, Ordering::Relaxed);
        if lost == 0 { Ok(()) } else { Err(why) }
    }
}

/// The collector's answer, within the time it may take. A channel that panics has failed once: the
/// task that sends goes on.
pub(crate) async fn in_time<T>(
    answer: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    let mut answer = pin!(answer);
    let answer = poll_fn(|cx| {
        let polled = catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(cx)));
        polled.unwrap_or_else(|_| {
            Poll::Ready(Err(Status::internal("the channel to the collector panicked")))
        })
    });
    let late = |_| Err(Status::deadline_exceeded(format!("the collector took over {LIMIT:?}")));
    timeout(LIMIT, answer).await.unwrap_or_else(late)
}

/// How long to wait before what was answered so, after that many tries, is sent again: at least as
/// long as the collector asks, up to [`LONGEST`]. `None`, where it is not to be.
fn pause(status: &Status, tries: u32) -> Option<Duration> {
    let asked = match status::pushback_of(status) {
        Some(Pushback::Stop) => return None,
        Some(Pushback::After(wait)) => Some(wait.min(LONGEST)),
        None => None,
    };
    let own = PAUSE * (1 << (tries - 1));
    (tries < TRIES && may_retry(status, asked.is_some())).then(|| asked.unwrap_or(own).max(own))
}

/// Whether OTLP has a client send again what was answered so ([failures]): `RESOURCE_EXHAUSTED`
/// only where the collector says that it will recover, by a `RetryInfo`.
///
/// [failures]: https://opentelemetry.io/docs/specs/otlp/#failures
fn may_retry(status: &Status, is_asked: bool) -> bool {
    match Verdict::of_error(status).code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => true,
        Code::ResourceExhausted => is_asked || status::has_retry_info(status.details()),
        _ => false,
    }
}
