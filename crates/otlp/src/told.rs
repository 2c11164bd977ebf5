//! What a span says of itself, as OTLP has it.

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value::Value},
    trace::v1::{Span, Status, span::SpanKind, status::StatusCode},
};
use std::fmt;
use tracing::field::{Field, Visit};

/// The ids of a span of `cinchona-observe`, which are in its fields.
#[derive(Debug, Default)]
pub(crate) struct Ids {
    pub(crate) trace: Option<Vec<u8>>,
    pub(crate) span: Option<Vec<u8>>,
    pub(crate) parent: Option<Vec<u8>>,
}

/// Reads the fields of a span into it, some of which have a meaning of their own.
pub(crate) struct OfSpan<'a> {
    pub(crate) span: &'a mut Span,
    pub(crate) ids: &'a mut Ids,
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

/// The bytes of so many hexadecimal digits.
fn bytes(digits: &str, count: usize) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let all: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
    all.filter(|_| digits.len() == count)
}

// === impl OfSpan ===

impl OfSpan<'_> {
    /// Whether the field says something that is no attribute.
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
            "trace_id" => self.ids.trace = bytes(value, 32),
            "span_id" => self.ids.span = bytes(value, 16),
            "parent_id" => self.ids.parent = bytes(value, 16),
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
