//! The events that a test's thread logs.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};
use tracing::{
    Dispatch, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
    subscriber::DefaultGuard,
};
use tracing_subscriber::{
    filter::dynamic_filter_fn,
    layer::{Context, Layer, SubscriberExt},
    registry,
    registry::LookupSpan,
};

/// Records the `tracing` events of the current thread until dropped.
///
/// On a current-thread runtime that is the whole test, including spawned tasks.
///
/// ```
/// let logs = cinchona_testkit::Logs::of("calculator");
/// tracing::info!(target: "calculator::client", { rpc.method = "Add", attempt = 2 }, "retried");
/// tracing::info!(target: "h2", "not of interest");
///
/// let [event] = &logs.events()[..] else { panic!("one event") };
/// assert_eq!(event.message, "retried");
/// assert_eq!(event.fields["rpc.method"], "Add");
/// assert_eq!(event.fields["attempt"], "2");
/// ```
#[derive(Debug)]
pub struct Logs {
    events: Arc<Mutex<Vec<Event>>>,
    _default: DefaultGuard,
}

/// One event, its values as strings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its level.
    pub level: Level,
    /// Its target: a module path, unless the event sets another.
    pub target: String,
    /// Its message, empty if it has none.
    pub message: String,
    /// Its other fields by name, and those of the spans around it.
    pub fields: BTreeMap<String, String>,
}

struct Recorder {
    prefix: String,
    events: Arc<Mutex<Vec<Event>>>,
}

struct Fields<'a>(&'a mut Event);

// === impl Logs ===

impl Logs {
    /// Records every event of every level, including the many of h2 and hyper.
    pub fn capture() -> Self {
        Self::of("")
    }

    /// Records the events of every level whose target begins with `prefix`.
    pub fn of(prefix: &str) -> Self {
        let events = Arc::default();
        let recorder = Recorder { prefix: prefix.to_owned(), events: Arc::clone(&events) };
        let subscriber = registry().with(recorder);
        Self { events, _default: subscribe(subscriber) }
    }

    /// The events so far.
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Sends the events of the current thread to `subscriber` until the guard is dropped, whichever
/// thread of the process logs first.
///
/// As [`tracing::subscriber::set_default`], which does not suffice if tests share a process: with
/// only one subscriber, `tracing` asks the first thread that reaches an event whether it is
/// enabled, and caches that answer for every thread.
pub fn subscribe(subscriber: impl Into<Dispatch>) -> DefaultGuard {
    /// A subscriber that wants nothing, but is asked each time; as the second one, it makes
    /// `tracing` ask for each thread.
    static SECOND: LazyLock<Dispatch> =
        LazyLock::new(|| registry().with(dynamic_filter_fn(|_, _| false)).into());
    LazyLock::force(&SECOND);
    tracing::dispatcher::set_default(&subscriber.into())
}

// === impl Recorder ===

impl<S> Layer<S> for Recorder
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn enabled(&self, metadata: &Metadata<'_>, _context: Context<'_, S>) -> bool {
        metadata.target().starts_with(&self.prefix)
    }

    fn on_new_span(&self, values: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut event = Event::of(values.metadata());
        values.record(&mut Fields(&mut event));
        span.extensions_mut().insert(event.fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut event = Event::of(span.metadata());
        values.record(&mut Fields(&mut event));
        if let Some(fields) = span.extensions_mut().get_mut::<BTreeMap<String, String>>() {
            fields.extend(event.fields);
        }
    }

    fn on_event(&self, event: &tracing::Event<'_>, context: Context<'_, S>) {
        let mut recorded = Event::of(event.metadata());
        for span in context.event_scope(event).into_iter().flatten() {
            let known = span.extensions().get::<BTreeMap<_, _>>().cloned();
            recorded.fields.extend(known.unwrap_or_default());
        }
        event.record(&mut Fields(&mut recorded));
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(recorded);
    }
}

// === impl Event ===

impl Event {
    fn of(metadata: &Metadata<'_>) -> Self {
        Self {
            level: *metadata.level(),
            target: metadata.target().to_owned(),
            message: String::new(),
            fields: BTreeMap::new(),
        }
    }
}

// === impl Fields ===

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.0.message),
            name => drop(self.0.fields.insert(name.to_owned(), value.to_owned())),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_event_of_a_spawned_task_is_recorded_with_its_fields() {
        let logs = Logs::of(module_path!());
        let task =
            async { tracing::debug!(state = %"open", error = ?Some(1), "tripped after {}", 3) };
        tokio::spawn(task).await.unwrap();
        tracing::warn!(target: "elsewhere", "not ours");
        let fields = [("error", "Some(1)"), ("state", "open")];
        let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(
            logs.events(),
            [Event {
                level: Level::DEBUG,
                target: module_path!().to_owned(),
                message: "tripped after 3".to_owned(),
                fields: fields.into(),
            }]
        );
    }

    #[test]
    fn an_event_that_another_thread_reports_first_is_recorded() {
        fn report() {
            tracing::info!("by two");
        }
        let logs = Logs::of(module_path!());
        std::thread::spawn(report).join().unwrap();
        report();
        assert_eq!(logs.events().len(), 1);
    }

    #[test]
    fn nothing_is_recorded_once_the_logs_are_dropped() {
        let outer = Logs::of(module_path!());
        drop(Logs::of(module_path!()));
        tracing::info!("kept by the outer");
        assert_eq!(outer.events().len(), 1);
    }
}
