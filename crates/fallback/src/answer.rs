//! An answer that was read to its end, and the marks of one that is not live.

use crate::{
    body::{End, Frames, played},
    key::forbids_keeping,
};
use bytes::Bytes;
use cinchona_core::{BoxError, DEGRADED, Verdict};
use cinchona_plumbing::{ResponseBody, first_message, headers, status};
use http::{
    HeaderMap, HeaderValue, Response, Version,
    header::{AGE, CONTENT_TYPE},
    response::Parts,
};
use http_body::Body;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tonic::Status;

/// An answer that can be replayed.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) headers: HeaderMap,
    /// With its gRPC frame.
    pub(crate) message: Bytes,
    pub(crate) trailers: HeaderMap,
    /// Its age on arrival.
    pub(crate) age: Duration,
}

/// The effect of an answer on the kept answer to the same request.
#[derive(Debug)]
pub(crate) enum Effect {
    /// It replaces the kept one.
    Replace(Arc<Answer>),
    /// It replaces the kept one, and cannot be kept itself.
    Outdate,
    /// It is a refusal: the answer no longer exists, or not for this caller.
    TakeBack,
    /// It has no effect.
    Nothing,
}

/// The source of a second answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Alternate,
    Cached { age: Duration },
    Default,
}

/// A response whose body is being read.
#[derive(Debug)]
pub(crate) struct Reading {
    head: Option<Parts>,
    frames: Frames,
    room: usize,
    // To pass it on if it turns out to be too large.
    body: Option<Box<ResponseBody>>,
}

/// A response that was read as far as its limit.
pub(crate) struct Read {
    head: Parts,
    frames: Frames,
    end: End,
}

// === impl Answer ===

impl Answer {
    /// An answer of ours with `message`, in its frame.
    pub(crate) fn of(message: Bytes) -> Self {
        let grpc = HeaderValue::from_static("application/grpc");
        let ok = HeaderValue::from_static("0");
        Self {
            headers: HeaderMap::from_iter([(CONTENT_TYPE, grpc)]),
            message,
            trailers: HeaderMap::from_iter([(Status::GRPC_STATUS, ok)]),
            age: Duration::ZERO,
        }
    }

    pub(crate) fn play(&self, source: Source) -> Response<ResponseBody> {
        let Self { headers, message, trailers, .. } = self.clone();
        let body = played([message].into(), End::Trailers(trailers));
        let mut response = Response::new(body);
        *response.version_mut() = Version::HTTP_2;
        *response.headers_mut() = headers;
        source.mark(response.headers_mut());
        response
    }
}

// === impl Effect ===

impl Effect {
    /// The effect of an answer with this verdict, according to `headers`.
    pub(crate) fn of(verdict: Verdict, headers: &HeaderMap) -> Self {
        match verdict {
            // It is less than was requested, and may be older.
            Verdict::Ok if headers::has(headers, &DEGRADED) => Self::Nothing,
            Verdict::Ok => Self::Outdate,
            Verdict::Refused(_) => Self::TakeBack,
            _ => Self::Nothing,
        }
    }
}

// === impl Source ===

impl Source {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Alternate => "alternate",
            Self::Cached { .. } => "cached",
            Self::Default => "default",
        }
    }

    /// In whole seconds (RFC 9111, 5.1).
    pub(crate) const fn age(self) -> Option<u64> {
        match self {
            Self::Cached { age } => Some(age.as_secs()),
            Self::Alternate | Self::Default => None,
        }
    }

    pub(crate) fn mark(self, headers: &mut HeaderMap) {
        headers.insert(DEGRADED, HeaderValue::from_static(self.name()));
        if let Some(age) = self.age() {
            headers.insert(AGE, HeaderValue::from(age));
        }
    }
}

// === impl Reading ===

impl Reading {
    /// Reads `response` up to `most` bytes, unless its head is all of it.
    pub(crate) fn of<B>(
        response: Response<B>,
        most: usize,
    ) -> Result<Self, Box<Response<ResponseBody>>>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let response = response.map(ResponseBody::of);
        let is_over = status::code(response.headers()).is_some();
        if is_over || Verdict::of_head(&response) != Verdict::Ok {
            return Err(Box::new(response));
        }
        let (head, body) = response.into_parts();
        let body = Some(Box::new(body));
        Ok(Self { head: Some(head), frames: Frames::new(), room: most, body })
    }

    /// Poll it until it is ready, and not again.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Read>> {
        let end = loop {
            let Some(body) = &mut self.body else { return Poll::Ready(None) };
            let frame = match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => break End::Error(error),
                None => break End::Nothing,
            };
            let data = match frame.into_data() {
                Ok(data) => data,
                Err(frame) => match frame.into_trailers() {
                    Ok(trailers) => break End::Trailers(trailers),
                    Err(_) => continue,
                },
            };
            let room = self.room.checked_sub(data.len());
            self.frames.push_back(data);
            match (room, self.body.take_if(|_| room.is_none())) {
                (_, Some(rest)) => break End::Rest(rest),
                (room, None) => self.room = room.unwrap_or(0),
            }
        };
        self.body = None;
        let frames = std::mem::take(&mut self.frames);
        Poll::Ready(self.head.take().map(|head| Read { head, frames, end }))
    }
}

// === impl Read ===

impl Read {
    /// The verdict on the answer; `None` if it was too large to be read to its end.
    pub(crate) fn verdict(&self) -> Option<Verdict> {
        match &self.end {
            End::Trailers(trailers) => Some(Verdict::of_trailers(trailers)),
            End::Error(error) => Some(Verdict::of_error(error)),
            // A tonic client takes a message without trailers as an answer, and so must this layer.
            End::Nothing if !self.frames.is_empty() => Some(Verdict::Ok),
            End::Nothing => Some(Verdict::of_trailers(&HeaderMap::new())),
            End::Rest(_) => None,
        }
    }

    /// Its effect on the kept answer, where `verdict` is its verdict.
    pub(crate) fn effect(&self, verdict: Option<Verdict>) -> Effect {
        let is_marked = match &self.end {
            End::Trailers(trailers) => headers::has(trailers, &DEGRADED),
            _ => false,
        };
        match Effect::of(verdict.unwrap_or(Verdict::Ok), &self.head.headers) {
            Effect::Outdate if is_marked => Effect::Nothing,
            Effect::Outdate => match self.to_answer() {
                Some(answer) => Effect::Replace(Arc::new(answer)),
                None => Effect::Outdate,
            },
            effect => effect,
        }
    }

    /// The answer, if it is one whole message and may be kept. Copied, as its bytes are a part of a
    /// larger buffer of the connection.
    fn to_answer(&self) -> Option<Answer> {
        let End::Trailers(trailers) = &self.end else { return None };
        let headers = &self.head.headers;
        if forbids_keeping(headers) {
            return None;
        }
        let mut message = Vec::with_capacity(self.frames.iter().map(Bytes::len).sum());
        self.frames.iter().for_each(|frame| message.extend_from_slice(frame));
        let Some((0 | 1, _, [])) = first_message(&message) else { return None };
        let (headers, trailers) = (headers.clone(), trailers.clone());
        Some(Answer { age: age(&headers), headers, message: message.into(), trailers })
    }

    /// The response, as if it had not been read.
    pub(crate) fn into_response(self) -> Response<ResponseBody> {
        Response::from_parts(self.head, played(self.frames, self.end))
    }
}

/// The age of an answer on arrival, in whole seconds (RFC 9111, 5.1).
fn age(headers: &HeaderMap) -> Duration {
    let value = headers::get(headers, &AGE).and_then(|value| value.to_str().ok());
    value.and_then(|seconds| seconds.parse().ok()).map_or(Duration::ZERO, Duration::from_secs)
}
