//! The shapes of the messages that methods take, as far as they matter for the canonical form.

use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    field_descriptor_proto::{Label, Type},
};
use std::collections::HashMap;

/// The messages of requests; they refer to each other by index.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Shapes(Vec<Shape>);

/// The fields of a message, sorted by number.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Shape(Vec<(u32, Field)>);

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Field {
    pub(super) kind: Kind,
    pub(super) arity: Arity,
    /// Of the members of a oneof the last one counts.
    pub(super) oneof: Option<u32>,
}

/// How often a field may occur, and the meaning of repetitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arity {
    /// The last one counts; messages are merged. If `implicit`, the default equals absence.
    One {
        implicit: bool,
    },
    Many,
    /// Entries in any order; of those with the same key the last one counts.
    Map,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    /// `int32` and enums: the lower half of a varint counts, with its sign.
    Int32,
    /// `uint32` and `sint32`: the lower half of a varint counts.
    Uint32,
    Uint64,
    Fixed32,
    Fixed64,
    Bytes,
    Message(usize),
    Group(usize),
}

/// All messages of a descriptor set by their full names, with a leading dot, as methods and fields
/// name them.
#[derive(Debug, Default)]
pub(super) struct Described<'a>(HashMap<String, (&'a DescriptorProto, bool)>);

// === impl Described ===

impl<'a> Described<'a> {
    pub(super) fn new(files: &'a [FileDescriptorProto]) -> Self {
        let mut all = Self::default();
        for file in files {
            let scope = match file.package() {
                "" => String::new(),
                package => format!(".{package}"),
            };
            let is_implicit = file.syntax() == "proto3";
            file.message_type.iter().for_each(|message| all.add(&scope, message, is_implicit));
        }
        all
    }

    fn add(&mut self, scope: &str, message: &'a DescriptorProto, is_implicit: bool) {
        let name = format!("{scope}.{}", message.name());
        message.nested_type.iter().for_each(|nested| self.add(&name, nested, is_implicit));
        self.0.insert(name, (message, is_implicit));
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a DescriptorProto> {
        self.0.get(name).map(|(message, _)| *message)
    }
}

// === impl Shapes ===

impl Shapes {
    pub(super) fn get(&self, place: usize) -> Option<&Shape> {
        self.0.get(place)
    }

    /// The shapes of the messages called `names` and of all nested ones, and their indices.
    pub(super) fn of<'a>(
        described: &Described<'_>,
        names: impl Iterator<Item = &'a str>,
    ) -> (Self, HashMap<String, usize>) {
        let (mut places, mut pending) = (HashMap::new(), Vec::new());
        for name in names {
            place(name, described, &mut places, &mut pending);
        }
        let mut shapes: Vec<Shape> = Vec::new();
        while let Some(name) = pending.get(shapes.len()).cloned() {
            let shape = described.0.get(&name).map(|(message, is_implicit)| {
                Shape::new(message, *is_implicit, |held| {
                    let at = place(held, described, &mut places, &mut pending)?;
                    Some((at, described.get(held).is_some_and(is_entry)))
                })
            });
            shapes.push(shape.unwrap_or_default());
        }
        (Self(shapes), places)
    }
}

/// Whether the message is an entry of a map.
fn is_entry(message: &DescriptorProto) -> bool {
    message.options.as_ref().is_some_and(|options| options.map_entry())
}

/// The index, maybe reserved, of the message called `name`.
fn place(
    name: &str,
    described: &Described<'_>,
    places: &mut HashMap<String, usize>,
    pending: &mut Vec<String>,
) -> Option<usize> {
    described.get(name)?;
    Some(*places.entry(name.to_owned()).or_insert_with(|| {
        pending.push(name.to_owned());
        pending.len() - 1
    }))
}

// === impl Shape ===

impl Shape {
    /// `held` returns the index of a field's message, and whether it is an entry of a map.
    fn new(
        message: &DescriptorProto,
        is_implicit: bool,
        mut held: impl FnMut(&str) -> Option<(usize, bool)>,
    ) -> Self {
        let is_entry = is_entry(message);
        let mut fields: Vec<_> = message
            .field
            .iter()
            .filter_map(|field| {
                let number = u32::try_from(field.number()).ok()?;
                // In an entry an absent key or value is the default one.
                let field = if is_entry {
                    Field { arity: Arity::One { implicit: true }, ..of(field, true, &mut held)? }
                } else {
                    of(field, is_implicit, &mut held)?
                };
                Some((number, field))
            })
            .collect();
        fields.sort_unstable_by_key(|(number, _)| *number);
        Self(fields)
    }

    pub(super) fn get(&self, number: u32) -> Option<Field> {
        let at = self.0.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        Some(self.0[at].1)
    }

    /// Whether the field `other` clears the field `number`, as both are of one oneof.
    pub(super) fn excludes(&self, number: u32, other: u32) -> bool {
        let oneof = |number| self.get(number).and_then(|field| field.oneof);
        oneof(number).is_some_and(|own| oneof(other) == Some(own))
    }
}

fn of(
    field: &FieldDescriptorProto,
    is_implicit: bool,
    held: &mut impl FnMut(&str) -> Option<(usize, bool)>,
) -> Option<Field> {
    let mut is_map = false;
    let mut message = || {
        let (place, is_entry) = held(field.type_name())?;
        is_map = is_entry;
        Some(place)
    };
    let kind = match field.r#type() {
        Type::Bool => Kind::Bool,
        Type::Int32 | Type::Enum => Kind::Int32,
        Type::Uint32 | Type::Sint32 => Kind::Uint32,
        Type::Int64 | Type::Uint64 | Type::Sint64 => Kind::Uint64,
        Type::Fixed32 | Type::Sfixed32 | Type::Float => Kind::Fixed32,
        Type::Fixed64 | Type::Sfixed64 | Type::Double => Kind::Fixed64,
        Type::String | Type::Bytes => Kind::Bytes,
        Type::Message => Kind::Message(message()?),
        Type::Group => Kind::Group(message()?),
    };
    // A field that is `optional` in proto3 has its own oneof.
    let oneof = field.oneof_index.and_then(|index| u32::try_from(index).ok());
    let has_message = matches!(kind, Kind::Message(_) | Kind::Group(_));
    let arity = match field.label() {
        Label::Repeated if is_map => Arity::Map,
        Label::Repeated => Arity::Many,
        _ => Arity::One { implicit: is_implicit && oneof.is_none() && !has_message },
    };
    Some(Field { kind, arity, oneof })
}

// === impl Kind ===

impl Kind {
    /// How a value of this kind is written where it stands alone.
    pub(super) const fn wire_type(self) -> u8 {
        match self {
            Self::Bool | Self::Int32 | Self::Uint32 | Self::Uint64 => 0,
            Self::Fixed64 => 1,
            Self::Bytes | Self::Message(_) => 2,
            Self::Group(_) => 3,
            Self::Fixed32 => 5,
        }
    }

    /// Whether many of them may be written as one field.
    pub(super) const fn packs(self) -> bool {
        !matches!(self, Self::Bytes | Self::Message(_) | Self::Group(_))
    }

    /// The value of a varint, as a handler sees it.
    pub(super) const fn seen(self, value: u64) -> u64 {
        match self {
            Self::Bool => (value != 0) as u64,
            Self::Int32 => value as i32 as i64 as u64,
            Self::Uint32 => value as u32 as u64,
            _ => value,
        }
    }
}
