//! The fields of spans and events, as OTLP's attributes.

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value::Value},
    trace::v1::{Span, Status, span::SpanKind, status::StatusCode},
};
use std::fmt;
use tracing::field::{Field, Visit};

/// The ids of a span of `cinchona-observe`, which are in its fields.
#[derive(Debug, Default)]
pub(crate) struct Ids {
    pub(crate) trace: Option<u128>,
    pub(crate) span: Option<u64>,
    pub(crate) parent: Option<u64>,
}

/// Reads the fields of a span into it; some have their own meaning.
pub(crate) struct OfSpan<'a> {
    pub(crate) span: &'a mut Span,
    /// Receives the fields that are named like ids, if wanted.
    pub(crate) ids: Option<&'a mut Ids>,
}

/// Reads the fields of an event.
#[derive(Default)]
pub(crate) struct OfEvent {
    pub(crate) message: String,
    pub(crate) attributes: Vec<KeyValue>,
}

/// An attribute.
pub(crate) fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

/// The latest value of a key.
fn put(attributes: &mut Vec<KeyValue>, new: KeyValue) {
    attributes.retain(|old| old.key != new.key);
    attributes.push(new);
}

// === impl OfSpan ===

impl OfSpan<'_> {
    /// Whether the field has its own meaning, and is no attribute.
    fn is_known(&mut self, name: &str, value: &str) -> bool {
        match name {
            "otel.name" => value.clone_into(&mut self.span.name),
            "otel.kind" => {
                let kind = match value {
                    "client" => SpanKind::Client,
                    "server" => SpanKind::Server,
                    "producer" => SpanKind::Producer,
                    "consumer" => SpanKind::Consumer,
                    _ => SpanKind::Internal,
                };
                self.span.kind = kind.into();
            }
            "otel.status_code" => {
                let is_error = value.eq_ignore_ascii_case("error");
                let code = if is_error { StatusCode::Error } else { StatusCode::Ok };
                self.span.status = Some(Status { code: code.into(), ..Status::default() });
            }
            _ => return self.is_id(name, value),
        }
        true
    }

    fn is_id(&mut self, name: &str, value: &str) -> bool {
        let Some(ids) = &mut self.ids else { return false };
        match name {
            "trace_id" => ids.trace = u128::from_str_radix(value, 16).ok(),
            "span_id" => ids.span = u64::from_str_radix(value, 16).ok(),
            "parent_id" => ids.parent = u64::from_str_radix(value, 16).ok(),
            _ => return false,
        }
        true
    }

    fn put(&mut self, field: &Field, value: Value) {
        put(&mut self.span.attributes, attribute(field.name(), value));
    }
}

impl Visit for OfSpan<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if !self.is_known(field.name(), value) {
            self.put(field, Value::StringValue(value.to_owned()));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, Value::IntValue(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        match i64::try_from(value) {
            Ok(value) => self.put(field, Value::IntValue(value)),
            Err(_) => self.put(field, Value::StringValue(value.to_string())),
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, Value::DoubleValue(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Value::BoolValue(value));
    }
}

// === impl OfEvent ===

impl Visit for OfEvent {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            name => put(&mut self.attributes, text(name, value)),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}
