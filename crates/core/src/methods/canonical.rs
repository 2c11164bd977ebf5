//! The canonical form of a message.
//!
//! Protobuf allows many encodings of the same message ([encoding], [not canonical]): fields and the
//! entries of maps in any order, numbers packed or not, varints with redundant bytes, a field that
//! a later one overwrites, a default that is written or left out.
//!
//! Here fields are ordered by number, each once if it can occur only once; maps are sorted by key;
//! numbers are packed, varints minimal, defaults left out where that is equivalent. Fields that the
//! .proto does not list are sorted by their bytes, as the meaning of their order is unknown.
//!
//! [encoding]: https://protobuf.dev/programming-guides/encoding/
//! [not canonical]: https://protobuf.dev/programming-guides/serialization-not-canonical/

use super::{
    shape::{Arity, Field, Kind, Shape, Shapes},
    wire::{DEEPEST, Value, Written, next, varint},
};
use prost::encoding::{encode_varint, encoded_len_varint};
use std::{borrow::Cow, collections::BTreeMap};

/// The most fields of a message that is canonicalised: one with more is compared as received,
/// rather than use many times its own size.
const MOST_FIELDS: usize = 1 << 18;

/// Writes the content of one message.
struct Writer<'a> {
    shapes: &'a Shapes,
    depth: usize,
    out: Vec<u8>,
}

/// `message`, of the shape at `place`, in its canonical form; unchanged if it is canonical already,
/// or is not a message.
pub(super) fn canonical<'a>(shapes: &Shapes, place: usize, message: &'a [u8]) -> Cow<'a, [u8]> {
    if is_canonical(shapes, place, message, 0).unwrap_or(false) {
        return Cow::Borrowed(message);
    }
    let written = ordered(shapes, place, message, 0);
    written.map_or(Cow::Borrowed(message), Cow::Owned)
}

// === what is in order already, found without writing anything ===

/// Whether it is known to be canonical already, as most messages without maps are; `None` if
/// unknown.
fn is_canonical(shapes: &Shapes, place: usize, mut rest: &[u8], depth: usize) -> Option<bool> {
    let (shape, mut before, mut oneofs) = (shapes.get(place)?, 0, 0_u64);
    while !rest.is_empty() {
        let start = rest;
        let Written { number, value } = next(&mut rest)?;
        let field = shape.get(number)?;
        let listed = field.arity == Arity::Many && !field.kind.packs();
        if number < before || (number == before && !listed) || depth >= DEEPEST {
            return None;
        }
        if let Some(oneof) = field.oneof {
            let bit = 1_u64.checked_shl(oneof)?;
            if oneofs & bit != 0 {
                return None;
            }
            oneofs |= bit;
        }
        let mut short = encoded_len_varint(u64::from(number) << 3);
        short += value_len(shapes, field, value, depth)?;
        if short != start.len() - rest.len() {
            return None;
        }
        before = number;
    }
    Some(true)
}

/// The length of a value, if it is in its canonical form.
fn value_len(shapes: &Shapes, field: Field, value: Value<'_>, depth: usize) -> Option<usize> {
    let implicit = field.arity == Arity::One { implicit: true };
    let length = |bytes: &[u8]| encoded_len_varint(bytes.len() as u64) + bytes.len();
    match (field.kind, value) {
        (kind, Value::Bytes(bytes)) if kind.packs() && field.arity == Arity::Many => {
            let is_short = !bytes.is_empty() && is_packed(kind, bytes)?;
            is_short.then(|| length(bytes))
        }
        (kind, Value::Varint(value)) if kind.wire_type() == 0 && field.arity != Arity::Many => {
            let is_seen = kind.seen(value) == value && !(implicit && value == 0);
            is_seen.then(|| encoded_len_varint(value))
        }
        (Kind::Fixed32, Value::Fixed32(bytes)) | (Kind::Fixed64, Value::Fixed64(bytes)) => {
            let is_left_out = implicit && bytes.iter().all(|byte| *byte == 0);
            (field.arity != Arity::Many && !is_left_out).then_some(bytes.len())
        }
        (Kind::Bytes, Value::Bytes(bytes)) => {
            (!(implicit && bytes.is_empty())).then(|| length(bytes))
        }
        (Kind::Message(place), Value::Bytes(bytes)) => {
            let is_in_order = is_canonical(shapes, place, bytes, depth + 1)?;
            (is_in_order && !(implicit && bytes.is_empty())).then(|| length(bytes))
        }
        _ => None,
    }
}

fn is_packed(kind: Kind, mut rest: &[u8]) -> Option<bool> {
    match kind.wire_type() {
        1 => return Some(rest.len().is_multiple_of(8)),
        5 => return Some(rest.len().is_multiple_of(4)),
        _ => {}
    }
    while !rest.is_empty() {
        let before = rest.len();
        let value = varint(&mut rest)?;
        if kind.seen(value) != value || encoded_len_varint(value) != before - rest.len() {
            return None;
        }
    }
    Some(true)
}

// === what has to be written in order ===

fn ordered(shapes: &Shapes, place: usize, message: &[u8], depth: usize) -> Option<Vec<u8>> {
    let mut fields = Vec::new();
    let mut rest = message;
    while !rest.is_empty() {
        fields.push(next(&mut rest)?);
        if fields.len() > MOST_FIELDS || depth > DEEPEST {
            return None;
        }
    }
    write(shapes, shapes.get(place)?, fields, depth)
}

fn write(
    shapes: &Shapes,
    shape: &Shape,
    mut fields: Vec<Written<'_>>,
    depth: usize,
) -> Option<Vec<u8>> {
    drop_overwritten(shape, &mut fields);
    // Stable: the order of the same field matters.
    fields.sort_by_key(|field| field.number);
    let mut writer = Writer { shapes, depth, out: Vec::new() };
    for same in fields.chunk_by(|a, b| a.number == b.number) {
        let field = shape.get(same[0].number);
        let (known, unknown): (Vec<_>, Vec<_>) = same
            .iter()
            .copied()
            .partition(|written| field.is_some_and(|field| is_of(written, field)));
        if let Some(field) = field.filter(|_| !known.is_empty()) {
            writer.field(same[0].number, field, &known)?;
        }
        writer.unknown(&unknown);
    }
    Some(writer.out)
}

/// Of the members of each oneof keeps the one written last, and of that the parts since another
/// member was written, which has cleared the earlier ones.
fn drop_overwritten(shape: &Shape, fields: &mut Vec<Written<'_>>) {
    let oneof = |number| shape.get(number).and_then(|field| field.oneof);
    let mut last = BTreeMap::new();
    for (at, field) in fields.iter().enumerate() {
        if let Some(oneof) = oneof(field.number) {
            let begun = last.entry(oneof).or_insert((field.number, at));
            if begun.0 != field.number {
                *begun = (field.number, at);
            }
        }
    }
    if !last.is_empty() {
        let mut at = 0;
        fields.retain(|field| {
            at += 1;
            let last = oneof(field.number).and_then(|oneof| last.get(&oneof));
            last.is_none_or(|(number, since)| *number == field.number && *since < at)
        });
    }
}

// === impl Writer ===

impl Writer<'_> {
    fn field(&mut self, number: u32, field: Field, written: &[Written<'_>]) -> Option<()> {
        match field.arity {
            Arity::Map => self.map(number, field, written),
            Arity::Many if field.kind.packs() => self.packed(number, field.kind, written),
            Arity::Many => written.iter().try_for_each(|one| {
                let value = self.whole(field.kind, &[*one])?;
                self.bytes(number, field.kind, &value);
                Some(())
            }),
            Arity::One { implicit } => self.one(number, field.kind, implicit, written),
        }
    }

    fn one(&mut self, number: u32, kind: Kind, implicit: bool, all: &[Written<'_>]) -> Option<()> {
        if !kind.packs() {
            let value = self.whole(kind, all)?;
            if !(implicit && value.is_empty()) {
                self.bytes(number, kind, &value);
            }
            return Some(());
        }
        let mut value = Vec::new();
        scalar(kind, all.last()?.value, &mut value)?;
        if !(implicit && value.iter().all(|byte| *byte == 0)) {
            self.tag(number, kind.wire_type());
            self.out.extend_from_slice(&value);
        }
        Some(())
    }

    /// The content of a string, of which the last one counts, or of a message, of which all are
    /// merged.
    fn whole(&self, kind: Kind, all: &[Written<'_>]) -> Option<Vec<u8>> {
        match kind {
            Kind::Message(place) | Kind::Group(place) => {
                let parts: Vec<_> = all.iter().filter_map(|written| written.bytes()).collect();
                ordered(self.shapes, place, &parts.concat(), self.depth + 1)
            }
            _ => all.last()?.bytes().map(<[u8]>::to_vec),
        }
    }

    fn packed(&mut self, number: u32, kind: Kind, written: &[Written<'_>]) -> Option<()> {
        let mut values = Vec::new();
        for one in written {
            match (one.value, kind.wire_type()) {
                (Value::Bytes(mut rest), 0) => {
                    while !rest.is_empty() {
                        encode_varint(kind.seen(varint(&mut rest)?), &mut values);
                    }
                }
                (Value::Bytes(bytes), 1) if !bytes.len().is_multiple_of(8) => return None,
                (Value::Bytes(bytes), 5) if !bytes.len().is_multiple_of(4) => return None,
                (Value::Bytes(bytes), _) => values.extend_from_slice(bytes),
                (value, _) => scalar(kind, value, &mut values)?,
            }
        }
        if !values.is_empty() {
            self.bytes(number, Kind::Bytes, &values);
        }
        Some(())
    }

    fn map(&mut self, number: u32, field: Field, written: &[Written<'_>]) -> Option<()> {
        let Kind::Message(place) = field.kind else { return None };
        let shape = self.shapes.get(place)?;
        let mut entries = BTreeMap::new();
        for entry in written {
            let (mut rest, mut fields) = (entry.bytes()?, Vec::new());
            while !rest.is_empty() {
                fields.push(next(&mut rest)?);
            }
            let key = fields.iter().copied().filter(|field| field.number == 1).collect();
            let key = write(self.shapes, shape, key, self.depth + 1)?;
            entries.insert(key, write(self.shapes, shape, fields, self.depth + 1)?);
        }
        entries.values().for_each(|entry| self.bytes(number, field.kind, entry));
        Some(())
    }

    fn unknown(&mut self, written: &[Written<'_>]) {
        let mut all: Vec<_> = written.iter().map(Written::encoded).collect();
        all.sort_unstable();
        all.iter().for_each(|one| self.out.extend_from_slice(one));
    }

    fn bytes(&mut self, number: u32, kind: Kind, value: &[u8]) {
        self.tag(number, kind.wire_type());
        if let Kind::Group(_) = kind {
            self.out.extend_from_slice(value);
            return self.tag(number, 4);
        }
        encode_varint(value.len() as u64, &mut self.out);
        self.out.extend_from_slice(value);
    }

    fn tag(&mut self, number: u32, wire_type: u8) {
        encode_varint(u64::from(number) << 3 | u64::from(wire_type), &mut self.out);
    }
}

fn scalar(kind: Kind, value: Value<'_>, out: &mut Vec<u8>) -> Option<()> {
    match value {
        Value::Varint(value) => encode_varint(kind.seen(value), out),
        Value::Fixed32(bytes) | Value::Fixed64(bytes) => out.extend_from_slice(bytes),
        Value::Bytes(_) | Value::Group(_) => return None,
    }
    Some(())
}

/// Whether `field` can be written so.
fn is_of(written: &Written<'_>, field: Field) -> bool {
    let wire_type = written.value.wire_type();
    wire_type == field.kind.wire_type()
        || (wire_type == 2 && field.arity == Arity::Many && field.kind.packs())
}

#[cfg(test)]
mod tests;
