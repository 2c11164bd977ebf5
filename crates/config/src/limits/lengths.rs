//! gRPC's framing: a flag, a length of four bytes, and as many bytes.

/// Reads the lengths of messages from their bytes, in pieces of any size.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lengths {
    most: u32,
    prefix: [u8; PREFIX],
    /// How many bytes of the prefix were read.
    read: usize,
    /// How many bytes of the message are still to come.
    left: u32,
}

/// A message that is too large: where in the piece it begins, and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLarge {
    pub(super) at: usize,
    pub(super) length: u32,
}

const PREFIX: usize = 5;

// === impl Lengths ===

impl Lengths {
    pub(super) const fn new(most: u32) -> Self {
        Self { most, prefix: [0; PREFIX], read: 0, left: 0 }
    }

    pub(super) const fn most(&self) -> u32 {
        self.most
    }

    /// Reads `piece`, up to the first message that is too large.
    pub(super) fn follow(&mut self, piece: &[u8]) -> Result<(), TooLarge> {
        let mut rest = piece;
        let mut begin = 0;
        while !rest.is_empty() {
            let skipped = rest.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
            // At most the rest of the message, which fits a u32.
            self.left -= skipped as u32;
            rest = &rest[skipped..];
            if self.read == 0 {
                begin = piece.len() - rest.len();
            }
            let taken = rest.len().min(PREFIX - self.read);
            self.prefix[self.read..self.read + taken].copy_from_slice(&rest[..taken]);
            self.read += taken;
            rest = &rest[taken..];
            if self.read == PREFIX {
                let [_, length @ ..] = self.prefix;
                (self.left, self.read) = (u32::from_be_bytes(length), 0);
                if self.left > self.most {
                    return Err(TooLarge { at: begin, length: self.left });
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    fn framed(lengths: &[u32]) -> Vec<u8> {
        let frame = |length: &u32| {
            let message = std::iter::repeat_n(0xff, *length as usize);
            [0].into_iter().chain(length.to_be_bytes()).chain(message).collect::<Vec<u8>>()
        };
        lengths.iter().flat_map(frame).collect()
    }

    #[test]
    fn the_first_message_that_is_too_large_is_found_where_it_begins() {
        let bytes = framed(&[3, 0, 4, 5]);
        assert_eq!(Lengths::new(5).follow(&bytes), Ok(()));
        assert_eq!(Lengths::new(4).follow(&bytes), Err(TooLarge { at: 22, length: 5 }));
        assert_eq!(Lengths::new(0).follow(&bytes), Err(TooLarge { at: 0, length: 3 }));
        let mut lengths = Lengths::new(4);
        assert_eq!(lengths.follow(&bytes[..24]), Ok(()), "its length is not known yet");
        assert_eq!(lengths.follow(&bytes[24..]), Err(TooLarge { at: 0, length: 5 }));
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_the_bytes_are_cut(
            lengths in vec(0..40u32, 0..6), cuts in vec(0..20usize, 0..40), most in 0..40u32,
        ) {
            let bytes = framed(&lengths);
            let mut whole = Lengths::new(most);
            let expected = whole.follow(&bytes).map_err(|large| large.length);
            prop_assert_eq!(expected.err(), lengths.iter().find(|length| **length > most).copied());
            let (mut cut, mut rest) = (Lengths::new(most), &bytes[..]);
            let mut found = Ok(());
            for at in cuts.into_iter().chain([usize::MAX]) {
                let (piece, after) = rest.split_at(at.min(rest.len()));
                rest = after;
                found = found.and_then(|()| cut.follow(piece).map_err(|large| large.length));
            }
            prop_assert_eq!(found, expected);
        }
    }
}
