//! gRPC's framing: before each message a flag, 1 if it is compressed, and four bytes of length
//! ([PROTOCOL-HTTP2]).
//!
//! [PROTOCOL-HTTP2]: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md

/// The length of a prefix.
pub const PREFIX: usize = 5;

/// Finds the prefixes of the messages in a stream of bytes that may be split anywhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct Prefixes {
    /// The rest of the current message that has not arrived; the length so far, while its prefix
    /// arrives.
    rest: u32,
    /// How many bytes of the next prefix have arrived.
    read: u8,
    flag: u8,
}

/// What is before a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// Where it begins in the bytes that it ends in; 0 if it begins before them.
    pub at: usize,
    /// 0, or 1 if the message is compressed.
    pub flag: u8,
    /// The length of the message.
    pub length: u32,
}

/// The first message in `bytes`: its flag, itself, and what follows it; `None` if it is incomplete.
pub fn first_message(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[flag, ref length @ ..], rest) = bytes.split_first_chunk::<PREFIX>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (message, rest) = rest.split_at_checked(length)?;
    Some((flag, message, rest))
}

// === impl Prefixes ===

impl Prefixes {
    /// The next prefix that ends in `data`, which is then what follows its message; `None` if there
    /// is none, and all is read.
    #[inline]
    pub fn next(&mut self, data: &mut &[u8]) -> Option<Prefix> {
        if data.is_empty() {
            return None;
        }
        let before = data.len();
        self.skip(data);
        let at = before - data.len();
        // Usually a prefix is in one piece, and its message with it.
        if let (0, Some((&[flag, ref length @ ..], rest))) =
            (self.read, data.split_first_chunk::<PREFIX>())
        {
            *data = rest;
            self.rest = u32::from_be_bytes(*length);
            let prefix = Prefix { at, flag, length: self.rest };
            self.skip(data);
            return Some(prefix);
        }
        self.next_of_pieces(data, at)
    }

    /// A prefix that is split, byte by byte.
    fn next_of_pieces(&mut self, data: &mut &[u8], at: usize) -> Option<Prefix> {
        while let Some((byte, rest)) = data.split_first() {
            *data = rest;
            match self.read {
                0 => self.flag = *byte,
                _ => self.rest = self.rest << 8 | u32::from(*byte),
            }
            self.read += 1;
            if usize::from(self.read) == PREFIX {
                self.read = 0;
                let prefix = Prefix { at, flag: self.flag, length: self.rest };
                self.skip(data);
                return Some(prefix);
            }
        }
        None
    }

    /// Reads what `data` has of the current message.
    #[inline]
    pub fn skip(&mut self, data: &mut &[u8]) {
        let taken = data.len().min(self.rest() as usize);
        self.rest -= taken as u32;
        *data = &data[taken..];
    }

    /// How many bytes of the current message have not arrived.
    #[inline]
    pub const fn rest(&self) -> u32 {
        if self.read == 0 { self.rest } else { 0 }
    }

    /// The flag of a prefix of which only a part has arrived.
    #[inline]
    pub const fn flag(&self) -> Option<u8> {
        if self.read == 0 { None } else { Some(self.flag) }
    }

    /// Whether the bytes so far end with a whole message, or are none.
    #[inline]
    pub const fn is_between(&self) -> bool {
        self.rest == 0 && self.read == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The prefixes in bytes that are all there, each at its place.
    fn prefixes(bytes: &[u8]) -> Vec<Prefix> {
        let (mut all, mut at) = (Vec::new(), 0);
        while let Some(&[flag, ref length @ ..]) = bytes[at..].first_chunk::<PREFIX>() {
            let length = u32::from_be_bytes(*length);
            all.push(Prefix { at, flag, length });
            at = (at + PREFIX + length as usize).min(bytes.len());
        }
        all
    }

    /// `bytes`, cut into pieces.
    fn cut<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
        let (mut rest, mut pieces) = (bytes, Vec::new());
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, after) = rest.split_at((*cut).min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        pieces
    }

    #[test]
    fn the_first_message_is_what_its_prefix_says_or_incomplete() {
        let bytes = b"\x01\0\0\0\x02ab\0\0\0\0\x01c";
        assert_eq!(first_message(bytes), Some((1, &b"ab"[..], &b"\0\0\0\0\x01c"[..])));
        assert_eq!(first_message(&bytes[..7]), Some((1, &b"ab"[..], &[][..])));
        assert_eq!(first_message(&[0; 5]), Some((0, &[][..], &[][..])), "it may be empty");
        assert!((0..7).all(|cut| first_message(&bytes[..cut]).is_none()));
        assert_eq!(first_message(&[0xff; 64]), None);
    }

    proptest! {
        #[test]
        fn all_prefixes_are_found_wherever_the_bytes_are_cut(
            messages in prop::collection::vec((any::<u8>(), 0..12_usize), 0..6),
            lacking in 0..12_usize,
            cuts in prop::collection::vec(1..9_usize, 1..9),
        ) {
            let mut bytes = Vec::new();
            for (flag, length) in messages {
                bytes.push(flag);
                bytes.extend((length as u32).to_be_bytes());
                bytes.resize(bytes.len() + length, 0xff);
            }
            bytes.truncate(bytes.len().saturating_sub(lacking));
            let (mut framing, mut found, mut before) = (Prefixes::default(), Vec::new(), 0);
            for piece in cut(&bytes, &cuts) {
                let mut rest = piece;
                loop {
                    let read = piece.len() - rest.len();
                    let Some(prefix) = framing.next(&mut rest) else { break };
                    let is_here = read + prefix.at > 0;
                    found.push((is_here.then_some(before + read + prefix.at), prefix));
                }
                prop_assert!(rest.is_empty());
                before += piece.len();
                let expected = prefixes(&bytes[..before]);
                prop_assert_eq!(found.len(), expected.len());
                let end = expected.last().map_or(0, |last| last.at + PREFIX + last.length as usize);
                prop_assert_eq!(framing.rest() as usize, end.saturating_sub(before));
                prop_assert_eq!(framing.flag(), bytes[..before].get(end).copied());
                prop_assert_eq!(framing.is_between(), end == before);
            }
            for ((at, found), expected) in found.into_iter().zip(prefixes(&bytes)) {
                prop_assert_eq!((found.flag, found.length), (expected.flag, expected.length));
                prop_assert!(at.is_none_or(|at| at == expected.at));
            }
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), cut in 0..64_usize) {
            let mut framing = Prefixes::default();
            let (first, second) = bytes.split_at(cut.min(bytes.len()));
            for mut piece in [first, second] {
                while framing.next(&mut piece).is_some() {}
            }
            first_message(&bytes);
        }
    }
}
