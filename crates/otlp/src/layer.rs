//! The layer of a `tracing` subscriber that turns `tracing`'s spans into OTLP's.

use crate::{
    attributes::{Ids, OfEvent, OfSpan, text},
    clock::Clock,
    queue::Queue,
};
use cinchona_core::Rng;
use cinchona_observe::{Serving, TraceContext};
use opentelemetry_proto::tonic::trace::v1::{Span, span};
use std::{cell::RefCell, sync::Arc};
use tracing::{
    Event, Metadata, Subscriber,
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    layer::{Context, Layer},
    registry::LookupSpan,
};

/// The most events of a span that are sent: OpenTelemetry's default.
const EVENTS: usize = 128;

thread_local! {
    /// The spans that this thread is in, each with the context before it.
    static ENTERED: RefCell<Vec<(Id, Serving)>> = const { RefCell::new(Vec::new()) };
}

/// Sends all spans to an OpenTelemetry collector: see [`export`](crate::export).
#[derive(Debug)]
pub struct OtlpLayer {
    queue: Queue,
    rng: Rng,
    clock: Clock,
}

/// A span that has not ended.
struct Open {
    span: Span,
    place: Arc<TraceContext>,
    is_sampled: bool,
}

// === impl OtlpLayer ===

impl OtlpLayer {
    pub(crate) fn new(queue: Queue) -> Self {
        Self { queue, rng: Rng::from_os(), clock: Clock::new() }
    }

    /// The trace context of a span without one: under its parent, or at the beginning of a trace.
    fn place(&self, parent: Option<&TraceContext>) -> TraceContext {
        match parent {
            Some(parent) => parent.child(&self.rng),
            None => TraceContext::root(&self.rng),
        }
    }
}

impl<S> Layer<S> for OtlpLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(of) = context.span(id).filter(|of| is_exported(of.metadata())) else { return };
        let mut span = Span {
            name: of.name().to_owned(),
            kind: span::SpanKind::Internal.into(),
            start_time_unix_nano: self.clock.now(),
            // W3C's flag of a trace that is recorded.
            flags: 1,
            ..Span::default()
        };
        let mut ids = Ids::default();
        // An application may use fields of these names, too.
        let is_ours = of.metadata().target() == "cinchona_observe";
        let own = is_ours.then_some(&mut ids);
        attributes.record(&mut OfSpan { span: &mut span, ids: own });
        let around = of.parent().and_then(|around| {
            around.extensions().get::<Open>().map(|open| TraceContext::clone(&open.place))
        });
        // Otherwise the call that this task is serving.
        let parent = around.or_else(TraceContext::current);
        let place = ids.place().unwrap_or_else(|| {
            ids.parent = parent.as_ref().map(TraceContext::span);
            self.place(parent.as_ref())
        });
        span.parent_span_id = ids.parent.map_or(Vec::new(), |id| id.to_be_bytes().to_vec());
        let is_sampled = match &parent {
            Some(parent) if parent.trace() == place.trace() => parent.is_sampled(),
            _ => place.is_sampled(),
        };
        of.extensions_mut().insert(Open { span, place: Arc::new(place), is_sampled });
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(of) = context.span(id) else { return };
        if let Some(Open { span, .. }) = of.extensions_mut().get_mut::<Open>() {
            values.record(&mut OfSpan { span, ids: None });
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let Some(of) = context.event_span(event) else { return };
        let mut extensions = of.extensions_mut();
        let Some(Open { span, .. }) = extensions.get_mut::<Open>() else { return };
        if span.events.len() == EVENTS {
            span.dropped_events_count += 1;
            return;
        }
        let mut fields = OfEvent::default();
        event.record(&mut fields);
        let OfEvent { message: name, mut attributes } = fields;
        attributes.push(text("level", event.metadata().level().as_str()));
        let time_unix_nano = self.clock.now();
        span.events.push(span::Event { time_unix_nano, name, attributes, ..Default::default() });
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        let Some(of) = context.span(id) else { return };
        let mut extensions = of.extensions_mut();
        let Some(Open { place, is_sampled, .. }) = extensions.get_mut::<Open>() else { return };
        match TraceContext::current() {
            // The layer that made the span has already set the status, with more detail.
            Some(current) if current.span() == place.span() => {
                *is_sampled = current.is_sampled();
                *place = Arc::new(current);
            }
            _ => ENTERED.with_borrow_mut(|entered| entered.push((id.clone(), place.enter()))),
        }
    }

    fn on_exit(&self, id: &Id, _: Context<'_, S>) {
        let left = ENTERED.with_borrow_mut(|entered| {
            let at = entered.iter().rposition(|(other, _)| other == id)?;
            Some(entered.remove(at))
        });
        drop(left);
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(of) = context.span(&id) else { return };
        let Some(Open { mut span, place, is_sampled: true }) = of.extensions_mut().remove::<Open>()
        else {
            return;
        };
        span.trace_id = place.trace().to_be_bytes().to_vec();
        span.span_id = place.span().to_be_bytes().to_vec();
        span.end_time_unix_nano = self.clock.now();
        self.queue.push(span);
    }
}

/// Spans of the transport that carries the export are left out, or it would report itself.
fn is_exported(of: &Metadata<'_>) -> bool {
    let library = of.target().split("::").next().unwrap_or_default();
    !matches!(library, "h2" | "hyper" | "hyper_util")
}

// === impl Ids ===

impl Ids {
    /// Whether it is a span of `cinchona-observe`.
    fn place(&self) -> Option<TraceContext> {
        TraceContext::new(self.trace?, self.span?)
    }
}
