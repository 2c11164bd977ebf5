//! The fields of a line for people.

use std::{
    cell::Cell,
    fmt::{self, Debug, Write},
    mem,
};
use tracing::{
    field::{Field, Visit},
    span::Record,
};
use tracing_subscriber::{
    field::RecordFields,
    fmt::{FormatFields, FormattedFields, format::Writer},
};

/// Writes fields as `name="value"`, without styles, and leaves out [what is for a
/// collector](is_for_collector): the fields of every call's span are written, whether or not there
/// is a line that shows them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields;

/// Collects fields in a buffer: what grows bit by bit is allocated again and again.
struct Visitor {
    text: String,
    is_first: bool,
}

/// How large a buffer is kept, in bytes.
const KEPT: usize = 4096;

thread_local! {
    static BUFFER: Cell<String> = const { Cell::new(String::new()) };
}

/// Fields of a span by which OpenTelemetry knows it; a line has the level, the method and the trace
/// in others.
fn is_for_collector(name: &str) -> bool {
    name.starts_with("otel.")
        || matches!(name, "rpc.system" | "rpc.grpc.status_code" | "span_id" | "parent_id")
}

/// Hands `write` the text of `fields`, with a space before each but the first.
fn formatted<T>(fields: impl RecordFields, is_first: bool, write: impl FnOnce(&str) -> T) -> T {
    // A thread that ends has none any more.
    let text = BUFFER.try_with(Cell::take).unwrap_or_default();
    let mut visitor = Visitor { text, is_first };
    fields.record(&mut visitor);
    let Visitor { mut text, .. } = visitor;
    let written = write(&text);
    if text.capacity() <= KEPT {
        text.clear();
        _ = BUFFER.try_with(|buffer| buffer.set(text));
    }
    written
}

// === impl Fields ===

impl<'a> FormatFields<'a> for Fields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'a>, fields: R) -> fmt::Result {
        formatted(fields, true, |text| writer.write_str(text))
    }

    fn add_fields(
        &self,
        current: &'a mut FormattedFields<Self>,
        fields: &Record<'_>,
    ) -> fmt::Result {
        let is_first = current.fields.is_empty();
        formatted(fields, is_first, |text| current.fields.push_str(text));
        Ok(())
    }
}

// === impl Visitor ===

impl Visitor {
    /// Begins a field; the message of an event has no name.
    fn begin(&mut self, name: &str) {
        if !mem::take(&mut self.is_first) {
            self.text.push(' ');
        }
        if name != "message" {
            self.text.push_str(name);
            self.text.push('=');
        }
    }
}

impl Visit for Visitor {
    /// Nearly all texts are plain; what could break a line, or a terminal, is escaped.
    fn record_str(&mut self, field: &Field, value: &str) {
        let is_plain = value.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\');
        if !is_plain {
            self.record_debug(field, &value);
        } else if !is_for_collector(field.name()) {
            self.begin(field.name());
            self.text.push('"');
            self.text.push_str(value);
            self.text.push('"');
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if !is_for_collector(field.name()) {
            self.begin(field.name());
            // Writing to a text does not fail; a value that does is cut off.
            _ = write!(self.text, "{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read as _, Seek as _},
        sync::Arc,
    };

    /// What a subscriber with these fields writes while `run` runs.
    fn written(run: impl FnOnce()) -> String {
        let lines = Arc::new(tempfile::tempfile().unwrap());
        let subscriber = tracing_subscriber::fmt()
            .fmt_fields(Fields)
            .with_writer(lines.clone())
            .with_ansi(false)
            .finish();
        tracing::subscriber::with_default(subscriber, run);
        let (mut lines, mut text) = (&*lines, String::new());
        lines.rewind().unwrap();
        lines.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_text_is_escaped_where_it_could_break_the_line() {
        let text = written(|| {
            let _in = tracing::info_span!("call", plain = "a.B", odd = "x\n\u{1b}[1m\"").entered();
            tracing::info!(n = 1, ok = true, why = ?Some("b"), "it ends");
        });
        assert!(text.contains(r#"call{plain="a.B" odd="x\n\u{1b}[1m\""}"#), "{text}");
        assert!(text.trim_end().ends_with(r#"it ends n=1 ok=true why=Some("b")"#), "{text}");
    }

    #[test]
    fn what_only_a_collector_reads_is_in_no_line() {
        let text = written(|| {
            let (id, late) = ("00f067aa0ba902b7", tracing::field::Empty);
            let span = tracing::info_span!(
                "call",
                otel.name = "Sent.a.B/C",
                span_id = id,
                rpc.method = "C",
                otel.status_code = late,
                verdict = late,
            );
            span.record("otel.status_code", "ERROR").record("verdict", "late");
            span.in_scope(|| tracing::info!("it ends"));
        });
        assert!(text.contains(r#"call{rpc.method="C" verdict="late"}"#), "{text}");
    }
}
