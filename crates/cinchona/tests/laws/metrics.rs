//! Every layer declares its metrics by one trait: so registering the layers provides every series
//! of the Grafana dashboard.

use crate::{
    gauges::at_random,
    grafana::{asked, missing},
    layers::{self, boxed, methods},
    virtually,
};
use cinchona::{
    balance::{Balance, Options},
    breaker::{BreakerLayer, BreakerPolicy},
    cluster::Cluster,
    core::{BoxError, Instrument, Invalid, Mode, Observable, PerMethod, Rng, Switch, Target},
    deadline::{AttemptTimeoutLayer, CallDeadlineSettings, ServerDeadlineLayer},
    drain::Drain,
    fallback::{Cache, FallbackLayer, FallbackSettings},
    fault::{FaultLayer, Faults},
    idempotency::{DedupLayer, IdempotencyKeyLayer, MemoryStore},
    observe::{AttemptLayer, CallLayer, Metrics, ServerLayer, Value},
    retry::{Backoff, HedgePolicy, Policy, RetryLayer, RetryPolicy, RetrySettings},
    shed::{
        AdaptiveThrottleLayer, BulkheadLayer, BulkheadSettings, Limit, Queue, RateLimitLayer,
        ShedLayer, ShedSettings, StatusLimitLayer,
    },
};
use cinchona_testkit::{Answer, Network, ScriptedServer, encode};
use http::{Request, Uri};
use http_body_util::{BodyExt, Full};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::Arc,
    time::Duration,
};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

const MS: Duration = Duration::from_millis(1);
const TARGET: &[(&str, &str)] = &[("grpc.target", "any")];

/// The declaration of an instrument: name, unit, help, and whether it only grows.
type Said = (&'static str, &'static str, &'static str, bool);

fn said<T: Observable>() -> Vec<Said> {
    let say = |of: &Instrument<T>| (of.name(), of.unit(), of.help(), of.is_counter());
    T::INSTRUMENTS.iter().map(say).collect()
}

/// Those of all layers, by the crates that they are of.
fn all() -> Vec<(&'static str, Vec<Said>)> {
    vec![
        ("balance", said::<Balance>()),
        ("breaker", said::<BreakerLayer>()),
        ("cluster", said::<Cluster>()),
        ("drain", said::<Drain>()),
        ("fallback", said::<FallbackLayer>()),
        ("fault", said::<FaultLayer>()),
        ("idempotency", said::<DedupLayer<MemoryStore>>()),
        ("retry", said::<RetryLayer>()),
        ("shed", said::<BulkheadLayer>()),
        ("shed", said::<RateLimitLayer>()),
        ("shed", said::<ShedLayer>()),
        ("shed", said::<StatusLimitLayer>()),
        ("shed", said::<AdaptiveThrottleLayer>()),
    ]
}

#[test]
fn every_instrument_has_a_name_of_its_own_and_says_what_it_is() {
    let mut names = BTreeSet::new();
    for (of, (name, unit, help, is_counter)) in
        all().into_iter().flat_map(|(of, said)| said.into_iter().map(move |said| (of, said)))
    {
        let own = format!("cinchona.{of}.");
        assert!(name.starts_with(&own) || name.starts_with("grpc.lb."), "{name} is of {of}");
        assert!(names.insert(name.replace('.', "_")), "{name} stands once");
        assert!(help.ends_with('.') && help.len() > 10, "{name}: {help}");
        let is_annotation = unit.starts_with('{') && unit.ends_with('}');
        assert!(is_annotation || matches!(unit, "" | "s" | "By"), "{name}: {unit}");
        assert!(!is_counter || is_annotation, "a counter counts something: {name}");
    }
}

/// The types of ours that are in an `impl Observable`, as the sources have it.
fn observables(sources: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(sources).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            observables(&path, found);
        } else if path.file_name().is_some_and(|name| name == "metrics.rs") {
            let text = fs::read_to_string(path).unwrap();
            let named = text.lines().filter(|line| line.starts_with("impl"));
            let named = named.filter_map(|line| line.split_once("Observable for "));
            found.extend(named.map(|(_, name)| name.trim_end_matches(" {").to_owned()));
        }
    }
}

#[test]
fn no_observable_layer_is_missing_from_these_tests() {
    let mut found = BTreeSet::new();
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for library in fs::read_dir(crates).unwrap() {
        let sources = library.unwrap().path().join("src");
        if sources.is_dir() {
            observables(&sources, &mut found);
        }
    }
    assert_eq!(found.len(), all().len(), "{found:?}");
}

/// Serves the script on `network`, behind all layers of a server.
async fn serve(
    network: &Network,
    script: Vec<Answer>,
    metrics: &Metrics,
) -> Result<Cluster, BoxError> {
    let drain = Drain::default();
    let (quota, shed) = (RateLimitLayer::new(100, 100)?, ShedLayer::default());
    let faults = FaultLayer::new(Faults::default())?;
    let dedup = DedupLayer::new(MemoryStore::new(), methods());
    let config = cinchona::cluster::Config::new("laws", "one", ([127, 0, 0, 1], 0).into());
    let cluster = Cluster::join(config, &[]).await?;
    metrics.register(&drain, &[])?;
    metrics.register(&quota, &[])?;
    metrics.register(&shed, &[])?;
    metrics.register(&faults, &[])?;
    metrics.register(&dedup, &[])?;
    metrics.register(&cluster, &[])?;
    let service = ServiceBuilder::new()
        .layer(ServerLayer::new(metrics))
        .layer(drain.layer())
        .layer(quota)
        .layer(shed)
        .layer(ServerDeadlineLayer::new())
        .layer(faults)
        .layer(dedup)
        .service(ScriptedServer::new(script));
    let serving = network.serve_service(service);
    tokio::spawn(async move {
        std::future::pending::<()>().await;
        drop(serving);
    });
    Ok(cluster)
}

/// All layers of a client over `network`. `Unary` is hedged, all else is retried.
fn client(network: &Network, metrics: &Metrics) -> Result<layers::Boxed, Invalid> {
    let retry = RetryPolicy::default().with_codes([Code::Unavailable])?;
    let retry = retry.with_backoff(Backoff::new(10 * MS, 2.0, 100 * MS)?);
    let mut policies = PerMethod::from(Policy::from(retry));
    policies.insert("a.B", "Unary", HedgePolicy::default().with_delay(50 * MS).into())?;
    let retry = RetrySettings::new(retry, methods().keyed()).with_policies(policies)?.layer();
    let fallback = FallbackSettings::new(methods()).with_cache(Cache::default())?.layer();
    let (bulkhead, throttle) = (BulkheadLayer::default(), AdaptiveThrottleLayer::default());
    let breaker = BreakerLayer::new(BreakerPolicy::default());
    let (gates, network) = (breaker.clone(), network.clone());
    let gate = move |server: &Target| gates.endpoint(server.to_string());
    let options = Options { gate: Some(Arc::new(gate)), ..Options::default() };
    let connector = service_fn(move |uri: Uri| network.connector().oneshot(uri));
    let any: Target = Uri::from_static("http://any").into();
    let balance = Balance::with_connector(vec![any], connector, options)?;
    metrics.register(&fallback, TARGET)?;
    metrics.register(&bulkhead, TARGET)?;
    metrics.register(&retry, TARGET)?;
    metrics.register(&throttle, TARGET)?;
    metrics.register(&breaker, TARGET)?;
    metrics.register(&balance, TARGET)?;
    let stack = ServiceBuilder::new()
        .layer(CallLayer::new(metrics, "any"))
        .layer(IdempotencyKeyLayer::new(methods()))
        .layer(CallDeadlineSettings::new().with_limit(60_000 * MS).layer())
        .layer(fallback)
        .layer(bulkhead)
        .layer(retry)
        .layer(AttemptLayer::new(metrics, "any"))
        .layer(throttle)
        .layer(AttemptTimeoutLayer::new(1000 * MS))
        .service(balance);
    Ok(boxed(stack))
}

/// Calls, and reads the answer to its end.
async fn call(client: &mut layers::Boxed, method: &str) {
    let body = Body::new(Full::new(encode(&1_u32)));
    let request = Request::post(format!("http://any/a.B/{method}")).body(body).unwrap();
    let answer = client.ready().await.unwrap().call(request).await.unwrap();
    answer.into_body().collect().await.unwrap();
}

// catalogue: S-D14
#[test]
fn registering_the_layers_provides_every_series_of_the_grafana_dashboard() {
    virtually(async {
        let ok = || Answer::Ok(encode(&1_u32));
        let script = vec![
            Answer::Status(Status::unavailable("scripted")),
            ok(),
            Answer::Reset(h2::Reason::REFUSED_STREAM),
            ok(),
            Answer::After(500 * MS, Box::new(ok())),
            ok(),
        ];
        let (network, of_server) = (Network::new(), Metrics::new(methods()));
        let cluster = serve(&network, script, &of_server).await.unwrap();
        let of_client = Metrics::new(methods());
        let mut client = client(&network, &of_client).unwrap();
        // Retried; refused and sent again; hedged.
        for method in ["Read", "Read", "Unary"] {
            call(&mut client, method).await;
        }
        let asked = asked();
        assert!(asked.len() > 30, "{asked:#?}");
        let text = of_client.render() + &of_server.render();
        let missing = missing(&asked, &text);
        assert!(missing.is_empty(), "{missing:#?} is not in\n{text}");
        drop(cluster);
    });
}

#[test]
fn being_watched_keeps_neither_connections_nor_a_node() {
    virtually(async {
        let (network, metrics) = (Network::new(), Metrics::new(methods()));
        let cluster = serve(&network, vec![Answer::Ok(encode(&1_u32))], &metrics).await.unwrap();
        let mut client = client(&network, &metrics).unwrap();
        call(&mut client, "Read").await;
        assert_eq!(network.live(), 1);
        let of = |name: &str| values(&metrics).keys().filter(|of| of.starts_with(name)).count();
        assert!(of("cinchona.balance.in_flight") > 0 && of("cinchona.cluster.") > 0);
        drop((client, cluster));
        tokio::time::sleep(1000 * MS).await;
        assert_eq!(network.live(), 0);
        assert_eq!((of("cinchona.balance.in_flight"), of("cinchona.cluster.")), (0, 0));
        assert_eq!(of("cinchona.balance.calls"), 1, "what has been counted stays");
        assert_eq!(of("cinchona.shed.limit"), 1, "what runs nothing is kept");
    });
}

/// The value of each series, by its name and labels; and whether it only grows.
fn values(metrics: &Metrics) -> BTreeMap<String, (f64, bool)> {
    let series = metrics.collect().into_iter().flat_map(|metric| {
        let name = metric.name;
        metric.series.into_iter().map(move |(labels, value)| (format!("{name}{labels:?}"), value))
    });
    let value = |(name, value)| match value {
        Value::Counter(value) => Some((name, (value, true))),
        Value::Gauge(value) => Some((name, (value, false))),
        _ => None,
    };
    series.filter_map(value).collect()
}

fn register(metrics: &Metrics, switch: &Switch) -> (ShedLayer, BulkheadLayer) {
    let queue = Queue { capacity: 1, ..Queue::default() };
    let shed = ShedSettings::new(Limit::Fixed(2))
        .unwrap()
        .with_queue(queue)
        .with_methods(methods())
        .with_streams(1)
        .unwrap()
        .with_switch(switch.clone())
        .layer();
    let bulkhead = BulkheadSettings::new(2, 5 * MS).unwrap().with_methods(methods());
    let bulkhead = bulkhead.with_streams(1).unwrap().with_switch(switch.clone()).layer();
    metrics.register(&shed, &[]).unwrap();
    metrics.register(&bulkhead, &[]).unwrap();
    (shed, bulkhead)
}

// catalogue: S-E15
#[test]
fn what_is_shown_as_a_counter_never_falls_and_what_is_shown_as_under_way_returns_to_0() {
    crate::off::quiet();
    for seed in 0..12 {
        virtually(async {
            let (rng, metrics, switch) =
                (Rng::seeded(seed), Metrics::new(methods()), Switch::default());
            let (shed, bulkhead) = register(&metrics, &switch);
            let mut before = values(&metrics);
            let layer = |bare| boxed(bulkhead.layer(shed.layer(bare)));
            at_random(&rng, layer, |to| {
                switch.set([Mode::Enforce, Mode::Shadow, Mode::Off][to as usize]);
                let now = values(&metrics);
                for (name, (value, is_counter)) in &now {
                    assert!(*value >= 0.0, "{name} is {value}");
                    assert!(!is_counter || *value >= before[name].0, "{name} fell to {value}");
                }
                before = now;
            })
            .await;
            tokio::time::sleep(2000 * MS).await;
            let gauges = values(&metrics).into_iter().filter(|(_, (_, is_counter))| !is_counter);
            for (name, (value, _)) in gauges.filter(|(name, _)| !name.contains(".limit")) {
                assert_eq!(value, 0.0, "{name}");
            }
        });
    }
}
