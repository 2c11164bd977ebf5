//! How large messages are, without gRPC's framing: five bytes before each.

use cinchona_plumbing::{PREFIX, Prefixes, watch_request};
use http_body::Body as _;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
};
use tonic::body::Body;

/// Adds up the messages in a stream of bytes that may be split anywhere.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sizer {
    /// Of all messages that have begun.
    begun: u64,
    prefixes: Prefixes,
}

/// The size of a request's messages.
#[derive(Debug, Default)]
pub(crate) struct Request {
    /// Set when its body is complete.
    whole: Option<u64>,
    /// The bytes counted so far; reused once the body is gone.
    counted: Arc<AtomicU64>,
}

// === impl Sizer ===

impl Sizer {
    #[inline]
    pub(crate) fn add(&mut self, mut data: &[u8]) {
        while let Some(prefix) = self.prefixes.next(&mut data) {
            self.begun += u64::from(prefix.length);
        }
    }

    pub(crate) fn total(&self) -> u64 {
        self.begun - u64::from(self.prefixes.rest())
    }
}

// === impl Request ===

impl Request {
    /// Watches the body of `request`. One of `known` length, as that of a unary call in a stack
    /// that repeats calls, counts as one message, and is left unchanged.
    #[inline]
    pub(crate) fn watch(&mut self, request: &mut http::Request<Body>, known: Option<u64>) {
        let length = known.or_else(|| request.body().size_hint().exact());
        self.whole = length.map(|length| length.saturating_sub(PREFIX as u64));
        if length.is_none() {
            self.count(request.body_mut());
        }
    }

    fn count(&mut self, body: &mut Body) {
        match Arc::get_mut(&mut self.counted) {
            Some(total) => *total.get_mut() = 0,
            None => self.counted = Arc::default(),
        }
        let (total, mut sizer) = (self.counted.clone(), Sizer::default());
        watch_request(body, move |polled| {
            if let Poll::Ready(Some(Ok(frame))) = polled
                && let Some(data) = frame.data_ref()
            {
                sizer.add(data);
                total.store(sizer.total(), Ordering::Relaxed);
            }
        });
    }

    pub(crate) fn total(&self) -> u64 {
        self.whole.unwrap_or_else(|| self.counted.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_has_arrived_of_messages_is_added_up_wherever_the_bytes_are_cut(
            sizes in prop::collection::vec(0..600_u32, 0..6),
            step in 1..40_usize,
        ) {
            // Each byte, and whether it is of a message.
            let mut bytes = Vec::new();
            for size in &sizes {
                bytes.extend([0].into_iter().chain(size.to_be_bytes()).map(|byte| (byte, false)));
                bytes.resize(bytes.len() + *size as usize, (1, true));
            }
            let (mut sizer, mut expected) = (Sizer::default(), 0);
            for chunk in bytes.chunks(step) {
                expected += chunk.iter().filter(|(_, is_of_a_message)| *is_of_a_message).count();
                sizer.add(&chunk.iter().map(|(byte, _)| *byte).collect::<Vec<_>>());
                prop_assert_eq!(sizer.total(), expected as u64);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            Sizer::default().add(&bytes);
        }
    }
}
