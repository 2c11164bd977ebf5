//! All layers that have a switch, as eager to do something as they can be.

use crate::bare::Bare;
use bytes::Bytes;
use cinchona::{
    breaker::{BreakerLayer, BreakerPolicy, BreakerSettings},
    cluster::{Cluster, Config, Datagrams, QuorumGuardSettings},
    config::{MessageLimits, MessageLimitsSettings},
    core::{BoxError, Methods, Rng, Switch},
    deadline::{AttemptTimeoutSettings, CallDeadlineSettings, ServerDeadlineSettings},
    fallback::{Cache, FallbackLayer, FallbackSettings},
    fault::{FaultLayer, FaultSettings, Faults, Rules},
    idempotency::{DedupLayer, DedupSettings, IdempotencyKeySettings, MemoryStore},
    observe::{AttemptSettings, CallSettings, Metrics, ServerSettings},
    retry::{RetryLayer, RetryPolicy, RetrySettings},
    shed::{
        AdaptiveThrottleLayer, AdaptiveThrottleSettings, BulkheadLayer, BulkheadSettings, Limit,
        Queue, RateLimitLayer, RateLimitSettings, ShedLayer, ShedSettings, StatusLimitLayer,
        StatusLimitSettings,
    },
};
use cinchona_plumbing::ReplayBuffer;
use http::{Request, Response};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use prost::Message;
use prost_types::{
    FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto, MethodOptions,
    ServiceDescriptorProto, method_options::IdempotencyLevel,
};
use std::{fmt::Debug, io, net::SocketAddr, time::Duration};
use tonic::{Code, body::Body};
use tower::{Layer, Service, ServiceExt, util::BoxService};

pub(crate) type Boxed =
    BoxService<Request<Body>, Response<UnsyncBoxBody<Bytes, BoxError>>, BoxError>;

/// A layer, and all that it shows of itself.
pub(crate) struct Case {
    /// The file that has its switch.
    pub(crate) file: &'static str,
    pub(crate) switch: Switch,
    pub(crate) layer: Box<dyn Fn(Bare) -> Boxed>,
    pub(crate) state: Box<dyn Fn() -> String>,
    /// The gauges that must be 0 when no call is in flight.
    pub(crate) gauges: Box<dyn Fn() -> Vec<u64>>,
}

pub(crate) fn boxed<S, B>(service: S) -> Boxed
where
    S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let service = service.map_err(Into::into);
    let body = |body: B| UnsyncBoxBody::new(body.map_err(Into::into));
    BoxService::new(service.map_response(move |response: Response<B>| response.map(body)))
}

/// `Unary` has effects, `Read` has none, `Stream` streams both ways, and `Unknown` is not known.
pub(crate) fn methods() -> Methods {
    let method = |name: &str, streams, level: Option<IdempotencyLevel>| MethodDescriptorProto {
        name: Some(name.into()),
        client_streaming: Some(streams),
        server_streaming: Some(streams),
        options: level.map(|level| MethodOptions {
            idempotency_level: Some(level.into()),
            ..Default::default()
        }),
        ..Default::default()
    };
    let service = ServiceDescriptorProto {
        name: Some("B".into()),
        method: vec![
            method("Unary", false, None),
            method("Read", false, Some(IdempotencyLevel::NoSideEffects)),
            method("Stream", true, None),
        ],
        ..Default::default()
    };
    let file = FileDescriptorProto {
        package: Some("a".into()),
        service: vec![service],
        ..Default::default()
    };
    let set = FileDescriptorSet { file: vec![file] }.encode_to_vec();
    Methods::from_file_descriptor_set(&set).unwrap()
}

fn case<L, R, B>(
    file: &'static str,
    switch: &Switch,
    layer: L,
    shown: impl Fn(&L) -> R + 'static,
    gauges: impl Fn(&L) -> Vec<u64> + 'static,
) -> Case
where
    L: Layer<Bare> + Clone + Debug + 'static,
    L::Service: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>, Future: Send>
        + Send
        + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    R: Debug,
{
    let (of, by) = (layer.clone(), layer.clone());
    Case {
        file,
        switch: switch.clone(),
        layer: Box::new(move |bare| boxed(layer.layer(bare))),
        state: Box::new(move || format!("{of:?} {:?}", shown(&of))),
        gauges: Box::new(move || gauges(&by)),
    }
}

/// Each with its own switch in the mode of `switch`.
pub(crate) fn all(switch: impl Fn() -> Switch) -> Vec<Case> {
    let mut all = vec![];
    let mut with = |case: fn(&Switch) -> Case| all.push(case(&switch()));
    with(fault);
    with(retry);
    with(fallback);
    with(shed);
    with(bulkhead);
    with(throttle);
    with(quota);
    with(status_limit);
    with(breaker);
    with(breaker_by_method);
    with(attempt);
    with(call_deadline);
    with(dedup);
    with(quorum);
    with(key);
    with(messages);
    with(calls);
    with(attempts);
    with(served);
    with(served_until);
    all
}

fn fault(switch: &Switch) -> Case {
    let faults = Faults {
        failure_rate: 0.5,
        slow_rate: 0.5,
        slow_delay: Duration::from_millis(5),
        ..Faults::default()
    };
    let rules = Rules::new(1).with("all", "rate=0.5 hang".parse().unwrap());
    let settings = FaultSettings::new(faults).unwrap().with_rules(rules.clone()).with_marks();
    let layer = settings.with_switch(switch.clone()).layer();
    let shown = move |layer: &FaultLayer| {
        (layer.counters(), rules.list().iter().map(|r| r.matched).sum::<u64>())
    };
    case("fault/src/layer.rs", switch, layer, shown, |_| vec![])
}

fn retry(switch: &Switch) -> Case {
    let policy = RetryPolicy::default();
    let policy = policy.with_codes([Code::Unavailable, Code::Internal]).unwrap();
    let buffer = ReplayBuffer::new(1 << 10, 1 << 12);
    let layer = RetrySettings::new(policy, Methods::all_idempotent())
        .with_rng(Rng::seeded(1))
        .with_buffer(buffer.clone())
        .with_throttle(10.0, 0.1)
        .unwrap()
        .explained()
        .with_switch(switch.clone())
        .layer();
    let shown =
        |layer: &RetryLayer| (layer.counters().throttle_tokens, layer.counters().budget_tokens);
    case("retry/src/layer.rs", switch, layer, shown, move |_| vec![buffer.used() as u64])
}

fn fallback(switch: &Switch) -> Case {
    let layer = FallbackSettings::new(methods())
        .with_cache(Cache::default())
        .unwrap()
        .with_default("a.B", "", Bytes::new())
        .unwrap()
        .with_caller(|request| Some(request.uri.path().to_owned()))
        .with_switch(switch.clone())
        .layer();
    let shown = |layer: &FallbackLayer| layer.counters();
    case("fallback/src/settings.rs", switch, layer, shown, |_| vec![])
}

fn shed(switch: &Switch) -> Case {
    let queue = Queue { capacity: 1, ..Queue::default() };
    let layer = ShedSettings::new(Limit::Fixed(2))
        .unwrap()
        .with_queue(queue)
        .with_methods(methods())
        .with_streams(1)
        .unwrap()
        .with_switch(switch.clone())
        .layer();
    let gauges = |layer: &ShedLayer| {
        let seen = layer.counters();
        [seen.in_progress, seen.waiting, seen.streams].map(u64::from).to_vec()
    };
    let shown = |layer: &ShedLayer| {
        let seen = layer.counters();
        (seen.shed, seen.late, seen.limit)
    };
    case("shed/src/layer.rs", switch, layer, shown, gauges)
}

fn bulkhead(switch: &Switch) -> Case {
    let layer = BulkheadSettings::new(2, Duration::from_millis(5))
        .unwrap()
        .with_methods(methods())
        .with_streams(1)
        .unwrap()
        .with_switch(switch.clone())
        .layer();
    let gauges = |layer: &BulkheadLayer| {
        let seen = layer.counters();
        [seen.in_progress, seen.waiting, seen.streams].map(u64::from).to_vec()
    };
    case(
        "shed/src/bulkhead.rs",
        switch,
        layer,
        |layer: &BulkheadLayer| layer.counters().shed,
        gauges,
    )
}

fn throttle(switch: &Switch) -> Case {
    let settings = AdaptiveThrottleSettings::new(1.0).unwrap().with_rng(Rng::seeded(1));
    let layer = settings.with_switch(switch.clone()).layer();
    case("shed/src/throttle.rs", switch, layer, AdaptiveThrottleLayer::counters, |_| vec![])
}

fn quota(switch: &Switch) -> Case {
    let settings = RateLimitSettings::new(1, 1).unwrap().by(|_, _| "all".into());
    let layer = settings.with_switch(switch.clone()).layer();
    case("shed/src/rate/settings.rs", switch, layer, RateLimitLayer::counters, |_| vec![])
}

fn status_limit(switch: &Switch) -> Case {
    let layer = StatusLimitSettings::new().with_switch(switch.clone()).layer();
    case("shed/src/bound.rs", switch, layer, StatusLimitLayer::counters, |_| vec![])
}

fn breaking(switch: &Switch) -> BreakerSettings {
    let policy = BreakerPolicy::default().with_consecutive_failures(Some(2)).unwrap();
    BreakerSettings::new(policy).with_rng(Rng::seeded(1)).with_switch(switch.clone())
}

fn breaker(switch: &Switch) -> Case {
    let shown = |layer: &BreakerLayer| format!("{:?}", layer.circuits());
    case("breaker/src/layer.rs", switch, breaking(switch).layer(), shown, |_| vec![])
}

fn breaker_by_method(switch: &Switch) -> Case {
    let shown = |layer: &BreakerLayer| format!("{:?}", layer.circuits());
    let layer = breaking(switch).per_method().layer();
    case("breaker/src/layer.rs", switch, layer, shown, |_| vec![])
}

fn attempt(switch: &Switch) -> Case {
    let settings = AttemptTimeoutSettings::new(Duration::from_millis(20));
    let settings = settings.with_silence(Duration::from_millis(20)).with_methods(methods());
    let layer = settings.with_switch(switch.clone()).layer();
    case("deadline/src/attempt.rs", switch, layer, |_| (), |_| vec![])
}

fn call_deadline(switch: &Switch) -> Case {
    let settings = CallDeadlineSettings::new().with_limit(Duration::from_millis(20));
    let layer = settings.with_methods(methods()).with_switch(switch.clone()).layer();
    case("deadline/src/call.rs", switch, layer, |_| (), |_| vec![])
}

fn dedup(switch: &Switch) -> Case {
    let store = MemoryStore::new();
    let layer = DedupSettings::new(methods())
        .with_required(true)
        .with_limits(64, 64)
        .with_domain("here")
        .unwrap()
        .with_lease(Duration::from_secs(1))
        .unwrap()
        .with_switch(switch.clone())
        .layer(store.clone());
    let gauges = move |_: &DedupLayer<MemoryStore>| vec![store.claims() as u64];
    case("idempotency/src/settings.rs", switch, layer, |layer| layer.counters(), gauges)
}

fn key(switch: &Switch) -> Case {
    let settings = IdempotencyKeySettings::new(methods()).with_request_ids();
    let layer = settings.with_switch(switch.clone()).layer();
    case("idempotency/src/request_id.rs", switch, layer, |_| (), |_| vec![])
}

fn messages(switch: &Switch) -> Case {
    let limits = MessageLimits { max_request_bytes: Some(0), max_response_bytes: Some(0) };
    let layer =
        MessageLimitsSettings::new().with_limits(limits).with_switch(switch.clone()).layer();
    case("config/src/limits.rs", switch, layer, |_| (), |_| vec![])
}

fn calls(switch: &Switch) -> Case {
    let metrics = Metrics::new(methods());
    let layer = CallSettings::new("any").with_switch(switch.clone()).layer(&metrics);
    case("observe/src/layers.rs", switch, layer, move |_| metrics.render(), |_| vec![])
}

fn attempts(switch: &Switch) -> Case {
    let metrics = Metrics::new(methods());
    let layer = AttemptSettings::new("any").with_switch(switch.clone()).layer(&metrics);
    case("observe/src/layers.rs", switch, layer, move |_| metrics.render(), |_| vec![])
}

fn served(switch: &Switch) -> Case {
    let metrics = Metrics::new(methods());
    let layer = ServerSettings::new().with_switch(switch.clone()).layer(&metrics);
    case("observe/src/layers.rs", switch, layer, move |_| metrics.render(), |_| vec![])
}

fn served_until(switch: &Switch) -> Case {
    let settings = ServerDeadlineSettings::new().with_limit(Duration::from_millis(20));
    let layer = settings.with_switch(switch.clone()).layer();
    case("deadline/src/server.rs", switch, layer, |_| (), |_| vec![])
}

/// No other node is heard, so all writes would be refused.
fn quorum(switch: &Switch) -> Case {
    let config = Config::new("laws", "one", ([127, 0, 0, 1], 1).into());
    let cluster = Cluster::join_over(config, &[], Deaf).unwrap();
    let layer = QuorumGuardSettings::new(methods()).with_switch(switch.clone()).layer(&cluster);
    case("cluster/src/guard.rs", switch, layer, |_| (), |_| vec![])
}

struct Deaf;

impl Datagrams for Deaf {
    fn address(&self) -> io::Result<SocketAddr> {
        Ok(([127, 0, 0, 1], 1).into())
    }

    fn send(&self, _: &[u8], _: SocketAddr) -> io::Result<()> {
        Ok(())
    }

    async fn receive(&self, _: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        std::future::pending().await
    }
}
