//! The fields of a line for people.

use std::fmt::{self, Debug};
use tracing::field::{Field, Visit};
use tracing_subscriber::{
    field::RecordFields,
    fmt::{FormatFields, format::Writer},
};

/// Writes fields as `name="value"`, without styles: they are written for the span of every call,
/// whether or not there is a line that shows them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields;

struct Visitor<'a> {
    writer: Writer<'a>,
    is_first: bool,
    result: fmt::Result,
}

// === impl Fields ===

impl<'a> FormatFields<'a> for Fields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'a>, fields: R) -> fmt::Result {
        let mut visitor = Visitor { writer, is_first: true, result: Ok(()) };
        fields.record(&mut visitor);
        visitor.result
    }
}

// === impl Visitor ===

impl Visitor<'_> {
    /// The message of an event has no name.
    fn begin(&mut self, field: &Field) -> fmt::Result {
        if !std::mem::take(&mut self.is_first) {
            self.writer.write_char(' ')?;
        }
        if field.name() == "message" {
            return Ok(());
        }
        self.writer.write_str(field.name())?;
        self.writer.write_char('=')
    }

    fn write(&mut self, field: &Field, write: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        if self.result.is_ok() {
            self.result = self.begin(field).and_then(|()| write(&mut self.writer));
        }
    }
}

impl Visit for Visitor<'_> {
    /// Nearly all texts are plain; what could break a line, or a terminal, is escaped.
    fn record_str(&mut self, field: &Field, value: &str) {
        let is_plain = value.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\');
        self.write(field, |writer| match is_plain {
            true => {
                writer.write_char('"')?;
                writer.write_str(value)?;
                writer.write_char('"')
            }
            false => write!(writer, "{value:?}"),
        });
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.write(field, |writer| write!(writer, "{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read as _, Seek as _},
        sync::Arc,
    };

    #[test]
    fn a_text_is_escaped_where_it_could_break_the_line() {
        let lines = Arc::new(tempfile::tempfile().unwrap());
        let subscriber = tracing_subscriber::fmt()
            .fmt_fields(Fields)
            .with_writer(lines.clone())
            .with_ansi(false)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let _in = tracing::info_span!("call", plain = "a.B", odd = "x\n\u{1b}[1m\"").entered();
            tracing::info!(n = 1, ok = true, why = ?Some("b"), "it ends");
        });
        let (mut lines, mut text) = (&*lines, String::new());
        lines.rewind().unwrap();
        lines.read_to_string(&mut text).unwrap();
        assert!(text.contains(r#"call{plain="a.B" odd="x\n\u{1b}[1m\""}"#), "{text}");
        assert!(text.trim_end().ends_with(r#"it ends n=1 ok=true why=Some("b")"#), "{text}");
    }
}
