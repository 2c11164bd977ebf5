//! Requests that are still arriving.

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::{
    collections::VecDeque,
    mem,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};
use tonic::{Status, body::Body};

/// A request body that is read before it is passed on, and its progress.
#[derive(Debug, Default)]
pub struct Arriving {
    kept: Kept,
    inner: Body,
}

/// The part of a body that has arrived.
#[derive(Debug, Default)]
struct Kept {
    /// The first frame, if it is one of data: most requests have no other.
    first: Option<Bytes>,
    /// Those after it.
    frames: VecDeque<Frame<Bytes>>,
    error: Option<Box<Status>>,
    size: usize,
}

/// A body of one frame, as most are that have arrived: its box is small.
struct One(Option<Bytes>);

/// A body of which enough has arrived that the rest is not awaited.
struct Read {
    kept: Kept,
    rest: Body,
}

/// The most that is buffered of a request: tonic decodes no more by default.
const MOST: usize = 4 << 20;

/// Reads the ready frames of `body`, which is passed on with them; returns its length, in bytes, if
/// that is all of it.
///
/// No waker is registered: a task will poll the body again.
pub fn gather(body: &mut Body) -> Option<u64> {
    let cx = &mut Context::from_waker(Waker::noop());
    let Poll::Ready(first) = Pin::new(&mut *body).poll_frame(cx) else { return None };
    let Some(first) = first else {
        *body = Body::empty();
        return Some(0);
    };
    let is_data = first.as_ref().is_ok_and(Frame::is_data);
    // Usually there is the message, and then an empty frame that ends it.
    let second = if is_data { poll_end(body, cx) } else { Poll::Pending };
    let has_more = !is_data || second.is_ready();
    let mut arriving = match (first.map(Frame::into_data), second) {
        (Ok(Ok(data)), Poll::Ready(None)) => {
            let size = data.len() as u64;
            *body = Body::new(One(Some(data)));
            return Some(size);
        }
        (first, second) => {
            let mut arriving = Arriving::of(body);
            arriving.kept.keep(first.map(|first| first.map_or_else(|other| other, Frame::data)));
            if let Poll::Ready(Some(second)) = second {
                arriving.kept.keep(second);
            }
            arriving
        }
    };
    let is_whole = has_more && arriving.poll_read(cx) == Poll::Ready(true);
    let size = arriving.kept.size as u64;
    *body = arriving.into_body();
    is_whole.then_some(size)
}

/// A body of which `read` has been read already, and then the `rest`.
pub fn continued(read: Bytes, rest: Body) -> Body {
    let mut kept = Kept::default();
    kept.keep(Ok(Frame::data(read)));
    Body::new(Read { kept, rest })
}

/// The poll after a frame; an empty one that ends the body is its end.
///
/// A body of HTTP/2 takes the lock of its connection for each question.
fn poll_end(body: &mut Body, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
    let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
    if let Some(Ok(frame)) = &frame
        && frame.data_ref().is_some_and(Bytes::is_empty)
        && body.is_end_stream()
    {
        return Poll::Ready(None);
    }
    Poll::Ready(frame)
}

// === impl Arriving ===

impl Arriving {
    /// Reads `body`, in whose place there is none.
    pub fn of(body: &mut Body) -> Self {
        Self { kept: Kept::default(), inner: mem::take(body) }
    }

    /// Takes frames; returns whether that is all, or as much as is buffered.
    pub fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if self.kept.error.is_some() {
            return Poll::Ready(true);
        }
        while self.kept.size < MOST {
            let Some(frame) = ready!(Pin::new(&mut self.inner).poll_frame(cx)) else {
                self.inner = Body::empty();
                return Poll::Ready(true);
            };
            // As in `poll_end`.
            let is_empty = |frame: &Frame<Bytes>| frame.data_ref().is_some_and(Bytes::is_empty);
            let may_be_last = frame.as_ref().is_ok_and(is_empty);
            if !self.kept.keep(frame) || may_be_last && self.inner.is_end_stream() {
                return Poll::Ready(true);
            }
        }
        Poll::Ready(false)
    }

    /// The body again, with the frames that were read.
    pub fn into_body(self) -> Body {
        let Self { mut kept, inner: rest } = self;
        let is_all = kept.frames.is_empty() && kept.error.is_none() && rest.is_end_stream();
        match kept.first.take_if(|_| is_all) {
            Some(data) => Body::new(One(Some(data))),
            None => Body::new(Read { kept, rest }),
        }
    }
}

// === impl Kept ===

impl Kept {
    /// Buffers a frame; returns whether there is room for more. Empty frames are left out.
    fn keep(&mut self, frame: Result<Frame<Bytes>, Status>) -> bool {
        match frame {
            Ok(frame) => {
                match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => {
                        self.size += data.len();
                        if self.is_empty() {
                            self.first = Some(data);
                        } else {
                            self.frames.push_back(Frame::data(data));
                        }
                    }
                    Err(other) => self.frames.push_back(other),
                }
                true
            }
            Err(error) => {
                self.error = Some(Box::new(error));
                false
            }
        }
    }

    fn next(&mut self) -> Option<Result<Frame<Bytes>, Status>> {
        if let Some(first) = self.first.take() {
            return Some(Ok(Frame::data(first)));
        }
        let frame = self.frames.pop_front().map(Ok);
        frame.or_else(|| self.error.take().map(|error| Err(*error)))
    }

    fn is_empty(&self) -> bool {
        self.first.is_none() && self.frames.is_empty() && self.error.is_none()
    }
}

// === impl One ===

impl HttpBody for One {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(self.0.take().map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, Bytes::len) as u64)
    }
}

// === impl Read ===

impl HttpBody for Read {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.kept.next() {
            Some(kept) => Poll::Ready(Some(kept)),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.kept.is_empty() && self.rest.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use proptest::prelude::*;

    /// Frames, and failures; `None` means that the next is not ready.
    #[derive(Clone, Debug)]
    struct Frames(VecDeque<Option<Result<Vec<u8>, ()>>>);

    impl HttpBody for Frames {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            let Some(next) = self.0.pop_front() else { return Poll::Ready(None) };
            let Some(frame) = next else {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            };
            let frame = frame.map(|data| Frame::data(data.into()));
            Poll::Ready(Some(frame.map_err(|()| Status::cancelled("gone"))))
        }
    }

    fn body(frames: &[Option<Result<Vec<u8>, ()>>]) -> Body {
        Body::new(Frames(frames.iter().cloned().collect()))
    }

    /// All of its bytes, and whether it has failed.
    async fn read(mut body: Body) -> (Vec<u8>, bool) {
        let mut all = Vec::new();
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => all.extend(frame.into_data().unwrap()),
                Err(_) => return (all, true),
            }
        }
        (all, false)
    }

    proptest! {
        #[test]
        fn what_is_looked_into_is_handed_on_as_it_was(
            frames in prop::collection::vec(
                prop::option::of(prop::result::maybe_err(
                    prop::collection::vec(0..9_u8, 0..4), Just(()))),
                0..6,
            ),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let expected = read(body(&frames)).await;
                let mut looked = body(&frames);
                let size = gather(&mut looked);
                let is_there = !frames.iter().take_while(|frame| {
                    !matches!(frame, Some(Err(())))
                }).any(Option::is_none);
                prop_assert_eq!(size.is_some(), is_there);
                if let Some(size) = size {
                    prop_assert_eq!(size, expected.0.len() as u64);
                }
                if size.is_some() {
                    prop_assert_eq!(gather(&mut looked), size, "again");
                }
                prop_assert_eq!(read(looked).await, expected);
                Ok(())
            })?;
        }
    }

    #[tokio::test]
    async fn a_body_goes_on_after_what_was_read_of_it() {
        for (frames, failed) in
            [(&[Some(Ok(b"rest".to_vec()))][..], false), (&[Some(Err(()))], true)]
        {
            let rest = read(body(frames)).await.0;
            for begin in [&b"read"[..], b""] {
                let all = continued(Bytes::copy_from_slice(begin), body(frames));
                assert_eq!(read(all).await, ([begin, &rest].concat(), failed));
            }
        }
    }

    #[tokio::test]
    async fn a_message_and_its_end_take_one_small_box() {
        let mut body = body(&[Some(Ok(b"message".to_vec())), Some(Ok(Vec::new()))]);
        assert_eq!(gather(&mut body), Some(7));
        assert_eq!(body.size_hint().exact(), Some(7));
        assert_eq!(read(body).await, (b"message".to_vec(), false));
    }
}
