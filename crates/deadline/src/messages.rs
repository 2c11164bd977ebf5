//! The progress of a response: whether its first message has arrived, or its second.

use crate::stage::Stage;
use cinchona_plumbing::Prefixes;

/// How many messages have arrived, as far as it matters.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Messages {
    prefixes: Prefixes,
    begun: u8,
}

// === impl Messages ===

impl Messages {
    /// The current stage.
    pub(crate) const fn stage(&self) -> Stage {
        match (self.begun, self.prefixes.rest()) {
            (0, _) | (1, 1..) => Stage::First,
            (1, 0) if self.prefixes.is_between() => Stage::Second,
            _ => Stage::Rest,
        }
    }

    #[inline]
    pub(crate) fn read(&mut self, mut data: &[u8]) {
        // Bytes after the beginning of the second message are irrelevant.
        while self.begun < 2 && self.prefixes.next(&mut data).is_some() {
            self.begun += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stage(frames: &[&[u8]]) -> Stage {
        let mut messages = Messages::default();
        frames.iter().for_each(|frame| messages.read(frame));
        messages.stage()
    }

    #[test]
    fn a_message_is_there_once_its_last_byte_is() {
        let message = [0, 0, 0, 0, 2, 7, 7];
        assert_eq!(stage(&[]), Stage::First);
        assert_eq!(stage(&[&message[..6]]), Stage::First);
        assert_eq!(stage(&[&message]), Stage::Second);
        assert_eq!(stage(&[&[0; 5]]), Stage::Second, "it may be empty");
        assert_eq!(stage(&[&message, &[0]]), Stage::Rest);
        assert_eq!(stage(&[b"no message"]), Stage::First);
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_messages_are_cut_into_frames(
            lengths in proptest::collection::vec(0_u32..300, 0..4),
            cuts in proptest::collection::vec(1_usize..40, 1..60),
        ) {
            let mut bytes = Vec::new();
            for length in &lengths {
                bytes.push(1);
                bytes.extend(length.to_be_bytes());
                bytes.resize(bytes.len() + *length as usize, 9);
            }
            let (mut rest, mut frames) = (&bytes[..], Vec::new());
            for cut in cuts {
                let (frame, after) = rest.split_at(cut.min(rest.len()));
                frames.push(frame);
                rest = after;
            }
            frames.push(rest);
            let expected = match lengths.len() {
                0 => Stage::First,
                1 => Stage::Second,
                _ => Stage::Rest,
            };
            prop_assert_eq!(stage(&frames), expected);
        }
    }
}
