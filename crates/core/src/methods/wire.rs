//! The encoding of messages ([encoding]).
//!
//! [encoding]: https://protobuf.dev/programming-guides/encoding/

use prost::encoding::{decode_varint, encode_varint};

/// How deep messages may be nested: as deep as prost reads them.
pub(super) const DEEPEST: usize = 100;

/// A field as encoded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written<'a> {
    pub(super) number: u32,
    pub(super) value: Value<'a>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Varint(u64),
    Fixed64(&'a [u8]),
    Bytes(&'a [u8]),
    Group(&'a [u8]),
    Fixed32(&'a [u8]),
}

/// The last value of a string field, `Some(None)` if there is none, or it is empty; a later field
/// that `ends` it clears it. `None` if the message is broken.
pub(super) fn string(
    mut message: &[u8],
    number: u32,
    ends: impl Fn(u32) -> bool,
) -> Option<Option<&[u8]>> {
    let mut found = None;
    while !message.is_empty() {
        let written = next(&mut message)?;
        if written.number == number {
            let Value::Bytes(bytes) = written.value else { return None };
            found = Some(bytes).filter(|bytes| !bytes.is_empty());
        } else if found.is_some() && ends(written.number) {
            found = None;
        }
    }
    Some(found)
}

/// The next field of a message that is not at its end; `None` if it is broken.
pub(super) fn next<'a>(rest: &mut &'a [u8]) -> Option<Written<'a>> {
    let (number, wire_type) = tag(rest)?;
    let value = match wire_type {
        0 => Value::Varint(varint(rest)?),
        1 => Value::Fixed64(take(rest, 8)?),
        2 => Value::Bytes(delimited(rest)?),
        3 => Value::Group(group(rest, number)?),
        5 => Value::Fixed32(take(rest, 4)?),
        _ => return None,
    };
    Some(Written { number, value })
}

fn tag(rest: &mut &[u8]) -> Option<(u32, u64)> {
    let tag = varint(rest)?;
    let number = u32::try_from(tag).ok()? >> 3;
    (number > 0).then_some((number, tag & 7))
}

/// The content of a group, up to its end, without recursion for nested ones.
fn group<'a>(rest: &mut &'a [u8], number: u32) -> Option<&'a [u8]> {
    let (start, mut open) = (*rest, vec![number]);
    loop {
        let before = rest.len();
        let (number, wire_type) = tag(rest)?;
        match wire_type {
            0 => _ = varint(rest)?,
            1 => _ = take(rest, 8)?,
            2 => _ = delimited(rest)?,
            3 if open.len() < DEEPEST => open.push(number),
            4 if open.pop() == Some(number) => {}
            5 => _ = take(rest, 4)?,
            _ => return None,
        }
        if open.is_empty() {
            return Some(&start[..start.len() - before]);
        }
    }
}

fn delimited<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(varint(rest)?).ok()?;
    take(rest, length)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

pub(super) fn varint(rest: &mut &[u8]) -> Option<u64> {
    decode_varint(rest).ok()
}

// === impl Written ===

impl<'a> Written<'a> {
    pub(super) const fn bytes(&self) -> Option<&'a [u8]> {
        match self.value {
            Value::Bytes(bytes) | Value::Group(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub(super) fn encoded(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let tag = |wire_type: u8| u64::from(self.number) << 3 | u64::from(wire_type);
        encode_varint(tag(self.value.wire_type()), &mut out);
        match self.value {
            Value::Varint(value) => encode_varint(value, &mut out),
            Value::Fixed32(bytes) | Value::Fixed64(bytes) => out.extend_from_slice(bytes),
            Value::Bytes(bytes) => {
                encode_varint(bytes.len() as u64, &mut out);
                out.extend_from_slice(bytes);
            }
            Value::Group(bytes) => {
                out.extend_from_slice(bytes);
                encode_varint(tag(4), &mut out);
            }
        }
        out
    }
}

// === impl Value ===

impl Value<'_> {
    pub(super) const fn wire_type(&self) -> u8 {
        match self {
            Value::Varint(_) => 0,
            Value::Fixed64(_) => 1,
            Value::Bytes(_) => 2,
            Value::Group(_) => 3,
            Value::Fixed32(_) => 5,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `1: 7` as a number, as eight bytes, as one byte and as four bytes.
    const PLAIN: [&[u8]; 4] =
        [&[8, 7], &[9, 1, 2, 3, 4, 5, 6, 7, 8], &[10, 1, 7], &[13, 1, 2, 3, 4]];

    /// So many groups, each in the one before.
    fn nested(depth: usize) -> Vec<u8> {
        [vec![11; depth], vec![12; depth]].concat()
    }

    #[test]
    fn a_field_of_each_type_is_read_and_written_as_the_same() {
        let group = [&[19][..], &PLAIN.concat(), &nested(1), &[20]].concat();
        for field in PLAIN.into_iter().chain([&group[..]]) {
            let whole = [field, &[8, 9]].concat();
            let mut rest = &whole[..];
            let read = next(&mut rest).unwrap();
            assert_eq!((read.encoded(), rest), (field.to_vec(), &[8, 9][..]));
            for end in 1..field.len() {
                assert!(next(&mut &field[..end]).is_none(), "{end} bytes of {field:?}");
            }
        }
    }

    #[test]
    fn a_number_of_none_and_an_unknown_type_are_refused() {
        for broken in [&[0, 7][..], &[14, 7], &[15, 7], &[12], &[11, 20]] {
            assert!(next(&mut &*broken).is_none(), "{broken:?}");
        }
    }

    #[test]
    fn groups_are_nested_as_deep_as_prost_reads_them() {
        assert!(next(&mut &*nested(DEEPEST)).is_some());
        assert!(next(&mut &*nested(DEEPEST + 1)).is_none());
    }
}
