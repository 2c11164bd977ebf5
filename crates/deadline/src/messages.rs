//! The progress of a response: whether its first message has arrived, or its second.

use crate::stage::Stage;

/// How many messages have arrived, as far as it matters: by their prefixes, a byte and a length of
/// four.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Messages {
    prefix: [u8; 5],
    read: usize,
    left: usize,
    complete: u8,
}

// === impl Messages ===

impl Messages {
    pub(crate) const fn new() -> Self {
        Self { prefix: [0; 5], read: 0, left: 0, complete: 0 }
    }

    /// The current stage.
    pub(crate) const fn stage(&self) -> Stage {
        match (self.complete, self.read) {
            (0, _) => Stage::First,
            (1, 0) => Stage::Second,
            _ => Stage::Rest,
        }
    }

    pub(crate) fn read(&mut self, mut data: &[u8]) {
        // Usually a frame is a message.
        if let (0, 0, Some([_, length @ ..])) = (self.read, self.complete, data.first_chunk::<5>())
            && u32::from_be_bytes(*length) as usize == data.len() - self.prefix.len()
        {
            self.complete = 1;
            return;
        }
        // Bytes after the beginning of the second message are irrelevant.
        while !data.is_empty() && self.stage() != Stage::Rest {
            if self.read < self.prefix.len() {
                self.prefix[self.read] = data[0];
                self.read += 1;
                data = &data[1..];
                let [_, length @ ..] = self.prefix;
                self.left = u32::from_be_bytes(length) as usize;
            } else {
                let taken = self.left.min(data.len());
                self.left -= taken;
                data = &data[taken..];
            }
            if self.read == self.prefix.len() && self.left == 0 {
                self.complete += 1;
                self.read = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stage(frames: &[&[u8]]) -> Stage {
        let mut messages = Messages::new();
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
