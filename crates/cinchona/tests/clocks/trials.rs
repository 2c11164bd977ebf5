//! Trials of values that take more than a line of the table.

use crate::world::*;
use cinchona::{
    balance::{Dns, Options, Tcp, Ticket},
    breaker::{BreakerLayer, BreakerPolicy, Window},
    client,
    cluster::Phi,
    config::{HedgingPolicy, Policy as Configured, RetryPolicy as ConfigRetry},
    core::{BoxError, Deadline, Discover, Evidence, Invalid, Methods, Mode, PerMethod, Rng},
    deadline::Elapsed,
    idempotency::{Store, Wait},
    observe::Metrics,
    otlp::export_metrics,
    redb::{self, RedbStore},
    redis::RedisStore,
    retry::{Backoff, Jitter, Policy, RetryPolicy},
    server,
    shed::AdaptiveThrottleLayer,
};
use cinchona_plumbing::{Latency, clock};
use cinchona_testkit::{Answer, ScriptedServer};
use http::{HeaderMap, HeaderValue, Uri};
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tonic::Code;
use tower::{Layer, ServiceExt, service_fn};

/// Nothing is left to be done.
pub(crate) async fn done<T>(_: T) -> Ended {
    Ok(())
}

pub(crate) async fn delays(backoff: Result<Backoff, Invalid>) -> Ended {
    let (backoff, mut rng) = (backoff?, Rng::seeded(1).draw());
    for jitter in
        [Jitter::None, Jitter::Additive(Duration::MAX), Jitter::Full, Jitter::Equal, Jitter::Grpc]
    {
        for n in [0, 1, 2, 100, u32::MAX] {
            let delay = backoff.with_jitter(jitter).delay(n, &mut rng);
            _ = clock::later(Instant::now(), delay);
        }
    }
    let policy = RetryPolicy::default().with_backoff(backoff);
    let script = [unavailable(), unavailable(), ok()];
    let layer = retry_settings().with_policies(PerMethod::from(Policy::from(policy)))?.layer();
    calls(&layer.layer(ScriptedServer::new(script))).await
}

pub(crate) async fn jitter(jitter: Jitter) -> Ended {
    delays(Ok(Backoff::new(SECOND, 2.0, SECOND)?.with_jitter(jitter))).await
}

pub(crate) async fn latency(quantile: f64, latency: Duration) -> Ended {
    let followed = Latency::new(quantile);
    (0..300).for_each(|_| followed.record(latency));
    let current = followed.current().map(|current| clock::later(Instant::now(), current));
    expect("it is known after a hundred", current.is_some() && followed.take().is_some())
}

pub(crate) async fn deadline_after(timeout: Duration) -> Ended {
    let now = Instant::now();
    let deadline = Deadline::within(timeout, now).unwrap_or(Deadline::after(timeout, now));
    deadline.stamp(request().headers_mut(), now);
    _ = (Elapsed::new("late"), deadline.remaining(now), deadline.has_passed(now));
    Ok(())
}

pub(crate) async fn gate(took: Duration) -> Ended {
    let layer = BreakerLayer::new(BreakerPolicy::default().with_slow_calls(SECOND, 0.5)?);
    let (gate, now) = (layer.endpoint("one"), Instant::now());
    let ticket: Ticket = gate.enter("/a/B", now)?;
    gate.leave(ticket, Evidence::Good(tonic::Code::Ok), took, now);
    expect("it lets calls through", gate.is_open_to("/a/B", now))
}

/// What a server asks for, through a client that heeds it.
pub(crate) async fn pushed_back(wait: Duration) -> Ended {
    let mut headers = HeaderMap::new();
    headers.insert("grpc-status", HeaderValue::from_static("14"));
    headers.insert("grpc-retry-pushback-ms", HeaderValue::from(clock::millis(wait)));
    let place = Place::new(ScriptedServer::new([Answer::Raw(headers), ok()]));
    let service = retry().layer(place.balance(Options::default())?);
    calls(&service).await
}

pub(crate) async fn looked_up(mut dns: Dns) -> Ended {
    expect("it is found", timeout(SECOND, dns.next()).await.is_ok())?;
    expect("it does not change", timeout(60 * SECOND, dns.next()).await.is_err())
}

/// A socket that is connected, and carries bytes.
pub(crate) async fn connected(user_timeout: Duration) -> Ended {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let uri: Uri = format!("http://{}", listener.local_addr()?).parse()?;
    Tcp::new().with_user_timeout(Some(user_timeout)).oneshot(uri).await?;
    Ok(())
}

pub(crate) async fn throttled(layer: Result<AdaptiveThrottleLayer, Invalid>) -> Ended {
    let service = layer?.layer(ScriptedServer::new([unavailable()]));
    for _ in 0..10 {
        calls(&service).await?;
    }
    Ok(())
}

/// A claim, its repetition, its record; then a second key.
pub(crate) async fn stored<T: Store>(store: T, lease: Duration) -> Ended {
    for key in [b"one", b"two"] {
        drop(store.claim(key, 1, 1, lease).await?);
        drop(store.claim(key, 1, 2, lease).await?);
        store.finish(key, 1, b"record").await?;
        drop(store.claim(key, 1, 3, lease).await?);
        store.release(key, 3).await?;
    }
    Ok(())
}

pub(crate) async fn over(wait: Wait) -> Ended {
    _ = timeout(5 * SECOND, wait.over()).await;
    Ok(())
}

/// In real time: a thread writes the file, and the virtual clock would not wait for it.
pub(crate) async fn in_file(ttl: Duration) -> Ended {
    let run =
        move || tokio::runtime::Builder::new_current_thread().build()?.block_on(written_to(ttl));
    tokio::task::spawn_blocking(run).await?
}

pub(crate) async fn written_to(ttl: Duration) -> Ended {
    let directory = tempfile::tempdir()?;
    let options = redb::Options { ttl, ..redb::Options::default() };
    let store = RedbStore::open(directory.path().join("calls.redb"), options)?;
    stored(store.clone(), ttl).await?;
    drop(store);
    // What it has written can be read.
    let store = RedbStore::open(directory.path().join("calls.redb"), options)?;
    stored(store, SECOND).await
}

pub(crate) fn slow_channel() -> (Place, tonic::transport::Channel) {
    let place = Place::new(slow());
    let channel = place.network.channel();
    (place, channel)
}

pub(crate) async fn exported(each: Duration, within: Duration) -> Ended {
    let metrics = Metrics::new(Methods::unknown());
    let exporter = export_metrics(&metrics, "http://127.0.0.1:1", "clocks", each)?;
    _ = timeout(SECOND, exporter.flush(within)).await;
    Ok(())
}

pub(crate) async fn written(shown: impl serde::Serialize) -> Ended {
    let text = serde_json::to_string(&shown)?;
    serde_json::from_str::<serde_json::Value>(&text)?;
    Ok(())
}

pub(crate) fn config_retry() -> ConfigRetry {
    ConfigRetry {
        max_attempts: 4,
        initial_backoff: SECOND,
        max_backoff: SECOND,
        backoff_multiplier: 2.0,
        retryable_status_codes: vec![Code::Unavailable],
        per_attempt_recv_timeout: None,
    }
}

pub(crate) async fn repeated(policy: ConfigRetry) -> Ended {
    configured(None, Some(Configured::Retry(policy))).await
}

pub(crate) async fn hedged_by_config(hedging_delay: Duration) -> Ended {
    let non_fatal_status_codes = vec![Code::Unavailable];
    let policy = HedgingPolicy { max_attempts: 3, hedging_delay, non_fatal_status_codes };
    configured(None, Some(Configured::Hedging(policy))).await
}

pub(crate) async fn suspected(phi: Phi) -> Ended {
    gossiped(move |config| config.phi = phi).await
}

pub(crate) fn dns() -> Dns {
    Dns::new(Uri::from_static("http://127.0.0.1:1"))
}

pub(crate) fn redis() -> Result<RedisStore, BoxError> {
    Ok(RedisStore::new("redis://127.0.0.1:1")?)
}

pub(crate) fn breaker() -> BreakerPolicy {
    BreakerPolicy::default()
}

pub(crate) async fn windowed(window: Window) -> Ended {
    broken(breaker().with_failure_rate(0.5)?.with_window(window)?).await
}

pub(crate) fn of_a_method(time: Duration) -> PerMethod<Option<Duration>> {
    let mut times = PerMethod::new();
    times.insert("calculator.Calculator", "Add", Some(time)).unwrap();
    times
}

/// With what is off by default, too.
pub(crate) fn client_settings() -> client::Settings {
    client::Settings::new(methods())
        .with_rng(Rng::seeded(1))
        .with_mode(client::Part::Throttle, Mode::Enforce)
}

/// A client whose settings were changed after they were made.
pub(crate) async fn client(change: impl FnOnce(&mut client::Settings)) -> Ended {
    let mut settings = client_settings();
    change(&mut settings);
    client_of(settings).await
}

pub(crate) async fn client_of(settings: client::Settings) -> Ended {
    calls(&settings.layers()?.around(slow())).await
}

/// A server whose settings were changed after they were made.
pub(crate) async fn server(change: impl FnOnce(&mut server::Settings)) -> Ended {
    let mut settings = server::Settings::new(methods()).with_rng(Rng::seeded(1));
    change(&mut settings);
    let layers = settings.layers()?;
    calls(&layers.layer(service_fn(answered))).await?;
    layers.drain.serve(async {}, async {}).await.ok_or_else(|| "it has ended".into())
}
