//! Keys that occur twice in one JSON object: `serde_json` silently keeps the last.

use super::fields::label;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use std::{collections::HashSet, fmt};

/// The paths of the keys of `json` that occur twice in their object.
pub(super) fn twice(json: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_str(json);
    // A text that is not JSON has been refused before.
    let _ = Look { at: &Place::Root, found: &mut found }.deserialize(&mut deserializer);
    found
}

/// Formatted only when needed.
enum Place<'a> {
    Root,
    Field(&'a Self, &'a str),
    Item(&'a Self, usize),
}

struct Look<'a> {
    at: &'a Place<'a>,
    found: &'a mut Vec<String>,
}

// === impl Place ===

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(Self::Root, key) => f.write_str(&label(key)),
            Self::Field(parent, key) => write!(f, "{parent}.{}", label(key)),
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

// === impl Look ===

impl<'de> DeserializeSeed<'de> for Look<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Look<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let at = Place::Field(self.at, &key);
            map.next_value_seed(Look { at: &at, found: &mut *self.found })?;
            if seen.contains(&key) {
                self.found.push(at.to_string());
            }
            seen.insert(key);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let mut index = 0;
        loop {
            let at = Place::Item(self.at, index);
            let look = Look { at: &at, found: &mut *self.found };
            if list.next_element_seed(look)?.is_none() {
                return Ok(());
            }
            index += 1;
        }
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_occurs_twice_in_one_object_is_found_by_its_path() {
        for (json, expected) in [
            (r#"{"a": 1, "b": [1, -1, 0.5, "x", true, null], "c": {"a": 1}}"#, &[][..]),
            (r#"{"a": 1, "a": 2}"#, &["a"]),
            (r#"{"a": 1, "\u0061": 2, "a": 3}"#, &["a", "a"]),
            (r#"{"a": [{}, {"b": 1, "c": {"d": 1, "d": 1}, "b": 2}]}"#, &["a[1].c.d", "a[1].b"]),
            (r#"[{"\n": 1, "\n": 2}]"#, &[r#"[0]."\n""#]),
            ("3", &[]),
        ] {
            assert_eq!(twice(json), expected, "{json}");
        }
    }
}
