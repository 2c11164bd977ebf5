//! A request that can be sent more than once.
//!
//! tonic's request bodies are not `Clone`, so tower's own retry cannot wrap a `Channel`. But the
//! body of a unary call is complete when it is first polled: one frame, then the end, never
//! `Pending`. So it is drained without a wait, and every attempt is rebuilt from its parts and its
//! bytes. A body that is still being streamed is recorded as attempts read it: see
//! [`tape`](self::tape). A body that fails is passed on as failing: the server never sees an end
//! that the body did not have.

mod buffer;
mod tape;
mod whole;

pub use buffer::ReplayBuffer;

use buffer::Reservation;
use bytes::{Bytes, BytesMut};
use http::{Extensions, HeaderName, HeaderValue, Method, Request, Uri, Version, request::Parts};
use http_body::Body as _;
use std::{
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};
use tape::{Frames, Tape, Undrained};
use tonic::{GrpcMethod, Status, body::Body};

/// A request that can be rebuilt any number of times while it fits its buffer. A `C` in its
/// extensions is not copied: each attempt receives its own.
#[derive(Debug)]
pub struct Replay<C> {
    head: Head<C>,
    body: Recording,
    built: u32,
}

/// A copy of a request's parts, with as few allocations as possible: it is made for every call.
#[derive(Debug)]
struct Head<C> {
    method: Method,
    uri: Uri,
    version: Version,
    headers: Vec<(HeaderName, HeaderValue)>,
    extensions: Kept<C>,
}

/// A copy of a request's extensions.
#[derive(Debug)]
enum Kept<C> {
    /// Only types that generated clients and our own layers insert.
    Known(Option<GrpcMethod<'static>>, PhantomData<fn() -> C>),
    All(Extensions),
}

#[derive(Debug)]
enum Recording {
    Whole {
        bytes: Bytes,
        _reserved: Option<Reservation>,
    },
    Tape(Arc<Tape>),
    /// It was complete, was sent, and is not needed any more.
    Settled,
}

/// The parts and the bytes of `request` if its body is complete and has at most `cap` bytes;
/// otherwise the unchanged request.
#[expect(clippy::result_large_err, reason = "a request is moved, as everywhere in tower")]
pub fn whole(request: Request<Body>, cap: usize) -> Result<(Parts, Bytes), Request<Body>> {
    let (parts, body) = request.into_parts();
    match Recording::of(body, &ReplayBuffer::new(cap, cap)) {
        Recording::Whole { bytes, .. } => Ok((parts, bytes)),
        other => Err(Request::from_parts(parts, other.first())),
    }
}

// === impl Replay ===

impl<C: Clone + Send + Sync + 'static> Replay<C> {
    /// Drains the body of `request` if it is complete, else records it while it is sent; also
    /// returns the request of the first attempt, which reuses the original, as most calls need no
    /// other.
    pub fn capture(request: Request<Body>, buffer: &ReplayBuffer) -> (Self, Request<Body>) {
        let (parts, body) = request.into_parts();
        let body = Recording::of(body, buffer);
        let first = body.first();
        let replay = Self { head: Head::of(&parts), body, built: 1 };
        (replay, Request::from_parts(parts, first))
    }

    /// The request, for the next attempt; `None` once it no longer fits its buffer, or an attempt
    /// was chosen.
    pub fn request(&mut self) -> Option<Request<Body>> {
        let body = self.body.play(self.built)?;
        let request = self.head.again();
        self.built += 1;
        Some(request.map(|()| body))
    }

    /// How many requests were built so far.
    pub const fn built(&self) -> u32 {
        self.built
    }

    /// The length of the request's body, prefixes included, if it is complete.
    pub fn size(&self) -> Option<u64> {
        match &self.body {
            Recording::Whole { bytes, .. } => Some(bytes.len() as u64),
            Recording::Tape(_) | Recording::Settled => None,
        }
    }

    /// Whether there can be another attempt.
    pub fn can_repeat(&self) -> bool {
        match &self.body {
            Recording::Whole { .. } => true,
            Recording::Tape(tape) => !tape.is_cut(),
            Recording::Settled => false,
        }
    }

    /// The error with which the body of the request has failed, if it has: no attempt can send all
    /// of it.
    pub fn failure(&self) -> Option<Status> {
        match &self.body {
            Recording::Whole { .. } | Recording::Settled => None,
            Recording::Tape(tape) => tape.failure(),
        }
    }

    /// Drops the recording: the `n`th attempt, from 0, is the chosen one.
    pub fn settle(&mut self, n: u32) {
        match &self.body {
            Recording::Tape(tape) => tape.cut(n),
            Recording::Whole { .. } => self.body = Recording::Settled,
            Recording::Settled => {}
        }
    }

    /// The `n`th attempt has failed: it leaves the unsent part of a stream to the others.
    pub fn stop(&self, n: u32) {
        if let Recording::Tape(tape) = &self.body {
            tape.stop(n);
        }
    }

    /// Whether the `n`th attempt was abandoned because the request outgrew its buffer, and another
    /// attempt had sent more of it.
    pub fn has_left_behind(&self, n: u32) -> bool {
        match &self.body {
            Recording::Whole { .. } | Recording::Settled => false,
            Recording::Tape(tape) => tape.has_left_behind(n),
        }
    }

    /// The path of the request.
    pub const fn uri(&self) -> &Uri {
        &self.head.uri
    }

    /// The first value of a header.
    pub fn header(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.head.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value)
    }
}

// === impl Recording ===

impl Recording {
    fn of(mut body: Body, buffer: &ReplayBuffer) -> Self {
        let mut reserved = None;
        match drain(&mut body, buffer, &mut reserved) {
            (frames, Some(end)) => {
                let reserved = reserved.unwrap_or_else(|| Reservation::new(buffer));
                Self::Tape(Tape::new(frames, end, body, reserved))
            }
            (mut frames, None) => {
                let bytes = if frames.len() < 2 { frames.pop() } else { Some(join(&frames)) };
                Self::Whole { bytes: bytes.unwrap_or_default(), _reserved: reserved }
            }
        }
    }

    /// The body of the first attempt, to which no other can have been preferred yet.
    fn first(&self) -> Body {
        match self {
            Self::Whole { bytes, .. } => whole::body(bytes.clone()),
            Self::Tape(tape) => Body::new(tape.player(0)),
            Self::Settled => Body::empty(),
        }
    }

    /// The body of the `n`th attempt, from 0; `None` if another attempt was chosen.
    fn play(&self, n: u32) -> Option<Body> {
        match self {
            Self::Whole { bytes, .. } => Some(whole::body(bytes.clone())),
            Self::Tape(tape) => tape.play(n).map(Body::new),
            Self::Settled => None,
        }
    }
}

// === impl Head ===

impl<C: Clone + Send + Sync + 'static> Head<C> {
    fn of(parts: &Parts) -> Self {
        let mut headers = Vec::with_capacity(parts.headers.len());
        headers.extend(parts.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        Self {
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            version: parts.version,
            headers,
            extensions: Kept::of(&parts.extensions),
        }
    }

    /// The parts for another attempt.
    fn again(&self) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = self.version;
        request.headers_mut().reserve(self.headers.len());
        for (name, value) in &self.headers {
            request.headers_mut().append(name, value.clone());
        }
        *request.extensions_mut() = self.extensions.again();
        request
    }
}

// === impl Kept ===

impl<C: Clone + Send + Sync + 'static> Kept<C> {
    fn of(extensions: &Extensions) -> Self {
        let method = extensions.get().cloned();
        let known = usize::from(method.is_some()) + usize::from(extensions.get::<C>().is_some());
        if extensions.len() == known {
            Self::Known(method, PhantomData)
        } else {
            Self::All(extensions.clone())
        }
    }

    fn again(&self) -> Extensions {
        match self {
            Self::All(all) => all.clone(),
            Self::Known(method, _) => {
                let mut extensions = Extensions::new();
                method.clone().map(|method| extensions.insert(method));
                extensions
            }
        }
    }
}

/// All frames of `body`, or those that could be read and the reason.
fn drain(
    body: &mut Body,
    buffer: &ReplayBuffer,
    reserved: &mut Option<Reservation>,
) -> (Frames, Option<Undrained>) {
    // No waker is needed: a body that is not complete now is a stream.
    let mut cx = Context::from_waker(Waker::noop());
    let mut frames = Frames::new();
    // A caller's stream that is always ready with empty frames must not block its thread.
    for _ in 0..MOST_FRAMES {
        // Where the length is known, as in most unary calls, the end need not be polled.
        if body.is_end_stream() {
            return (frames, None);
        }
        let data = match Pin::new(&mut *body).poll_frame(&mut cx) {
            Poll::Ready(None) => return (frames, None),
            Poll::Ready(Some(Ok(frame))) => frame.into_data(),
            Poll::Ready(Some(Err(status))) => return (frames, Some(Undrained::Failed(status))),
            Poll::Pending => return (frames, Some(Undrained::Streaming)),
        };
        // A gRPC request ends with its data: there are no request trailers.
        let Ok(data) = data else { continue };
        // Small, complete and short-lived requests are not worth a shared counter.
        let small = frames.is_empty() && data.len() <= SMALL.min(buffer.per_call);
        let kept = if small && body.is_end_stream() {
            true
        } else {
            reserved.get_or_insert_with(|| Reservation::new(buffer)).add(data.len())
        };
        frames.push(data);
        if !kept {
            return (frames, Some(Undrained::TooLarge));
        }
    }
    (frames, Some(Undrained::Streaming))
}

/// Unary requests of at most this many bytes are not counted.
const SMALL: usize = 512;

/// With more frames than this, a body is taken for a stream.
const MOST_FRAMES: usize = 1024;

fn join(frames: &[Bytes]) -> Bytes {
    let mut joined = BytesMut::with_capacity(frames.iter().map(Bytes::len).sum());
    frames.iter().for_each(|frame| joined.extend_from_slice(frame));
    joined.freeze()
}

#[cfg(test)]
mod tests;
