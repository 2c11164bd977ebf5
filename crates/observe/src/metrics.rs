//! The registry: what is counted, by whom, and for whom.

use crate::{
    collect::{self, Metric},
    known::Known,
    names,
    registry::{Client, Registry, lock},
    render,
    samples::Samples,
    series::Table,
    source::{self, Source},
};
use cinchona_core::{Invalid, Methods, Observable};
use std::sync::{Arc, Mutex, OnceLock};

/// What is counted in a process; its clones count together.
///
/// *Why:* gRPC has names, units and buckets for what its clients and servers do ([gRFC A66],
/// [gRFC A96]), and dashboards that know them; tonic has no numbers at all.
///
/// *Rule:* the layers of this crate take their handles from here, once for each method. All other
/// layers are [registered](Self::register), and so is what else a program counts
/// ([`gauge`](Self::gauge), [`counter`](Self::counter), and [`gauges`](Self::gauges) for what comes
/// and goes); they are asked when somebody looks. Of what panics then, nothing is shown. No series
/// is shown twice: of two samples with the same name and labels, that of whoever was registered
/// last stands.
///
/// *Labels:* `grpc.method` is `package.Service/Method` for the methods that are listed in the
/// .proto or that generated client code names, and `other` for all else, lest a stranger fill the
/// memory with names; `grpc.target` is what the client layer was made with; `grpc.status` is such
/// as `DEADLINE_EXCEEDED`.
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
/// and forgets no method. All of gRPC's metrics are on, A96's too, which gRPC itself still has off
/// by default.
///
/// [gRFC A66]: https://github.com/grpc/proposal/blob/master/A66-otel-stats.md
/// [gRFC A96]: https://github.com/grpc/proposal/blob/master/A96-retry-otel-stats.md
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Registry>);

// === impl Metrics ===

impl Metrics {
    /// Counts the methods that `methods` lists by their names, and all others together; on the
    /// client also those that generated code names.
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

    /// Counts also those methods by name that are not listed but of whose paths `filter` is true
    /// (gRFC A66 asks for such a way); the first filter that is set stays.
    ///
    /// A caller that makes up paths which pass can fill the memory.
    #[must_use]
    pub fn with_unlisted(self, filter: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        // A second filter is not used, as it says.
        _ = self.0.known.unlisted.set(Box::new(filter));
        self
    }

    /// Shows all that a layer counts and measures ([`Observable::INSTRUMENTS`]), with these labels
    /// beside those that it has itself; its own stand where the names are the same.
    ///
    /// What was registered under the same name with the same labels is replaced: so a layer that
    /// takes the place of another is registered again, and of two that are both there each has
    /// labels of its own, such as `("grpc.target", "dns:///orders")` for a client. What has gone
    /// ([`Observable::finder`]) is forgotten: whoever sends the numbers once more at the end does
    /// so before it drops a balancer or leaves a cluster.
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
    /// When one of the names is none, is taken by gRPC, or is known with another kind or unit, or a
    /// label has no name or that of another; then nothing has changed.
    pub fn register<T: Observable>(&self, of: &T, labels: &[(&str, &str)]) -> Result<(), Invalid> {
        self.add(source::of(of, labels)?)
    }

    /// Shows what `value` says whenever somebody looks; a sample of the same name and labels is
    /// replaced.
    ///
    /// # Errors
    /// When a name is none, is taken by gRPC, or is that of a counter.
    pub fn gauge(
        &self,
        name: &str,
        labels: &[(&str, &str)],
        value: impl Fn() -> f64 + Send + Sync + 'static,
    ) -> Result<(), Invalid> {
        self.add(vec![Source::one(name, false, labels, value)?])
    }

    /// Shows what `value` says whenever somebody looks, which never falls; in Prometheus its name
    /// ends in `_total`.
    ///
    /// # Errors
    /// When a name is none, is taken by gRPC, or is that of a gauge.
    pub fn counter(
        &self,
        name: &str,
        labels: &[(&str, &str)],
        value: impl Fn() -> f64 + Send + Sync + 'static,
    ) -> Result<(), Invalid> {
        self.add(vec![Source::one(name, true, labels, value)?])
    }

    /// As [`gauge`](Self::gauge), for things that come and go: `ask` is asked for all of them.
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

    /// As [`counter`](Self::counter), for things that come and go.
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

    /// Says in a sentence what a registered metric is: `# HELP` in Prometheus's text, the
    /// description in OpenTelemetry's. What was said last stays; what is never registered is not
    /// shown.
    pub fn describe(&self, name: &str, help: &'static str) {
        lock(&self.0.help).insert(name.to_owned(), help);
    }

    /// All of them, or none where one cannot be.
    fn add(&self, sources: Vec<Source>) -> Result<(), Invalid> {
        source::add(&mut lock(&self.0.others), sources)
    }

    /// The names of all metrics that there are, as gRPC's, with dots: gRPC's own, and those that
    /// were registered, in order.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = names::ALL.iter().map(|own| own.name.to_owned()).collect();
        names.extend(lock(&self.0.others).iter().map(|other| other.name.clone()));
        names.sort();
        names.dedup();
        names
    }

    /// All of it in Prometheus's text format 0.0.4, under the names that OpenTelemetry's exporter
    /// gives them: `grpc_client_call_duration_seconds`, `grpc_server_call_started_total`.
    pub fn render(&self) -> String {
        render::render(&self.collect())
    }

    /// All of it as data, by name: what is not in Prometheus's text is made of this.
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
