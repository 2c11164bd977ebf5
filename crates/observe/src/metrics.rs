//! The registry of all metrics.

use crate::{
    collect,
    known::Known,
    metric::Metric,
    names,
    owner::Owner,
    registry::{Client, Registry, lock},
    render,
    samples::Samples,
    series::Table,
    source::{self, Source},
    sources::APPLICATION,
};
use cinchona_core::{Invalid, Methods, Observable};
use std::sync::{Arc, Mutex, OnceLock};

/// The metrics of a process; clones share them.
///
/// *Why:* gRPC defines names, units and buckets for its clients and servers ([gRFC A66], [gRFC
/// A96]), and dashboards know them; tonic has no metrics at all.
///
/// *Rule:* the layers of this crate take their handles from here, once for each method. All other
/// layers are [registered](Self::register), and so are the application's numbers
/// ([`gauge`](Self::gauge), [`counter`](Self::counter), and [`gauges`](Self::gauges) for dynamic
/// sets); they are read on demand. A closure that panics yields no sample. No series is shown
/// twice: of two samples with the same name and labels, the one registered last is shown, and those
/// of several [owners](Self::owner) are added up.
///
/// *Labels:* `grpc.method` is `package.Service/Method` for the methods that are listed in the
/// .proto or that generated client code names, and `other` for all others, so that clients cannot
/// fill the memory with names; `grpc.target` is the target of the client layer; `grpc.status` is
/// such as `DEADLINE_EXCEEDED`.
///
/// ```
/// use cinchona_core::Methods;
/// use cinchona_observe::Metrics;
///
/// let metrics = Metrics::new(Methods::unknown());
/// metrics.gauge("cinchona.throttle.tokens", &[("client", "a \"b\"")], || 7.5)?;
/// metrics.describe("cinchona.throttle.tokens", "How many tokens the throttle has left.");
/// let text = metrics.render();
/// assert!(text.contains("cinchona_throttle_tokens{client=\"a \\\"b\\\"\"} 7.5\n"));
/// # Ok::<_, cinchona_core::Invalid>(())
/// ```
///
/// *What it does not do:* it serves nothing (put [`render`](Self::render) behind an HTTP server),
/// and forgets no method. All of gRPC's metrics are on, including those of A96, which are off by
/// default in gRPC itself.
///
/// [gRFC A66]: https://github.com/grpc/proposal/blob/master/A66-otel-stats.md
/// [gRFC A96]: https://github.com/grpc/proposal/blob/master/A96-retry-otel-stats.md
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Registry>);

// === impl Metrics ===

impl Metrics {
    /// Counts the methods in `methods` by their names, and all others together; on the client also
    /// those that generated code names.
    pub fn new(methods: Methods) -> Self {
        let streams = methods.unsafe_paths().map(Into::into).collect();
        Self(Arc::new(Registry {
            known: Arc::new(Known { methods, streams, unlisted: OnceLock::new() }),
            clients: Mutex::default(),
            server: OnceLock::new(),
            others: Mutex::default(),
            help: Mutex::default(),
        }))
    }

    /// Also counts unlisted methods by name if `filter` is true for their paths (gRFC A66 requires
    /// such a way); the first filter that is set stays.
    ///
    /// A caller that makes up paths which pass can fill the memory.
    #[must_use]
    pub fn with_unlisted(self, filter: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        // Setting a second filter has no effect, as documented.
        _ = self.0.known.unlisted.set(Box::new(filter));
        self
    }

    /// An owner of what it registers: a client, or a server. What several owners register under the
    /// same names and labels is added up, and ends with them.
    pub fn owner(&self) -> Owner {
        Owner::new(&self.0)
    }

    /// Shows all metrics of a layer ([`Observable::INSTRUMENTS`]), with these labels in addition to
    /// its own; its own take precedence if the names are the same.
    ///
    /// The application registers, which is one owner, and never ends: a registration with the same
    /// name and labels is replaced. So register a layer again when it replaces another; and what
    /// comes and goes, or has the labels of others, with an [`owner`](Self::owner) of its own. Of a
    /// dropped layer ([`Observable::finder`]) the gauges are removed, and the counters stay as they
    /// were last read.
    ///
    /// ```
    /// use cinchona_core::Methods;
    /// use cinchona_observe::Metrics;
    /// use cinchona_retry::{RetryLayer, RetryPolicy};
    ///
    /// let metrics = Metrics::new(Methods::unknown());
    /// let retry = RetryLayer::new(RetryPolicy::default(), Methods::unknown());
    /// metrics.register(&retry, &[("grpc.target", "dns:///orders")])?;
    /// let tokens = "cinchona_retry_budget_tokens{grpc_target=\"dns:///orders\"} 100\n";
    /// assert!(metrics.render().contains(tokens));
    /// # Ok::<_, cinchona_core::Invalid>(())
    /// ```
    ///
    /// # Errors
    /// When one of the names is invalid, is reserved for gRPC, or is registered with another kind
    /// or unit, or a label has an invalid or duplicate name; then nothing is changed.
    pub fn register<T: Observable>(&self, of: &T, labels: &[(&str, &str)]) -> Result<(), Invalid> {
        self.add(source::of(of, labels)?)
    }

    /// Shows the result of `value` on demand; a sample of the same name and labels is replaced.
    ///
    /// # Errors
    /// When a name is invalid, is reserved for gRPC, or is that of a counter.
    pub fn gauge(
        &self,
        name: &str,
        labels: &[(&str, &str)],
        value: impl Fn() -> f64 + Send + Sync + 'static,
    ) -> Result<(), Invalid> {
        self.add(vec![Source::one(name, false, labels, value)?])
    }

    /// Shows the result of `value` on demand, which must never fall; in Prometheus its name ends in
    /// `_total`.
    ///
    /// # Errors
    /// When a name is invalid, is reserved for gRPC, or is that of a gauge.
    pub fn counter(
        &self,
        name: &str,
        labels: &[(&str, &str)],
        value: impl Fn() -> f64 + Send + Sync + 'static,
    ) -> Result<(), Invalid> {
        self.add(vec![Source::one(name, true, labels, value)?])
    }

    /// As [`gauge`](Self::gauge), for dynamic sets: `ask` adds all their samples.
    ///
    /// ```
    /// # let metrics = cinchona_observe::Metrics::new(cinchona_core::Methods::unknown());
    /// let circuits = || [("a:50051", 0.0), ("b:50051", 2.0)];
    /// metrics.gauges("cinchona.breaker.state", move |samples| {
    ///     for (name, state) in circuits() {
    ///         samples.add(&[("circuit", name)], state);
    ///     }
    /// })?;
    /// assert!(metrics.render().contains("cinchona_breaker_state{circuit=\"b:50051\"} 2\n"));
    /// # Ok::<_, cinchona_core::Invalid>(())
    /// ```
    ///
    /// # Errors
    /// As [`gauge`](Self::gauge).
    pub fn gauges(
        &self,
        name: &str,
        ask: impl Fn(&mut Samples) + Send + Sync + 'static,
    ) -> Result<(), Invalid> {
        self.add(vec![Source::each(name, false, ask)?])
    }

    /// As [`counter`](Self::counter), for dynamic sets.
    ///
    /// # Errors
    /// As [`counter`](Self::counter).
    pub fn counters(
        &self,
        name: &str,
        ask: impl Fn(&mut Samples) + Send + Sync + 'static,
    ) -> Result<(), Invalid> {
        self.add(vec![Source::each(name, true, ask)?])
    }

    /// Describes a registered metric in a sentence: `# HELP` in Prometheus's text, the description
    /// in OpenTelemetry's. The last description stays; one of an unregistered metric is not shown.
    pub fn describe(&self, name: &str, help: &'static str) {
        lock(&self.0.help).insert(name.to_owned(), help);
    }

    /// All of them, or none if one is refused.
    fn add(&self, sources: Vec<Source>) -> Result<(), Invalid> {
        self.0.add(sources, APPLICATION)
    }

    /// The names of all metrics, in gRPC's form, with dots: gRPC's own, and the registered ones, in
    /// order.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = names::ALL.iter().map(|own| own.name.to_owned()).collect();
        let (others, past) = self.0.others();
        names.extend(others.into_iter().map(|other| other.name).chain(past.into_keys()));
        names.sort();
        names.dedup();
        names
    }

    /// All metrics in Prometheus's text format 0.0.4, under the names of OpenTelemetry's exporter:
    /// `grpc_client_call_duration_seconds`, `grpc_server_call_started_total`.
    pub fn render(&self) -> String {
        render::render(&self.collect())
    }

    /// All metrics as data, by name, for other formats than Prometheus's text.
    ///
    /// ```
    /// use cinchona_core::Methods;
    /// use cinchona_observe::{Metrics, Value};
    ///
    /// let metrics = Metrics::new(Methods::unknown());
    /// metrics.counter("cinchona.shed.turned_away", &[], || 3.0)?;
    /// let [only] = &metrics.collect()[..] else { panic!("there is one") };
    /// assert_eq!(only.name, "cinchona.shed.turned_away");
    /// assert_eq!(only.series, [(Vec::new(), Value::Counter(3.0))]);
    /// # Ok::<_, cinchona_core::Invalid>(())
    /// ```
    pub fn collect(&self) -> Vec<Metric> {
        collect::collect(&self.0)
    }

    pub(crate) fn client(&self, target: &str) -> Arc<Table> {
        let mut clients = lock(&self.0.clients);
        if let Some(found) = clients.iter().find(|client| &*client.target == target) {
            return found.methods.clone();
        }
        let methods = Arc::new(Table::new(&self.0.known));
        clients.push(Arc::new(Client { target: target.into(), methods: methods.clone() }));
        methods
    }

    pub(crate) fn server(&self) -> Arc<Table> {
        self.0.server.get_or_init(|| Arc::new(Table::new(&self.0.known))).clone()
    }
}
