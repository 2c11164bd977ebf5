//! gRPC's framing of messages, by which valid answers are distinguished from others.

use crate::prefixes::Prefixes;
use std::fmt;

/// Follows the messages in a stream of bytes that may be split anywhere: each has a flag, 0 or 1,
/// four bytes of length, and so many bytes.
///
/// *Why:* a client drops an invalid answer (a proxy's page, a broken server) while reading it; a
/// layer that judges servers must not count that as a cancellation.
#[derive(Clone, Copy, Default)]
pub struct Framing {
    prefixes: Prefixes,
    /// How many messages have begun, up to 2.
    begun: u8,
    is_broken: bool,
}

// === impl Framing ===

impl Framing {
    /// Reads on.
    #[inline]
    pub fn read(&mut self, mut data: &[u8]) {
        if self.is_broken {
            return;
        }
        while let Some(prefix) = self.prefixes.next(&mut data) {
            if prefix.flag > 1 {
                return self.breaks();
            }
            self.begun = (self.begun + 1).min(2);
        }
        if self.prefixes.flag().is_some_and(|flag| flag > 1) {
            self.breaks();
        }
    }

    #[cold]
    fn breaks(&mut self) {
        *self = Self { prefixes: Prefixes::default(), is_broken: true, ..*self };
    }

    /// Whether the bytes so far cannot be gRPC's.
    pub const fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Whether a whole message was read.
    pub const fn has_message(&self) -> bool {
        self.begun > 1 || self.begun == 1 && self.prefixes.rest() == 0
    }

    /// Whether the bytes so far end with a whole message, or are none.
    pub const fn is_whole(&self) -> bool {
        !self.is_broken && self.prefixes.is_between()
    }
}

impl fmt::Debug for Framing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Framing")
            .field("is_broken", &self.is_broken)
            .field("is_whole", &self.is_whole())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(parts: &[&[u8]]) -> Framing {
        let mut framing = Framing::default();
        parts.iter().for_each(|part| framing.read(part));
        framing
    }

    #[test]
    fn a_page_is_broken_with_its_first_byte() {
        for page in ["<html>", "{\"error\": 1}", "no healthy upstream", "\r\n"] {
            assert!(read(&[page.as_bytes()]).is_broken(), "{page}");
        }
        assert!(read(&[b"\0\0\0\0\x01a", b"<"]).is_broken(), "after a message, too");
        assert!(!read(&[]).is_broken() && read(&[]).is_whole());
    }

    #[test]
    fn a_message_before_a_page_was_one() {
        for page in ["<", "<html>a long page</html>"] {
            let message = b"\0\0\0\0\x01a";
            let (apart, at_once) = (read(&[message, page.as_bytes()]), [message, page.as_bytes()]);
            for framing in [apart, read(&[&at_once.concat()])] {
                assert!(framing.is_broken() && framing.has_message() && !framing.is_whole());
            }
        }
    }

    #[test]
    fn a_message_that_is_cut_short_is_not_whole() {
        for cut in 1..7 {
            let framing = read(&[&b"\0\0\0\0\x02ab"[..cut]]);
            assert_eq!((framing.is_whole(), framing.is_broken()), (cut == 7, false), "{cut}");
            assert_eq!(framing.has_message(), cut == 7, "{cut}");
        }
    }

    fn message() -> impl Strategy<Value = (u8, Vec<u8>)> {
        (0u8..2, prop::collection::vec(any::<u8>(), 0..20))
    }

    proptest! {
        #[test]
        fn messages_are_whole_wherever_the_bytes_are_cut(
            messages in prop::collection::vec(message(), 0..6),
            cuts in prop::collection::vec(1usize..9, 1..9),
        ) {
            let mut bytes = Vec::new();
            for (flag, message) in &messages {
                bytes.push(*flag);
                bytes.extend_from_slice(&(message.len() as u32).to_be_bytes());
                bytes.extend_from_slice(message);
            }
            let mut cuts = cuts.iter().cycle();
            let (mut framing, mut rest) = (Framing::default(), &bytes[..]);
            while !rest.is_empty() {
                let (part, after) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                framing.read(part);
                rest = after;
            }
            prop_assert!(framing.is_whole() && !framing.is_broken());
        }
    }
}
