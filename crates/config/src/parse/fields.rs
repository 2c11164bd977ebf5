//! A place in the JSON, and the list of mistakes and warnings.

use crate::{Error, Warning, nearest};
use serde_json::{Number, Value};
use std::borrow::Cow;

pub(super) const OBJECT: &str = "an object";

/// How much of a value an error shows, in characters.
const SHOWN: usize = 80;

/// A place and its value; a `null` counts as absent.
pub(super) struct At<'a> {
    path: String,
    value: Option<&'a Value>,
}

/// The mistakes and warnings so far.
#[derive(Default)]
pub(super) struct Report {
    errors: Vec<Error>,
    warnings: Vec<Warning>,
}

// === impl At ===

impl<'a> At<'a> {
    pub(super) const fn root(value: &'a Value) -> Self {
        Self { path: String::new(), value: Some(value) }
    }

    pub(super) fn field(&self, key: &str) -> Self {
        let dot = if self.path.is_empty() { "" } else { "." };
        let value = self.value.and_then(|value| value.get(key));
        Self { path: format!("{}{dot}{}", self.path, label(key)), value }
    }

    /// Warns of each field that is not among `known`: misspelt, or newer than this.
    pub(super) fn knows(&self, report: &mut Report, known: &[&'static str]) {
        let fields = self.value.and_then(Value::as_object).into_iter().flatten();
        let unknown =
            |(key, value): &(&String, &Value)| !value.is_null() && !known.contains(&key.as_str());
        for (key, _) in fields.filter(unknown) {
            let meant = nearest::misspelt(key, known.iter().copied());
            let meant = meant.map(|meant| format!("; {meant} is the field that is known"));
            let text = format!("is unknown, and ignored as in gRPC{}", meant.unwrap_or_default());
            report.warn(&self.field(key), text);
        }
    }

    /// The elements of a list; none where it is absent, or not a list.
    pub(super) fn items(&self, report: &mut Report) -> Vec<Self> {
        let items = self.read(report, "a list", Value::as_array).into_iter().flatten();
        let item = |(index, value)| Self { path: format!("{}[{index}]", self.path), value };
        items.map(Some).enumerate().map(item).collect()
    }

    pub(super) fn value(&self) -> Option<&'a Value> {
        self.value.filter(|value| !value.is_null())
    }

    pub(super) fn is_absent(&self) -> bool {
        self.value().is_none()
    }

    pub(super) fn is_absent_or_empty(&self) -> bool {
        self.value().is_none_or(|value| value.as_array().is_some_and(Vec::is_empty))
    }

    /// The value, converted by `read`. If `read` returns `None`, `rule` is broken, unless the value
    /// is absent.
    pub(super) fn read<T>(
        &self,
        report: &mut Report,
        rule: &'static str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Option<T> {
        let value = read(self.value()?);
        if value.is_none() {
            report.refuse(self, rule);
        }
        value
    }

    /// As `read`, but an absent value breaks the rule too.
    pub(super) fn require<T>(
        &self,
        report: &mut Report,
        rule: &'static str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Option<T> {
        if self.is_absent() {
            report.refuse(self, rule);
        }
        self.read(report, rule, read)
    }
}

// === impl Report ===

impl Report {
    pub(super) fn refuse(&mut self, at: &At<'_>, rule: &'static str) {
        let value = at.value.map_or_else(|| "absent".into(), shown);
        self.errors.push(Error { path: at.path.clone(), value, rule });
    }

    /// The value at `at` is valid, and lacks its usual effect.
    pub(super) fn warn(&mut self, at: &At<'_>, text: impl Into<String>) {
        self.warnings.push(Warning::new(&at.path, text));
    }

    /// The warnings, if there are no mistakes.
    pub(super) fn end(self) -> Result<Vec<Warning>, Vec<Error>> {
        if self.errors.is_empty() { Ok(self.warnings) } else { Err(self.errors) }
    }
}

/// A key in a path: as JSON unless it is a plain name, so that it cannot look like another place or
/// another line.
pub(super) fn label(key: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    if (1..=SHOWN).contains(&key.len()) && key.bytes().all(is_plain) {
        return key.into();
    }
    shown(&key.chars().take(SHOWN).collect::<String>().into()).into()
}

fn shown(value: &Value) -> String {
    let mut text = value.to_string();
    if let Some((end, _)) = text.char_indices().nth(SHOWN) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// A number, or the text of one in a string, as in proto3 JSON.
pub(super) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        // JSON allows white space around a number, which a string must not have.
        Value::String(text) if text.trim() == text => text.parse::<Number>().ok()?.as_f64(),
        _ => None,
    }
}

/// An integer, which may be written `3.0` or `3e0`; every u32 is an exact f64.
pub(super) fn uint32(value: &Value) -> Option<u32> {
    let number = number(value)?;
    let is_in_range = (0.0..=f64::from(u32::MAX)).contains(&number);
    (is_in_range && number.fract() == 0.0).then_some(number as u32)
}

/// `number` in thousandths, cut off and not rounded; `None` where that is 0 or less, and the
/// largest value on overflow.
pub(super) fn thousandths(number: f64) -> Option<u32> {
    if number <= 0.0 {
        return None;
    }
    // By its digits, since `1.001 * 1000.0` is below 1001. `Display` writes no exponent.
    let text = number.to_string();
    let (whole, decimals) = text.split_once('.').unwrap_or((&text, ""));
    let whole: u32 = whole.parse().unwrap_or(u32::MAX);
    let decimals = format!("{decimals:0<3}").get(..3)?.parse().ok()?;
    Some(whole.saturating_mul(1000).saturating_add(decimals)).filter(|number| *number > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_integer_may_be_written_as_any_number_without_a_fraction() {
        for (value, expected) in [
            (json!(0), Some(0)),
            (json!(-0.0), Some(0)),
            (json!(3), Some(3)),
            (json!(3.0), Some(3)),
            (json!(3e2), Some(300)),
            (json!("3"), Some(3)),
            (json!("3.0"), Some(3)),
            (json!("3e2"), Some(300)),
            (json!(u32::MAX), Some(u32::MAX)),
            (json!(u64::from(u32::MAX) + 1), None),
            (json!(u64::MAX), None),
            (json!(1e300), None),
            (json!(2.5), None),
            (json!(-1), None),
            (json!("2.5"), None),
            (json!(""), None),
            (json!(" 3"), None),
            (json!("3\n"), None),
            (json!("+3"), None),
            (json!("0x3"), None),
            (json!("1e999"), None),
            (json!("NaN"), None),
            (json!("Infinity"), None),
            (json!(true), None),
            (json!([3]), None),
        ] {
            assert_eq!(uint32(&value), expected, "{value}");
        }
    }

    #[test]
    fn what_is_finer_than_a_thousandth_is_cut_off() {
        for (number, expected) in [
            (0.5466, Some(546)),
            (0.546, Some(546)),
            (1.001, Some(1001)),
            (0.0019, Some(1)),
            (0.001, Some(1)),
            (0.000_999, None),
            (1e-300, None),
            (0.0, None),
            (-0.0, None),
            (-1.0, None),
            (1.0, Some(1000)),
            (4_294_967.295, Some(u32::MAX)),
            (4_294_968.0, Some(u32::MAX)),
            (1e300, Some(u32::MAX)),
        ] {
            assert_eq!(thousandths(number), expected, "{number}");
        }
    }
}
