//! The lengths of messages, by their prefixes.

use cinchona_plumbing::{Prefix, Prefixes};

/// Reads the lengths of messages from their bytes, in pieces of any size.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lengths {
    most: u32,
    prefixes: Prefixes,
}

/// A message that is too large: where in the piece it begins, and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLarge {
    pub(super) at: usize,
    pub(super) length: u32,
}

// === impl Lengths ===

impl Lengths {
    pub(super) fn new(most: u32) -> Self {
        Self { most, prefixes: Prefixes::default() }
    }

    pub(super) const fn most(&self) -> u32 {
        self.most
    }

    /// Reads `piece`, up to the first message that is too large.
    pub(super) fn follow(&mut self, piece: &[u8]) -> Result<(), TooLarge> {
        let (mut rest, mut before) = (piece, 0);
        while let Some(Prefix { at, length, .. }) = self.prefixes.next(&mut rest) {
            if length > self.most {
                return Err(TooLarge { at: before + at, length });
            }
            before = piece.len() - rest.len();
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
