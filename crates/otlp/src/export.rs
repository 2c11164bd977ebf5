//! Sends spans to the collector, in its own task.

use crate::{
    attributes::text,
    layer::OtlpLayer,
    queue::{Asked, Queue, Waiting},
};
use cinchona_core::{Invalid, Verdict};
use cinchona_plumbing::{
    Count,
    status::{self, Pushback},
};
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
    sync::Arc,
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

/// The capacity of the queue, the largest batch, and the longest wait for a full batch:
/// OpenTelemetry's defaults, except the wait, whose default is 5 s.
const KEPT: usize = 2_048;
const BATCH: usize = 512;
const PATIENCE: Duration = Duration::from_secs(1);

/// How long the collector may take to answer.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);

/// The most attempts for a batch; the wait doubles with each.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(500);

/// The longest wait that a collector can ask for: in more time than that the queue overflows.
pub(crate) const LONGEST: Duration = Duration::from_secs(60);

/// The way to a collector: a [`Channel`](tonic::transport::Channel), bare or with layers around it.
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

/// The fate of the spans; clones share it.
#[derive(Clone, Debug)]
pub struct Exporter(Queue);

struct Collector<T> {
    client: TraceServiceClient<T>,
    resource: Resource,
    lost: Arc<Count>,
}

/// A layer for a `tracing` subscriber that sends all spans to the collector at `endpoint`, such as
/// `http://127.0.0.1:4317`, under the name of this `service`; and the exporter, which flushes and
/// counts lost spans.
///
/// # Errors
/// When `endpoint` is not a URI of the scheme `http`, or holds a user or a password, which gRPC
/// never sends: use [`export_over`] to send a token. The error does not repeat it.
///
/// # Panics
/// Outside a tokio runtime.
pub fn export(endpoint: &str, service: &str) -> Result<(OtlpLayer, Exporter), Invalid> {
    Ok(export_over(self::endpoint(endpoint)?.connect_lazy(), service))
}

/// The address of a collector.
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

/// The resource of the spans.
pub(crate) fn resource(service: &str) -> Resource {
    Resource { attributes: vec![text("service.name", service)], ..Resource::default() }
}

/// As [`export`], through an existing `channel`: one with TLS, with a token for each request, or
/// with retries.
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
    // The exporter's own calls are not exported, or each export would cause another.
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
    /// Waits until the spans that have ended were sent, for at most `within`.
    ///
    /// # Errors
    /// The collector's last error for them, or `DEADLINE_EXCEEDED`.
    pub async fn flush(&self, within: Duration) -> Result<(), Status> {
        flush(async |asked| drop(self.0.spans.send(Waiting::Flush(asked)).await), within).await
    }

    /// How many spans were lost: refused by the collector, or beyond the queue.
    pub fn lost(&self) -> u64 {
        self.0.lost.read()
    }
}

/// Requests a flush and waits for it, for at most `within`. A closed channel means that the
/// exporter has ended.
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
    /// Sends the spans in the queue until its last sender is dropped.
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
                // The caller of flush may have given up.
                _ = asked.send(taken);
            }
        }
    }

    /// Sends a batch, again where OTLP requires it; spans that the collector does not take are
    /// lost, some or all of them.
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
        self.lost.add(lost);
        if lost == 0 { Ok(()) } else { Err(why) }
    }
}

/// The collector's answer, within the limit. A channel that panics counts as one failure: the
/// sending task goes on.
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

/// The wait before a batch with this answer is sent again after that many attempts: at least as
/// long as the collector asks, up to [`LONGEST`]. `None` if it must not be sent again.
fn pause(status: &Status, tries: u32) -> Option<Duration> {
    let asked = match status::pushback_of(status) {
        Some(Pushback::Stop) => return None,
        Some(Pushback::After(wait)) => Some(wait.min(LONGEST)),
        None => None,
    };
    let own = PAUSE * (1 << (tries - 1));
    (tries < TRIES && may_retry(status, asked.is_some())).then(|| asked.unwrap_or(own).max(own))
}

/// Whether OTLP has a client retry after this answer ([failures]): `RESOURCE_EXHAUSTED` only with a
/// `RetryInfo`, which says that the collector will recover.
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
