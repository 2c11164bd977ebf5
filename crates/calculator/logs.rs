//! The telemetry of the programs: a log on stderr, and spans and metrics for a collector.

mod fields;

use cinchona::{
    core::{Invalid, Secret},
    observe::Metrics,
    otlp::{Exporter, MetricsExporter, OtlpLayer, export, export_metrics},
};
use clap::{Args, ValueEnum};
use fields::Fields;
use std::{
    env,
    io::{self, IsTerminal},
    sync::OnceLock,
    time::Duration,
};
use tonic::Code;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{LevelFilter, Targets, filter_fn},
    fmt,
    layer::{Filter, SubscriberExt},
    registry::LookupSpan,
    util::SubscriberInitExt,
};

/// The format of the log, and the collector.
#[derive(Debug, Args)]
#[command(next_help_heading = "Telemetry")]
pub struct Logs {
    /// How the log is written to stderr: for people, or a JSON object on each line
    #[arg(long, global = true, value_enum, default_value = "pretty", value_name = "FORMAT")]
    log: Format,

    /// Send the spans of all calls, and each minute all metrics, to this OpenTelemetry collector,
    /// by OTLP over gRPC, such as http://127.0.0.1:4317
    #[arg(long, global = true, value_name = "URL")]
    otlp: Option<Secret>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Pretty,
    Json,
}

/// The telemetry of a program, of which some is still to be sent.
#[derive(Debug)]
#[must_use = "what is not flushed is lost"]
pub struct Telemetry {
    service: String,
    /// The address of the collector, and the exporter of spans.
    to: Option<(Secret, Exporter)>,
    metrics: OnceLock<MetricsExporter>,
}

/// How long a program waits for the collector before it exits.
const PATIENCE: Duration = Duration::from_secs(3);

/// The target of the spans of calls.
const CALLS: &str = "cinchona_observe";

/// How often metrics are sent.
const EACH: Duration = Duration::from_secs(60);

// === impl Logs ===

impl Logs {
    /// Begins to log, as `service`. `RUST_LOG` sets the level of the lines (default `info`); they
    /// name the call that they belong to where that is `cinchona_observe=debug`, or there is a
    /// collector, which gets the spans from `info` on. Else calls have no spans, which cost.
    ///
    /// # Errors
    /// When the collector's address is none.
    ///
    /// # Panics
    /// Outside a tokio runtime, and where another has begun before.
    pub fn begin(&self, service: &str) -> Result<Telemetry, Invalid> {
        let exported = self.otlp.as_ref().map(|to| export(to.expose(), service)).transpose()?;
        let (spans, exporter) = exported.unzip();
        let levels = env::var(EnvFilter::DEFAULT_ENV).unwrap_or_else(|_| "info".into());
        let has_spans = levels.is_empty() || levels.contains(['[', '{']);
        match levels.parse::<Targets>() {
            // Costs nothing when a span is entered or left.
            Ok(levels) if !has_spans => {
                let names_calls = levels.would_enable(CALLS, &Level::DEBUG);
                self.subscribe(levels, names_calls, spans);
            }
            _ => {
                let levels = EnvFilter::try_new(levels).unwrap_or_else(|_| "info".into());
                self.subscribe(levels, true, spans);
            }
        }
        let to = self.otlp.clone().zip(exporter);
        Ok(Telemetry { service: service.to_owned(), to, metrics: OnceLock::new() })
    }

    fn subscribe<F>(&self, levels: F, names_calls: bool, spans: Option<OtlpLayer>)
    where
        F: Layer<Registry> + Filter<Registry> + Send + Sync + 'static,
    {
        match spans {
            Some(spans) => {
                let lines = self.log.lines().with_filter(levels);
                let spans = spans.with_filter(LevelFilter::INFO);
                tracing_subscriber::registry().with(lines).with(spans).init();
            }
            // One filter for all costs each call less.
            None => {
                let of_calls = move |own: &Metadata<'_>| own.is_span() && own.target() == CALLS;
                let spans = filter_fn(move |own| names_calls || !of_calls(own));
                tracing_subscriber::registry()
                    .with(levels)
                    .with(spans)
                    .with(self.log.lines())
                    .init();
            }
        }
    }
}

// === impl Format ===

impl Format {
    fn lines<S>(self) -> Box<dyn Layer<S> + Send + Sync>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let lines = fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
        match self {
            Self::Pretty => lines.fmt_fields(Fields).boxed(),
            Self::Json => lines.json().boxed(),
        }
    }
}

// === impl Telemetry ===

impl Telemetry {
    /// Sends `metrics`, too, if there is a collector.
    ///
    /// # Errors
    /// When the collector's address is none.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn send(&self, metrics: &Metrics) -> Result<(), Invalid> {
        if let Some((to, _)) = &self.to {
            let exporter = export_metrics(metrics, to.expose(), &self.service, EACH)?;
            // A program has them in one place.
            _ = self.metrics.set(exporter);
        }
        Ok(())
    }

    /// Sends what is left before the program exits: at most 3 s each for spans and for metrics.
    pub async fn flush(self) {
        let Some((_, spans)) = self.to else { return };
        if let Err(why) = spans.flush(PATIENCE).await {
            let (lost, code, why) = (spans.lost(), why.code(), why.message());
            tracing::warn!(lost, ?code, why, "the collector did not take all spans");
        }
        let Some(metrics) = self.metrics.get() else { return };
        match metrics.flush(PATIENCE).await {
            Ok(()) => {}
            Err(why) if why.code() == Code::Unimplemented => {
                tracing::debug!("the collector is one for spans alone, and takes no metrics")
            }
            Err(why) => {
                let (code, why) = (why.code(), why.message());
                tracing::warn!(?code, why, "the collector did not take the metrics");
            }
        }
    }
}
