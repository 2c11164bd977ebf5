//! [Protobuf's JSON mapping][mapping] of the types that the calculator's fields have.
//!
//! | type | written | read |
//! |---|---|---|
//! | `double` | a number, `"NaN"`, `"Infinity"` or `"-Infinity"` | these, and `"1.5"` |
//! | `int32` | a number | a whole number (`1`, `1.0`, `1e0`), and as a string |
//! | `int64` | a string: a number in JavaScript has but 53 bits | as `int32` |
//! | `string`, `bool` | a string, `true` or `false` | the same |
//!
//! A field that is absent or `null` has its default. Of what the mapping leaves open: a field that
//! has its default is written all the same, so that an answer of 0 shows a 0.
//!
//! [mapping]: https://protobuf.dev/programming-guides/json/

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeOwned, Error, Unexpected, Visitor},
};
use std::{fmt, marker::PhantomData};

/// A type of the .proto.
pub(crate) trait Json: Sized {
    fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error>;
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error>;
}

/// For `#[serde(with = "..")]`, which `build.rs` gives each field.
pub(crate) fn serialize<T: Json, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    value.write(to)
}

/// For `#[serde(with = "..")]`, which `build.rs` gives each field.
pub(crate) fn deserialize<'de, T: Json, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    T::read(from)
}

struct Double;

struct Whole<T>(PhantomData<T>);

// === impl Json ===

impl Json for f64 {
    fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        // Of which all are doubles; -0 is none of them.
        const WHOLE: f64 = 1e15;
        match *self {
            value if value.is_nan() => to.serialize_str("NaN"),
            Self::INFINITY => to.serialize_str("Infinity"),
            Self::NEG_INFINITY => to.serialize_str("-Infinity"),
            // `15` and not `15.0`, as other implementations write it.
            value if value.fract() == 0.0 && value.abs() < WHOLE && !is_minus_zero(value) => {
                to.serialize_i64(value as i64)
            }
            value => to.serialize_f64(value),
        }
    }

    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Double)
    }
}

impl Json for i32 {
    fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.serialize(to)
    }

    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Whole(PhantomData))
    }
}

impl Json for i64 {
    fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }

    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Whole(PhantomData))
    }
}

impl Json for String {
    fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.serialize(to)
    }

    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(from)?.unwrap_or_default())
    }
}

impl Json for bool {
    fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.serialize(to)
    }

    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(from)?.unwrap_or_default())
    }
}

fn is_minus_zero(value: f64) -> bool {
    value == 0.0 && value.is_sign_negative()
}

// === impl Double ===

impl Visitor<'_> for Double {
    type Value = f64;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("a number, \"NaN\", \"Infinity\" or \"-Infinity\"")
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<f64, E> {
        Ok(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<f64, E> {
        Ok(value as f64)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<f64, E> {
        Ok(value as f64)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<f64, E> {
        match text {
            "NaN" => Ok(f64::NAN),
            "Infinity" => Ok(f64::INFINITY),
            "-Infinity" => Ok(f64::NEG_INFINITY),
            text => number(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self)),
        }
    }

    fn visit_unit<E: Error>(self) -> Result<f64, E> {
        Ok(0.0)
    }
}

/// The number of JSON that `text` is: Rust would also read `inf`, `.5` and `+1`.
fn number<T: DeserializeOwned>(text: &str) -> Option<T> {
    let is_bare = text.trim_matches(|c: char| c.is_ascii_whitespace()) == text;
    serde_json::from_str(text).ok().filter(|_| is_bare)
}

// === impl Whole ===

impl<T: TryFrom<i64> + Default> Visitor<'_> for Whole<T> {
    type Value = T;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "a whole number of {} bits", 8 * size_of::<T>())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<T, E> {
        T::try_from(value).map_err(|_| E::invalid_value(Unexpected::Signed(value), &self))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<T, E> {
        let whole = i64::try_from(value).ok().and_then(|value| T::try_from(value).ok());
        whole.ok_or_else(|| E::invalid_value(Unexpected::Unsigned(value), &self))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<T, E> {
        // 2^63 is a double, and the first that is too large.
        let range = -(2f64.powi(63))..2f64.powi(63);
        let whole = (value.fract() == 0.0 && range.contains(&value)).then_some(value as i64);
        let whole = whole.and_then(|value| T::try_from(value).ok());
        whole.ok_or_else(|| E::invalid_value(Unexpected::Float(value), &self))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        match (number(text), number(text)) {
            (Some(whole), _) => self.visit_i64(whole),
            (None, Some(value)) => self.visit_f64(value),
            (None, None) => Err(E::invalid_value(Unexpected::Str(text), &self)),
        }
    }

    fn visit_unit<E: Error>(self) -> Result<T, E> {
        Ok(T::default())
    }
}

#[cfg(test)]
mod tests {
    use crate::pb::{Amount, BinaryOperation, CounterRequest, Key, Result as Answer};
    use cinchona::core::Rng;
    use rand::RngExt;
    use serde_json::{Value, from_str, to_string};

    fn double(json: &str) -> Option<f64> {
        from_str::<Answer>(&format!(r#"{{"value":{json}}}"#)).ok().map(|answer| answer.value)
    }

    fn int32(json: &str) -> Option<i32> {
        let request = from_str::<CounterRequest>(&format!(r#"{{"increment":{json}}}"#));
        request.ok().map(|request| request.increment)
    }

    fn int64(json: &str) -> Option<i64> {
        from_str::<Amount>(&format!(r#"{{"value":{json}}}"#)).ok().map(|amount| amount.value)
    }

    #[test]
    fn a_double_is_written_as_others_do() {
        for (value, json) in [
            (15.0, "15"),
            (-15.0, "-15"),
            (0.0, "0"),
            (-0.0, "-0.0"),
            (0.1, "0.1"),
            (1e15, "1000000000000000.0"),
            (5e-324, "5e-324"),
            (f64::NAN, r#""NaN""#),
            (f64::INFINITY, r#""Infinity""#),
            (f64::NEG_INFINITY, r#""-Infinity""#),
        ] {
            assert_eq!(to_string(&Answer { value }).unwrap(), format!(r#"{{"value":{json}}}"#));
        }
    }

    #[test]
    fn every_double_is_read_as_it_was_written() {
        let rng = Rng::seeded(1);
        for _ in 0..100_000 {
            let value = f64::from_bits(rng.draw().random());
            let json = to_string(&Answer { value }).unwrap();
            let read = from_str::<Answer>(&json).unwrap().value;
            assert!(read.to_bits() == value.to_bits() || read.is_nan() && value.is_nan(), "{json}");
        }
    }

    #[test]
    fn a_double_is_read_from_what_protobuf_says_and_nothing_else() {
        for (json, value) in [
            ("1", 1.0),
            ("-1.5e3", -1500.0),
            ("18446744073709551615", 18446744073709551615.0),
            (r#""1.5""#, 1.5),
            (r#""-Infinity""#, f64::NEG_INFINITY),
            ("null", 0.0),
        ] {
            assert_eq!(double(json), Some(value), "{json}");
        }
        for json in [
            "1e400",
            r#""1e400""#,
            r#""inf""#,
            r#""nan""#,
            r#""""#,
            r#"" 1""#,
            r#""1 ""#,
            r#""+1""#,
            r#"".5""#,
            r#""null""#,
            "true",
            "[1]",
            "{}",
            "NaN",
        ] {
            assert_eq!(double(json), None, "{json}");
        }
    }

    #[test]
    fn an_integer_is_whole_and_within_its_range() {
        for (json, value) in [
            ("1", 1),
            ("1.0", 1),
            ("1e2", 100),
            ("-0", 0),
            (r#""1""#, 1),
            (r#""-1.0""#, -1),
            ("null", 0),
            ("2147483647", i32::MAX),
            ("-2147483648", i32::MIN),
        ] {
            assert_eq!(int32(json), Some(value), "{json}");
            assert_eq!(int64(json), Some(value.into()), "{json}");
        }
        for json in ["2147483648", r#""2147483648""#, "2147483648.0", "-2147483649"] {
            assert_eq!((int32(json), int64(json).is_some()), (None, true), "{json}");
        }
        for json in ["1.5", r#""1.5""#, "1e19", r#""x""#, r#""0x1""#, "9223372036854775808", "true"]
        {
            assert_eq!((int32(json), int64(json)), (None, None), "{json}");
        }
    }

    #[test]
    fn an_int64_is_a_string_so_that_javascript_can_read_it() {
        for value in [0, i64::MAX, i64::MIN, (1 << 53) + 1] {
            let json = to_string(&Amount { value }).unwrap();
            assert_eq!(json, format!(r#"{{"value":"{value}"}}"#));
            assert_eq!(from_str::<Amount>(&json).unwrap().value, value);
            assert_eq!(int64(&value.to_string()), Some(value));
        }
    }

    #[test]
    fn a_field_has_two_names_and_a_default_and_no_other_field_is_taken() {
        for json in [r#"{"requestId":"1"}"#, r#"{"request_id":"1","increment":null}"#] {
            let request = CounterRequest { request_id: "1".into(), increment: 0 };
            assert_eq!(from_str::<CounterRequest>(json).unwrap(), request);
        }
        assert_eq!(from_str::<BinaryOperation>("{}").unwrap(), BinaryOperation::default());
        assert_eq!(from_str::<Key>(r#"{"key":null}"#).unwrap(), Key::default());
        for wrong in [r#"{"c":1}"#, r#"{"A":1}"#, r#"{"a":1,"a":1}"#] {
            assert!(from_str::<BinaryOperation>(wrong).is_err(), "{wrong}");
        }
        assert!(from_str::<CounterRequest>(r#"{"requestId":"","request_id":""}"#).is_err());
        assert!(from_str::<Key>(r#"{"key":1}"#).is_err());
        let all: Value = from_str(&to_string(&CounterRequest::default()).unwrap()).unwrap();
        assert_eq!(all, serde_json::json!({ "requestId": "", "increment": 0 }));
    }
}
