//! The answer, bounded as well.

use super::{
    end::{EXCEEDED, End, TICK},
    sample::Sample,
};
use bytes::Bytes;
use cinchona_core::{BoxError, Deadline, MethodKind, ServerContext, Switch};
use cinchona_plumbing::{Next, Polled, ResponseBody, Seen, Watcher, status};
use http::Response;
use http_body::{Body, Frame};
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};
use tonic::Status;

/// Ends a response at the deadline, with `DEADLINE_EXCEEDED` in its trailers.
pub(super) struct Bounded {
    /// When it must begin, and then when it must end.
    pub(super) end: Option<End>,
    pub(super) context: ServerContext,
    pub(super) sample: Option<Sample>,
    pub(super) rare: Option<Box<Rare>>,
}

/// What few calls need.
pub(super) struct Rare {
    /// The caller's own deadline, if different, until it is the end.
    whole: Option<Option<Deadline>>,
    /// Counts, where the layer is in shadow and ends nothing.
    shadow: Option<Switch>,
}

// === impl Rare ===

impl Rare {
    pub(super) fn boxed(whole: Option<Option<Deadline>>, shadow: Option<Switch>) -> Box<Self> {
        Box::new(Self { whole, shadow })
    }

    pub(super) fn shadow(rare: &Option<Box<Self>>) -> Option<&Switch> {
        rare.as_ref()?.shadow.as_ref()
    }

    pub(super) fn whole(rare: &mut Option<Box<Self>>) -> Option<Option<Deadline>> {
        rare.as_mut()?.whole.take()
    }
}

// === impl Bounded ===

impl Bounded {
    /// The answer of the handler, bounded.
    pub(super) fn around<B>(self, response: Response<B>) -> Response<ResponseBody>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let mut response = response.map(ResponseBody::of);
        let body = response.body_mut();
        if Rare::shadow(&self.rare).is_some() {
            body.watch(self);
            return response;
        }
        if self.context.kind == Some(MethodKind::Unary) {
            self.context.within(|| body.settle());
        }
        body.watch_within(self);
        status::strip(response.headers_mut());
        response
    }

    fn has_whole(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.whole.is_some())
    }

    /// Whether the time of the call is known at this frame: the answer of a unary call, or the
    /// first message of a possible stream.
    fn is_answered_by(&self, polled: &Polled) -> bool {
        match polled {
            Some(Ok(frame)) if frame.is_data() => self.context.kind != Some(MethodKind::Unary),
            Some(Ok(_)) => true,
            Some(Err(_)) | None => false,
        }
    }
}

impl Watcher for Bounded {
    /// The message of a unary call changes nothing, unless another deadline counts from there.
    fn sees_data(&self) -> bool {
        self.context.kind != Some(MethodKind::Unary) || self.has_whole()
    }

    fn sees(self: Pin<&mut Self>, polled: &mut Polled, seen: &mut Seen) -> Next {
        let own = self.get_mut();
        if own.sample.is_some() && own.is_answered_by(polled) {
            let began = own.context.began();
            if let Some((sample, began)) = own.sample.take().zip(began) {
                sample.record(seen.now().saturating_duration_since(began));
            }
        }
        if let Some(Ok(frame)) = polled
            && Rare::shadow(&own.rare).is_none()
        {
            frame.trailers_mut().into_iter().for_each(status::strip);
        }
        // It has begun: from here on only the caller's deadline counts.
        if let Some(whole) = Rare::whole(&mut own.rare) {
            own.context.deadline = whole;
            match (whole.map(|whole| whole.0 - TICK), &mut own.end) {
                (Some(at), Some(end)) => end.move_to(at),
                (at, end) => *end = at.map(End::at),
            }
        }
        Next::Watch
    }

    fn waits(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Polled> {
        let own = self.get_mut();
        let Some(end) = &mut own.end else { return Poll::Pending };
        ready!(end.poll(cx));
        if let Some(switch) = Rare::shadow(&own.rare) {
            switch.count();
            own.end = None;
            Rare::whole(&mut own.rare);
            return Poll::Pending;
        }
        let mut trailers = http::HeaderMap::new();
        // An unencodable status ends the response all the same.
        _ = Status::deadline_exceeded(EXCEEDED).add_header(&mut trailers);
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn may_cut(&self) -> bool {
        Rare::shadow(&self.rare).is_none() && (self.end.is_some() || self.has_whole())
    }

    /// The stream of a handler may make calls as well.
    fn scope(self: Pin<&mut Self>, poll: &mut dyn FnMut()) {
        self.context.within(poll);
    }
}
