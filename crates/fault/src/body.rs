//! Replies with injected faults.

use crate::{
    counters::Counted,
    rule::{Action, Broken},
    rules::Active,
    running::Running,
    wire::{Order, Reset},
};
use bytes::Bytes;
use cinchona_core::BoxError;
use cinchona_plumbing::Prefixes;
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use http_body::{Body as _, Frame};
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Sleep, sleep};
use tonic::{Status, body::Body};

/// Waits for written bytes to be sent before the stream ends; a reset would overtake them.
const PAUSE: Duration = Duration::from_millis(10);

/// A body and its fault, which counts as active until it is dropped.
struct Faulty {
    inner: Body,
    flaw: Flaw,
    counters: Counted,
    is_client: bool,
    wait: Option<Pin<Box<Sleep>>>,
    _active: Option<Active>,
}

enum Flaw {
    None,
    /// No frame ever arrives.
    Silence,
    /// Resets the stream with that code.
    Reset(u32),
    Cut {
        left: u64,
        messages: Prefixes,
        code: u32,
    },
    Trailers(Broken),
    Drip {
        bytes: usize,
        every: Duration,
        held: Bytes,
    },
}

type Polled = Poll<Option<Result<Frame<Bytes>, BoxError>>>;

/// Headers, and then nothing.
pub(crate) fn silent(running: &Running, active: Option<Active>) -> http::Response<Body> {
    respond(Flaw::Silence, running, active)
}

/// A stream that is reset before its first frame.
pub(crate) fn reset(code: u32, running: &Running) -> http::Response<Body> {
    let mut response = respond(Flaw::Reset(code), running, None);
    if running.is_client {
        response.extensions_mut().insert(Reset(code));
    }
    response
}

fn respond(flaw: Flaw, running: &Running, active: Option<Active>) -> http::Response<Body> {
    let mut response = http::Response::new(wrap(Body::empty(), flaw, running, active));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

fn wrap(inner: Body, flaw: Flaw, running: &Running, active: Option<Active>) -> Body {
    let (counters, is_client) = (running.counted.clone(), running.is_client);
    Body::new(Faulty { inner, flaw, counters, is_client, wait: None, _active: active })
}

/// Applies a fault to a reply.
pub(crate) fn spoil(
    mut reply: http::Response<Body>,
    action: &Action,
    running: &Running,
    active: Option<Active>,
) -> http::Response<Body> {
    let counters = &running.counted;
    let flaw = match *action {
        Action::Cut { after: left, end } => {
            let code = end.unwrap_or(Order::Drop.code());
            Flaw::Cut { left, messages: Prefixes::default(), code }
        }
        Action::Drip { bytes, every } => {
            counters.cells().dripped.count();
            Flaw::Drip { bytes: bytes.get(), every, held: Bytes::new() }
        }
        Action::Trailers(broken) => {
            if reply.headers().contains_key(Status::GRPC_STATUS) {
                counters.cells().bad_trailers.count();
                damage(reply.headers_mut(), broken);
            }
            Flaw::Trailers(broken)
        }
        _ => return reply,
    };
    reply.map(|body| wrap(body, flaw, running, active))
}

fn damage(trailers: &mut HeaderMap, broken: Broken) {
    let (key, value): (_, &'static [u8]) = match broken {
        Broken::Missing => {
            let all = [Status::GRPC_STATUS, Status::GRPC_MESSAGE, Status::GRPC_STATUS_DETAILS];
            all.iter().for_each(|key| _ = trailers.remove(key));
            return;
        }
        Broken::Status => (Status::GRPC_STATUS, b"banana"),
        // Percent-encoded, and not UTF-8.
        Broken::Message => (Status::GRPC_MESSAGE, b"%FF"),
        Broken::Details => (Status::GRPC_STATUS_DETAILS, b"*not base64*"),
    };
    if let Ok(value) = HeaderValue::from_bytes(value) {
        trailers.insert(key, value);
    }
}

// === impl Faulty ===

impl http_body::Body for Faulty {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        let this = self.get_mut();
        match this.flaw {
            Flaw::Silence => return Poll::Pending,
            Flaw::Reset(code) => {
                this.flaw = Flaw::None;
                let error = match this.is_client {
                    true => Reset(code).seen(),
                    false => h2::Error::from(h2::Reason::from(code)).into(),
                };
                return Poll::Ready(Some(Err(error)));
            }
            Flaw::Drip { .. } => return this.poll_drip(cx),
            Flaw::Cut { left: 0, code, .. } => return this.poll_cut(cx, code),
            Flaw::None | Flaw::Trailers(_) | Flaw::Cut { .. } => {}
        }
        match ready!(this.poll_inner(cx)) {
            Some(Ok(frame)) => Poll::Ready(this.flawed(frame).map(Ok)),
            end => Poll::Ready(end),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.flaw, Flaw::None) && self.inner.is_end_stream()
    }
}

impl Faulty {
    fn poll_inner(&mut self, cx: &mut Context<'_>) -> Polled {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        Poll::Ready(frame.map(|frame| frame.map_err(BoxError::from)))
    }

    fn poll_wait(&mut self, cx: &mut Context<'_>, time: Duration) -> Poll<()> {
        let wait = self.wait.get_or_insert_with(|| Box::pin(sleep(time)));
        ready!(wait.as_mut().poll(cx));
        self.wait = None;
        Poll::Ready(())
    }

    fn poll_cut(&mut self, cx: &mut Context<'_>, code: u32) -> Polled {
        ready!(self.poll_wait(cx, PAUSE));
        self.counters.cells().cut.count();
        self.flaw = Flaw::Reset(code);
        Pin::new(self).poll_frame(cx)
    }

    fn poll_drip(&mut self, cx: &mut Context<'_>) -> Polled {
        loop {
            let Flaw::Drip { bytes, every, held } = &mut self.flaw else {
                return self.poll_inner(cx);
            };
            let (bytes, every) = (*bytes, *every);
            if !held.is_empty() {
                ready!(self.poll_wait(cx, every));
                let Flaw::Drip { held, .. } = &mut self.flaw else { continue };
                let drop = held.split_to(bytes.min(held.len()));
                return Poll::Ready(Some(Ok(Frame::data(drop))));
            }
            match ready!(self.poll_inner(cx)) {
                Some(Ok(frame)) => match (frame.into_data(), &mut self.flaw) {
                    (Ok(data), Flaw::Drip { held, .. }) => *held = data,
                    (Ok(data), _) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    (Err(frame), _) => return Poll::Ready(Some(Ok(frame))),
                },
                end => return Poll::Ready(end),
            }
        }
    }

    /// The frame with its fault; `None` if the fault is that it is missing.
    fn flawed(&mut self, frame: Frame<Bytes>) -> Option<Frame<Bytes>> {
        match (&mut self.flaw, frame.into_data()) {
            (Flaw::Cut { left, messages, .. }, Ok(mut data)) => {
                data.truncate(count_down(messages, &data, left));
                Some(Frame::data(data))
            }
            (Flaw::Trailers(broken), Err(frame)) => {
                let (broken, mut trailers) = (*broken, frame.into_trailers().unwrap_or_default());
                self.counters.cells().bad_trailers.count();
                damage(&mut trailers, broken);
                (!trailers.is_empty()).then(|| Frame::trailers(trailers))
            }
            (_, Ok(data)) => Some(Frame::data(data)),
            (_, Err(frame)) => Some(frame),
        }
    }
}

/// Counts down the messages that end in `data`; returns the length up to the last.
fn count_down(messages: &mut Prefixes, data: &[u8], left: &mut u64) -> usize {
    let mut rest = data;
    while *left > 0 && !rest.is_empty() {
        if messages.rest() > 0 {
            messages.skip(&mut rest);
        } else if messages.next(&mut rest).is_none() {
            break;
        }
        if messages.rest() == 0 {
            *left -= 1;
        }
    }
    data.len() - rest.len()
}
