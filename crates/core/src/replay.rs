//! A request that can be sent more than once.
//!
//! tonic's request bodies are not `Clone`, which is why tower's own retry cannot wrap a
//! `Channel`.
//! But the body of a unary call is complete the moment it is polled: one frame, then the end,
//! never `Pending`.
//! So it is drained without a wait, and every attempt is rebuilt from its parts and its bytes.

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http_body::{Body as _, Frame};
use http_body_util::Full;
use std::{
    mem,
    pin::Pin,
    task::{Context, Poll, Waker},
};
use tonic::{Status, body::Body};

/// A request that can be built as often as it is needed.
#[derive(Clone, Debug)]
pub struct Replay {
    parts: Parts,
    body: Bytes,
}

/// Why a request can be sent only once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Once {
    /// The body was not complete at once: the caller is still streaming it.
    Streaming,
    /// The body is larger than the replay buffer may be.
    TooLarge,
}

/// What was already read of a body, then the rest of it.
struct Prefixed {
    prefix: Bytes,
    rest: Body,
}

// === impl Replay ===

impl Replay {
    /// Drains the body of `request` if it is complete and has at most `cap` bytes.
    ///
    /// # Errors
    /// Otherwise, the request as good as new, and why it can be sent only once.
    #[expect(clippy::result_large_err, reason = "a request is moved, as everywhere in tower")]
    pub fn capture(
        request: http::Request<Body>,
        cap: usize,
    ) -> Result<Self, (http::Request<Body>, Once)> {
        let (parts, mut body) = request.into_parts();
        match drain(&mut body, cap) {
            Ok(body) => Ok(Self { parts, body }),
            Err((prefix, why)) => {
                let body = Body::new(Prefixed { prefix, rest: body });
                Err((http::Request::from_parts(parts, body), why))
            }
        }
    }

    /// The request once more.
    pub fn request(&self) -> http::Request<Body> {
        http::Request::from_parts(self.parts.clone(), whole(self.body.clone()))
    }

    /// Everything but the body, and the body.
    pub fn into_parts(self) -> (Parts, Bytes) {
        (self.parts, self.body)
    }
}

fn whole(body: Bytes) -> Body {
    Body::new(Full::new(body))
}

/// All of `body`, or what could be read of it and why the rest could not.
fn drain(body: &mut Body, cap: usize) -> Result<Bytes, (Bytes, Once)> {
    // Nobody is to be woken: a body that is not complete now is a stream.
    let mut cx = Context::from_waker(Waker::noop());
    let mut read = Bytes::new();
    loop {
        let data = match Pin::new(&mut *body).poll_frame(&mut cx) {
            Poll::Ready(None) => return Ok(read),
            Poll::Ready(Some(Ok(frame))) => frame.into_data(),
            // The body fails again for the one who sends it, who reports it as it is.
            Poll::Ready(Some(Err(_))) | Poll::Pending => return Err((read, Once::Streaming)),
        };
        // A gRPC request ends with its data: there are no request trailers.
        let Ok(data) = data else { continue };
        read = if read.is_empty() { data } else { join(read, &data) };
        if read.len() > cap {
            return Err((read, Once::TooLarge));
        }
    }
}

fn join(front: Bytes, back: &Bytes) -> Bytes {
    let mut joined = front.try_into_mut().unwrap_or_else(|front| BytesMut::from(&front[..]));
    joined.extend_from_slice(back);
    joined.freeze()
}

// === impl Prefixed ===

impl http_body::Body for Prefixed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if !self.prefix.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(mem::take(&mut self.prefix)))));
        }
        Pin::new(&mut self.rest).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.prefix.is_empty() && self.rest.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, StreamBody, channel::Channel};
    use std::convert::Infallible;

    async fn read(request: http::Request<Body>) -> Bytes {
        request.into_body().collect().await.unwrap().to_bytes()
    }

    fn again(request: http::Request<Body>, cap: usize) -> Replay {
        Replay::capture(request, cap).map_err(|(_, why)| why).unwrap()
    }

    fn once(request: http::Request<Body>, cap: usize) -> (http::Request<Body>, Once) {
        Replay::capture(request, cap).unwrap_err()
    }

    fn frames(parts: &'static [&'static str]) -> Body {
        let frames = parts.iter().map(|part| Ok::<_, Infallible>(Frame::data((*part).into())));
        Body::new(StreamBody::new(tokio_stream::iter(frames)))
    }

    #[tokio::test]
    async fn a_complete_body_can_be_sent_again_and_again() {
        let request = http::Request::builder().uri("/a.B/C").header("k", "v");
        let replay = again(request.body(frames(&["ab", "cd"])).unwrap(), 4);
        for _ in 0..3 {
            let again = replay.request();
            assert_eq!(
                (again.uri().path(), &again.headers()["k"]),
                ("/a.B/C", &"v".parse().unwrap())
            );
            assert_eq!(read(again).await, "abcd");
        }
    }

    #[tokio::test]
    async fn a_body_over_the_cap_is_sent_once_and_whole() {
        let request = http::Request::new(frames(&["ab", "cd", "ef"]));
        let (request, why) = once(request, 3);
        assert_eq!(why, Once::TooLarge);
        assert_eq!(read(request).await, "abcdef");
    }

    #[tokio::test]
    async fn a_body_still_streaming_is_sent_once_and_whole() {
        let (mut sender, body) = Channel::<Bytes, Infallible>::new(2);
        sender.send_data("ab".into()).await.unwrap();
        let (request, why) = once(http::Request::new(Body::new(body)), 99);
        assert_eq!(why, Once::Streaming);
        sender.send_data("cd".into()).await.unwrap();
        drop(sender);
        assert_eq!(read(request).await, "abcd");
    }

    #[tokio::test]
    async fn an_empty_body_is_complete() {
        let replay = again(http::Request::new(Body::empty()), 0);
        assert!(read(replay.request()).await.is_empty());
        assert!(replay.into_parts().1.is_empty());
    }
}
