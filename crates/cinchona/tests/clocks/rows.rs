//! The table: a line for each constructor, setter or setting.

use crate::{trials::*, world::*};
use cinchona::{
    balance::{Options, OutlierDetection, Utilization},
    breaker::Window,
    client::CallOptions,
    cluster::Phi,
    config::RetryPolicy as ConfigRetry,
    core::{MethodKind, Methods, PerMethod, Rejected, Rng},
    dashboard::{FaultRule, Spot, Tile},
    deadline::{
        AttemptLimit, AttemptTimeoutLayer, AttemptTimeoutSettings, CallDeadlineLayer,
        CallDeadlineSettings, ServerDeadlineSettings,
    },
    drain::Drain,
    fallback::Cache,
    fault::{Faults, Rules},
    idempotency::{InFlight, MemoryStore, Wait},
    observe::{Metrics, Samples},
    otlp::{export_metrics_over, export_over},
    retry::{Backoff, Budget, HedgePolicy, Jitter},
    shed::{
        Adaptive, AdaptiveThrottleLayer, AdaptiveThrottleSettings, BulkheadLayer, BulkheadSettings,
        Queue,
    },
};
use cinchona_plumbing::{clock, timeout};
use std::{future::Future, pin::Pin, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tonic::Code;
use tower::Layer;

pub(crate) type Trial = Pin<Box<dyn Future<Output = Ended>>>;

/// API that takes a value, and its trial.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) law: Law,
}

#[derive(Clone, Copy)]
pub(crate) enum Law {
    Time(fn(Duration) -> Trial),
    Number(fn(f64) -> Trial),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Value {
    Time(Duration),
    Number(f64),
}

// === impl Row ===

impl Row {
    pub(crate) fn trial(self, value: Value) -> Trial {
        match (self.law, value) {
            (Law::Time(trial), Value::Time(time)) => trial(time),
            (Law::Number(trial), Value::Number(number)) => trial(number),
            _ => unreachable!("a row is given the values of its kind"),
        }
    }
}

macro_rules! rows {
    ($($kind:ident $name:literal: |$value:ident| $trial:expr;)*) => {
        vec![$(Row { name: $name, law: Law::$kind(|$value| Box::pin($trial)) }),*]
    };
}

/// The defaults, but for a field.
macro_rules! of {
    ($kind:ident { $field:ident: $value:expr }) => {
        $kind { $field: $value, ..$kind::default() }
    };
}

pub(crate) fn all() -> Vec<Row> {
    [words(), endpoints(), servers(), stores(), clusters(), reports(), clients(), facade()].concat()
}

fn words() -> Vec<Row> {
    rows! {
        Time "policy::Backoff::new": |t| delays(Backoff::new(t, 2.0, Duration::MAX));
        Time "policy::Backoff::new": |t| delays(Backoff::new(SECOND, 2.0, t));
        Number "policy::Backoff::new": |n| delays(Backoff::new(SECOND, n, Duration::MAX));
        Time "policy::Jitter::Additive": |t| jitter(Jitter::Additive(t));
        Number "policy::Latency::new": |n| latency(n, SECOND);
        Time "policy::Latency::record": |t| latency(0.5, t);
        // By the same buckets.
        Time "policy::Latency::record_as": |t| latency(0.5, t);
        Time "core::Deadline::after": |t| deadline_after(t);
        Time "core::Deadline::within": |t| deadline_after(t);
        Time "plumbing::is_why": |t| done((timeout::is_why(t, t), timeout::is_why(SECOND, t)));
        Time "plumbing::encode_timeout": |t| done(timeout::encode_timeout(t));
        Time "core::Rejected::new": |t| done(Rejected::new("down", Some(t)).to_string());
        Time "policy::later": |t| done(clock::later(clock::later(Instant::now(), t), t));
        Time "policy::period": |t| done(tokio::time::interval(clock::period(t)));
        Time "policy::times": |t| done((clock::times(t, 1e308), clock::times(t, -1.0)));
        Number "policy::times": |n|
            done((clock::times(Duration::MAX, n), clock::times(SECOND, n)));
        Time "policy::nanos": |t| done(clock::nanos(t));
        Time "policy::millis": |t| done(clock::millis(t));
        Time "core::Gate::leave": |t| gate(t);
        Time "policy::Pushback::After": |t| pushed_back(t);
    }
}

fn endpoints() -> Vec<Row> {
    rows! {
        Time "balance::Options::patience": |t| balanced(of!(Options { patience: t }));
        Time "balance::Options::connect_timeout": |t| balanced(of!(Options { connect_timeout: t }));
        Time "balance::Options::keep_alive": |t|
            balanced(of!(Options { keep_alive: Some((t, SECOND)) }));
        Time "balance::Options::keep_alive": |t|
            balanced(of!(Options { keep_alive: Some((SECOND, t)) }));
        Time "policy::OutlierDetection::interval": |t|
            ejected(of!(OutlierDetection { interval: t }));
        Time "policy::OutlierDetection::base_ejection_time": |t|
            ejected(of!(OutlierDetection { base_ejection_time: t }));
        Time "policy::OutlierDetection::max_ejection_time": |t|
            ejected(of!(OutlierDetection { max_ejection_time: t }));
        Time "policy::Utilization::blackout_period": |t|
            weighed(of!(Utilization { blackout_period: t }));
        Time "policy::Utilization::weight_expiration_period": |t|
            weighed(of!(Utilization { weight_expiration_period: t }));
        Time "policy::Utilization::weight_update_period": |t|
            weighed(of!(Utilization { weight_update_period: t }));
        Number "policy::Utilization::error_utilization_penalty": |n|
            weighed(of!(Utilization { error_utilization_penalty: n }));
        Time "balance::Dns::with_interval": |t| looked_up(dns().with_interval(t));
        Time "balance::Options::user_timeout": |t|
            balanced(of!(Options { user_timeout: Some(t) }));
        Time "balance::Tcp::with_user_timeout": |t| connected(t);
    }
}

fn servers() -> Vec<Row> {
    rows! {
        Time "policy::Queue::longest": |t| shed(queued(of!(Queue { longest: t })));
        Time "policy::Queue::target": |t| shed(queued(of!(Queue { target: t })));
        Time "policy::Queue::interval": |t| shed(queued(of!(Queue { interval: t })));
        Time "shed::ShedSettings::with_pushback": |t|
            shed(queued(Queue::none()).and_then(|settings| settings.with_pushback(t)));
        Time "shed::ShedSettings::with_arrival": |t|
            shed(queued(Queue::default()).map(|settings| settings.with_arrival(t)));
        Number "policy::Adaptive::tolerance": |n| shed(adaptive(of!(Adaptive { tolerance: n })));
        Time "policy::Adaptive::window": |t| shed(adaptive(of!(Adaptive { window: t })));
        Time "shed::BulkheadLayer::new": |t| bulkhead(BulkheadLayer::new(1, t));
        Time "shed::BulkheadSettings::new": |t|
            bulkhead(BulkheadSettings::new(1, t).map(|settings| settings.layer()));
        Number "shed::AdaptiveThrottleLayer::new": |n| throttled(AdaptiveThrottleLayer::new(n));
        Number "shed::AdaptiveThrottleSettings::new": |n| {
            let settings = AdaptiveThrottleSettings::new(n);
            throttled(settings.map(|settings| settings.with_rng(Rng::seeded(1)).layer()))
        };
        Number "fault::Faults::failure_rate": |n| faulty(of!(Faults { failure_rate: n }));
        Number "fault::Faults::slow_rate": |n| faulty(of!(Faults { slow_rate: n }));
        Time "fault::Faults::slow_delay": |t|
            faulty(Faults { slow_rate: 1.0, slow_delay: t, ..Faults::default() });
        Number "fault::Faults::delay_from_secs": |n| async move {
            let slow_delay = Faults::delay_from_secs(n)?;
            faulty(Faults { slow_rate: 1.0, slow_delay, ..Faults::default() }).await
        };
        Time "fault::Rules::follow": |t| async move {
            _ = timeout(SECOND, Rules::default().follow("no such file", t)).await;
            Ok(())
        };
        Time "drain::Drain::new": |t| drained(Drain::new(t));
        Time "deadline::ServerDeadlineSettings::with_limit": |t|
            limited_server(ServerDeadlineSettings::new().with_limit(t).layer());
    }
}

fn stores() -> Vec<Row> {
    rows! {
        Time "idempotency::DedupSettings::with_lease": |t|
            async move { deduplicated(dedup(InFlight::Join).with_lease(t)?).await };
        Time "policy::InFlight::Reject": |t| deduplicated(dedup(InFlight::Reject(t)));
        Time "idempotency::MemoryStore::with_ttl": |t|
            async move { stored(MemoryStore::new().with_ttl(t)?, SECOND).await };
        Time "idempotency::Store::claim": |t| stored(MemoryStore::new(), t);
        Time "policy::Wait::polling": |t| async move { over(Wait::polling(t)).await };
        Time "policy::Wait::notified": |t| async move {
            let (_end, ended) = watch::channel(());
            over(Wait::notified(t, ended)).await
        };
        Time "redb::Options::ttl": |t| in_file(t);
        Time "redis::RedisStore::with_ttl": |t| async move { done(redis()?.with_ttl(t)?).await };
        Time "redis::RedisStore::with_timeout": |t|
            async move { done(redis()?.with_timeout(t)?).await };
    }
}

fn clusters() -> Vec<Row> {
    rows! {
        Time "cluster::Config::heartbeat": |t| gossiped(move |config| config.heartbeat = t);
        Time "cluster::Config::reachable_within": |t|
            gossiped(move |config| config.reachable_within = t);
        Time "cluster::Config::stable_after": |t| gossiped(move |config| config.stable_after = t);
        Number "policy::Phi::threshold": |n| suspected(of!(Phi { threshold: n }));
        Number "policy::Phi::suspect": |n| suspected(of!(Phi { suspect: n }));
        Time "policy::Phi::min_std_deviation": |t| suspected(of!(Phi { min_std_deviation: t }));
        Time "policy::Phi::acceptable_pause": |t| suspected(of!(Phi { acceptable_pause: t }));
        Time "policy::Phi::first_estimate": |t| suspected(of!(Phi { first_estimate: t }));
        Time "cluster::Cluster::leave": |t| left(t);
    }
}

fn reports() -> Vec<Row> {
    rows! {
        Number "observe::Metrics::gauge": |n| async move {
            let metrics = Metrics::new(Methods::unknown());
            metrics.gauge("clocks", &[], move || n)?;
            shown(&metrics)
        };
        Number "observe::Metrics::counter": |n| async move {
            let metrics = Metrics::new(Methods::unknown());
            metrics.counter("clocks", &[], move || n)?;
            shown(&metrics)
        };
        Number "observe::Samples::add": |n| async move {
            let metrics = Metrics::new(Methods::unknown());
            metrics.gauges("clocks", move |samples: &mut Samples| samples.add(&[], n))?;
            shown(&metrics)
        };
        Time "otlp::export_metrics": |t| exported(t, SECOND);
        Time "otlp::export_metrics_over": |t| async move {
            let (metrics, channel) = (Metrics::new(Methods::unknown()), slow_channel().1);
            let exporter = export_metrics_over(&metrics, channel, "clocks", t)?;
            sleep(SECOND).await;
            drop(exporter);
            Ok(())
        };
        Time "otlp::MetricsExporter::flush": |t| exported(SECOND, t);
        Time "otlp::Exporter::flush": |t| async move {
            let (_place, channel) = slow_channel();
            let (_layer, exporter) = export_over(channel, "clocks");
            _ = timeout(SECOND, exporter.flush(t)).await;
            Ok(())
        };
        Time "dashboard::FaultRule::age": |t| written(of!(FaultRule { age: t }));
        Number "dashboard::Spot::phi": |n| written(of!(Spot { phi: n }));
        Number "dashboard::Tile::numbers": |n|
            written(of!(Tile { numbers: vec![("of".into(), n, "")] }));
        Number "dashboard::Tile::spark": |n| written(of!(Tile { spark: n }));
        Number "dashboard::Tile::share": |n| written(of!(Tile { share: Some(n) }));
        Number "dashboard::Tile::gauge": |n| written(of!(Tile { gauge: Some(n) }));
        Number "dashboard::Tile::strip": |n| written(of!(Tile { strip: vec![("of".into(), n)] }));
        Number "dashboard::Tile::heat": |n|
            written(of!(Tile { heat: vec![("of".into(), vec![n])] }));
    }
}

fn clients() -> Vec<Row> {
    rows! {
        Time "deadline::AttemptTimeoutLayer::new": |t| limited_attempt(AttemptTimeoutLayer::new(t));
        Time "deadline::AttemptTimeoutSettings::new": |t|
            limited_attempt(AttemptTimeoutSettings::new(t).layer());
        Time "deadline::AttemptLimit": |t| async move {
            let service = AttemptTimeoutLayer::default().layer(slow());
            let mut request = request();
            request.extensions_mut().insert(AttemptLimit(Some(t)));
            honest(send(&service, request).await)
        };
        Time "deadline::CallDeadlineSettings::with_limit": |t|
            limited_call(CallDeadlineSettings::new().with_limit(t).layer());
        Time "deadline::CallDeadlineLayer::set_timeouts": |t| async move {
            let layer = CallDeadlineLayer::new();
            layer.set_timeouts(PerMethod::from(Some(t)));
            limited_call(layer.clone()).await?;
            layer.set_timeouts(PerMethod::new());
            expect("it is put right", call(&layer.layer(slow())).await == Some(Code::Ok))
        };
        Time "deadline::AttemptTimeoutSettings::with_kind_limit": |t| limited_attempt(
            AttemptTimeoutSettings::default().with_kind_limit(MethodKind::Unary, Some(t)).layer());
        Time "deadline::AttemptTimeoutSettings::with_limits": |t| limited_attempt(
            AttemptTimeoutSettings::default().with_limits(PerMethod::from(Some(t))).layer());
        Time "deadline::AttemptTimeoutSettings::with_silence": |t|
            limited_attempt(AttemptTimeoutSettings::default().with_silence(t).layer());
        Time "deadline::AttemptTimeoutSettings::with_kind_silence": |t| limited_attempt(
            AttemptTimeoutSettings::default().with_kind_silence(MethodKind::Unary, Some(t))
                .layer());
        Time "deadline::AttemptTimeoutSettings::with_silences": |t| limited_attempt(
            AttemptTimeoutSettings::default().with_silences(PerMethod::from(Some(t))).layer());
        Time "deadline::CallDeadlineSettings::with_kind_limit": |t| limited_call(
            CallDeadlineSettings::new().with_kind_limit(MethodKind::Unary, Some(t)).layer());
        Time "deadline::CallDeadlineSettings::with_limits": |t|
            limited_call(CallDeadlineSettings::new().with_limits(PerMethod::from(Some(t))).layer());
        Time "deadline::CallDeadlineSettings::with_silence": |t|
            limited_call(CallDeadlineSettings::new().with_silence(t).layer());
        Time "deadline::CallDeadlineSettings::with_kind_silence": |t| limited_call(
            CallDeadlineSettings::new().with_kind_silence(MethodKind::Unary, Some(t)).layer());
        Time "deadline::CallDeadlineSettings::with_silences": |t| limited_call(
            CallDeadlineSettings::new().with_silences(PerMethod::from(Some(t))).layer());
        Number "retry::RetrySettings::with_throttle": |n|
            async move { retried(retry_settings().with_throttle(n, 0.1)?.layer()).await };
        Number "retry::RetrySettings::with_throttle": |n|
            async move { retried(retry_settings().with_throttle(10.0, n)?.layer()).await };
        Number "retry::RetryLayer::set_throttle": |n| async move {
            let layer = retry();
            layer.set_throttle(Some((n, n)))?;
            retried(layer.clone()).await?;
            layer.set_throttle(None)?;
            retried(layer).await
        };
        Number "policy::Budget::new": |n|
            async move {
                let budget = Budget::new(n, 1)?;
                retried(retry_settings().with_budget(Some(budget)).layer()).await
            };
        Number "policy::Budget::with_per_second": |n| async move {
            let budget = Budget::default().with_per_second(n)?;
            retried(retry_settings().with_budget(Some(budget)).layer()).await
        };
        Time "policy::HedgePolicy::with_delay": |t|
            async move { hedged(HedgePolicy::default().with_delay(t)).await };
        Number "policy::HedgePolicy::with_extra_load": |n|
            async move { hedged(HedgePolicy::default().with_extra_load(n)?).await };
        Number "policy::BreakerPolicy::with_failure_rate": |n|
            async move { broken(breaker().with_failure_rate(n)?).await };
        Time "policy::BreakerPolicy::with_slow_calls": |t|
            async move { broken(breaker().with_slow_calls(t, 0.5)?).await };
        Number "policy::BreakerPolicy::with_slow_calls": |n|
            async move { broken(breaker().with_slow_calls(SECOND, n)?).await };
        Time "policy::BreakerPolicy::with_outage": |t|
            async move { broken(breaker().with_outage(3, t)?).await };
        Time "policy::BreakerPolicy::with_open_for": |t|
            async move { broken(breaker().with_open_for(t, 30 * DAY)?).await };
        Time "policy::BreakerPolicy::with_open_for": |t|
            async move { broken(breaker().with_open_for(SECOND, t)?).await };
        Time "policy::Window::Time": |t|
            windowed(Window::Time(t));
        Time "fallback::Cache::max_age": |t| kept(of!(Cache { max_age: t }));
        Time "config::MethodConfig::timeout": |t| configured(Some(t), None);
        Time "config::RetryPolicy::initial_backoff": |t|
            repeated(ConfigRetry { initial_backoff: t, ..config_retry() });
        Time "config::RetryPolicy::max_backoff": |t|
            repeated(ConfigRetry { max_backoff: t, ..config_retry() });
        Number "config::RetryPolicy::backoff_multiplier": |n|
            repeated(ConfigRetry { backoff_multiplier: n, ..config_retry() });
        Time "config::RetryPolicy::per_attempt_recv_timeout": |t|
            repeated(ConfigRetry { per_attempt_recv_timeout: Some(t), ..config_retry() });
        Time "config::HedgingPolicy::hedging_delay": |t| hedged_by_config(t);
    }
}

/// The whole client and the whole server: what is assigned to a field passes no constructor.
fn facade() -> Vec<Row> {
    rows! {
        Time "cinchona::Settings::deadline": |t| client(move |settings|
            settings.deadline = Some(t));
        Time "cinchona::Settings::with_deadline": |t| client(move |settings|
            *settings = settings.clone().with_deadline(t));
        Time "cinchona::Settings::deadlines": |t| client(move |settings|
            settings.deadlines = PerMethod::from(Some(t)));
        Time "cinchona::Settings::deadlines": |t| client(move |settings|
            settings.deadlines = of_a_method(t));
        Time "cinchona::Settings::with_deadline_of": |t| async move {
            let settings = client_settings();
            client_of(settings.with_deadline_of("calculator.Calculator", "Add", Some(t))?).await
        };
        Time "cinchona::Settings::timeout": |t| client(move |settings| settings.timeout = Some(t));
        Time "cinchona::Settings::with_timeout": |t| client(move |settings|
            *settings = settings.clone().with_timeout(t));
        Time "cinchona::Settings::timeouts": |t| client(move |settings|
            settings.timeouts = PerMethod::from(Some(t)));
        Time "cinchona::Settings::timeouts": |t| client(move |settings|
            settings.timeouts = of_a_method(t));
        Time "cinchona::Settings::with_timeout_of": |t| async move {
            let settings = client_settings();
            client_of(settings.with_timeout_of("calculator.Calculator", "Add", Some(t))?).await
        };
        Number "cinchona::Settings::throttle": |n| client(move |settings| settings.throttle = n);
        Time "cinchona::CallOptions::with_attempt_limit": |t| async move {
            let channel = client_settings().layers()?.around(slow());
            let mut request = request();
            request.extensions_mut().insert(CallOptions::new().with_attempt_limit(t));
            honest(send(&channel, request).await)
        };
        Time "cinchona::Channel::follow": |t| async move {
            let channel = client_settings().layers()?.around(slow());
            _ = timeout(SECOND, channel.follow("no such file", t)).await;
            calls(&channel).await
        };
        Time "cinchona::Layers::follow": |t| async move {
            _ = timeout(SECOND, client_settings().layers()?.follow("no such file", t)).await;
            Ok(())
        };
        Time "cinchona::Settings::limit": |t| server(move |settings| settings.limit = Some(t));
        Time "cinchona::Settings::with_limit": |t| server(move |settings|
            *settings = settings.clone().with_limit(t));
        Time "cinchona::Settings::grace": |t| server(move |settings| settings.grace = t);
        Time "cinchona::Settings::with_grace": |t| server(move |settings|
            *settings = settings.clone().with_grace(t));
    }
}
