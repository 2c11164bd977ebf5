//! The response's body, which ends at an instant or after a silence.

use crate::bound::{Bound, Stage, Timer};
use bytes::Bytes;
use cinchona_core::{BoxError, status};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

pin_project! {
    /// A response body that ends when its time is over, if need be with an error.
    #[derive(Debug)]
    pub struct BoundBody<B> {
        #[pin]
        inner: Option<B>,
        #[pin]
        timer: Timer,
        messages: Messages,
    }
}

/// How many messages have come, as far as it matters: by their prefixes, a byte and a length of
/// four.
#[derive(Clone, Copy, Debug, Default)]
struct Messages {
    prefix: [u8; 5],
    read: usize,
    left: usize,
    complete: u8,
}

// === impl BoundBody ===

impl<B> BoundBody<B> {
    pub(crate) fn new(inner: B, bound: Option<Bound>) -> Self {
        Self { inner: Some(inner), timer: Timer::new(bound), messages: Messages::default() }
    }
}

impl<B> Default for BoundBody<B> {
    /// A body without frames, for a response that was made by an interceptor.
    fn default() -> Self {
        Self { inner: None, timer: Timer::new(None), messages: Messages::default() }
    }
}

impl<B> Body for BoundBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        match inner.poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref().filter(|_| this.timer.bound().is_some()) {
                    this.messages.read(data);
                    this.timer.as_mut().heard();
                    // A stream whose next frame is always there never waits, and must end as well.
                    if this.messages.stage() == Stage::Rest
                        && let Some(elapsed) = this.timer.bound().and_then(Bound::whole_is_over)
                    {
                        this.inner.set(None);
                        return Poll::Ready(Some(Err(elapsed.into())));
                    }
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) if this.timer.bound().is_none() => {
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(Some(Err(error))) => {
                Poll::Ready(Some(Err(status::of_error(error.into()).into())))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                let elapsed = ready!(this.timer.poll_end(cx, this.messages.stage()));
                // Drops the body: HTTP/2 resets the stream.
                this.inner.set(None);
                Poll::Ready(Some(Err(elapsed.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

// === impl Messages ===

impl Messages {
    /// What is waited for now.
    const fn stage(&self) -> Stage {
        match (self.complete, self.read) {
            (0, _) => Stage::First,
            (1, 0) => Stage::Second,
            _ => Stage::Rest,
        }
    }

    fn read(&mut self, mut data: &[u8]) {
        // What comes after the beginning of the second changes nothing.
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
