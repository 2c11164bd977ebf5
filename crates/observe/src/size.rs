//! How large messages are, without gRPC's framing: five bytes before each.

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};
use tonic::{Status, body::Body};

/// The length of a message's prefix: a flag and four bytes of length.
const PREFIX: u8 = 5;

/// Adds up the messages in a stream of bytes that may be split anywhere.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sizer {
    /// Of all messages.
    total: u64,
    /// The rest of the current message that has not arrived.
    rest: u32,
    /// How many bytes of the next prefix have arrived.
    prefix: u8,
    length: u32,
}

/// The size of a request's messages.
#[derive(Debug, Default)]
pub(crate) struct Request {
    /// Set when its body is complete.
    whole: Option<u64>,
    /// The bytes counted so far; reused once the body is gone.
    counted: Arc<AtomicU64>,
}

/// A request body that is passed on unchanged, and counted.
struct Counted {
    inner: Body,
    sizer: Sizer,
    total: Arc<AtomicU64>,
}

// === impl Sizer ===

impl Sizer {
    pub(crate) fn add(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            if let (0, 0, Some(prefix)) = (self.rest, self.prefix, data.first_chunk::<5>()) {
                self.rest = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
                data = &data[prefix.len()..];
                continue;
            }
            if self.rest > 0 {
                let taken = data.len().min(self.rest as usize);
                self.total += taken as u64;
                self.rest -= taken as u32;
                data = &data[taken..];
                continue;
            }
            // A split prefix: a flag, which says whether it is compressed, and the length.
            if self.prefix > 0 {
                self.length = self.length << 8 | u32::from(data[0]);
            }
            self.prefix += 1;
            data = &data[1..];
            if self.prefix == PREFIX {
                self.rest = self.length;
                (self.prefix, self.length) = (0, 0);
            }
        }
    }

    pub(crate) const fn total(&self) -> u64 {
        self.total
    }
}

// === impl Request ===

impl Request {
    /// Watches the body of `request`. One of `known` length, as that of a unary call in a stack
    /// that repeats calls, counts as one message, and is left unchanged.
    #[inline]
    pub(crate) fn watch(&mut self, request: &mut http::Request<Body>, known: Option<u64>) {
        let length = known.or_else(|| request.body().size_hint().exact());
        self.whole = length.map(|length| length.saturating_sub(u64::from(PREFIX)));
        if length.is_none() {
            self.count(request.body_mut());
        }
    }

    fn count(&mut self, body: &mut Body) {
        match Arc::get_mut(&mut self.counted) {
            Some(total) => *total.get_mut() = 0,
            None => self.counted = Arc::default(),
        }
        let (inner, total) = (std::mem::take(body), self.counted.clone());
        *body = Body::new(Counted { inner, sizer: Sizer::default(), total });
    }

    pub(crate) fn total(&self) -> u64 {
        self.whole.unwrap_or_else(|| self.counted.load(Ordering::Relaxed))
    }
}

// === impl Counted ===

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.sizer.add(data);
            self.total.store(self.sizer.total(), Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn messages_are_added_up_wherever_the_bytes_are_cut(
            sizes in prop::collection::vec(0..600_u32, 0..6),
            step in 1..40_usize,
        ) {
            let mut bytes = Vec::new();
            for size in &sizes {
                bytes.push(0);
                bytes.extend(size.to_be_bytes());
                bytes.extend(vec![1; *size as usize]);
            }
            let mut sizer = Sizer::default();
            bytes.chunks(step).for_each(|chunk| sizer.add(chunk));
            prop_assert_eq!(sizer.total(), sizes.iter().copied().map(u64::from).sum::<u64>());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            Sizer::default().add(&bytes);
        }
    }
}
