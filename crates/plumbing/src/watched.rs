//! A request body that is passed on unchanged, and watched.

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::{
    mem,
    pin::Pin,
    task::{Context, Poll},
};
use tonic::{Status, body::Body};

struct Watched<F> {
    /// Dropped before the body.
    sees: F,
    inner: Body,
}

/// What a poll of a request's body has returned.
type Polled = Poll<Option<Result<Frame<Bytes>, Status>>>;

/// From now on, `sees` is called with what each poll of `body` returns, and dropped before it.
pub fn watch_request(body: &mut Body, sees: impl FnMut(&Polled) + Send + Unpin + 'static) {
    let inner = mem::take(body);
    *body = Body::new(Watched { sees, inner });
}

// === impl Watched ===

impl<F: FnMut(&Polled) + Unpin> HttpBody for Watched<F> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        (self.sees)(&polled);
        polled
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
    use http_body_util::{BodyExt, Full};
    use std::sync::{Arc, Mutex};

    #[tokio::test]
    async fn a_watched_body_is_passed_on_and_each_poll_of_it_is_seen() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut body = Body::new(Full::new(Bytes::from_static(b"message")));
        let by = seen.clone();
        watch_request(&mut body, move |polled| {
            let Poll::Ready(frame) = polled else { panic!("it is all there") };
            let data = frame.as_ref().map(|frame| frame.as_ref().unwrap().data_ref().cloned());
            by.lock().unwrap().push(data.flatten());
        });
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(7), false));
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "message");
        assert!(body.is_end_stream() && body.frame().await.is_none());
        assert_eq!(*seen.lock().unwrap(), [Some(Bytes::from_static(b"message")), None]);
        drop(body);
        assert_eq!(Arc::strong_count(&seen), 1, "with the body");
    }
}
