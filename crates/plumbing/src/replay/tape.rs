//! A request body that is recorded while the first attempt sends it, and replayed for the others.
//!
//! The attempt that has replayed everything reads the next frame from the source, so each may be
//! behind or ahead of the others (gRFC A6: every message is written to all active attempts). Once
//! the recording outgrows its buffer it is cut: the attempt that read the last frame has sent the
//! most and continues alone.

use super::buffer::Reservation;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use smallvec::SmallVec;
use std::{
    collections::VecDeque,
    fmt, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};
use tonic::{Status, body::Body};

/// The recording, shared by the attempts.
pub(super) struct Tape(Mutex<Reel>);

/// A unary request has one.
pub(super) type Frames = SmallVec<[Bytes; 1]>;

/// Why a body was not drained to its end.
#[derive(Clone, Debug)]
pub(super) enum Undrained {
    Streaming,
    TooLarge,
    /// It has failed, and must not be polled again: a body that has failed then reports its end.
    Failed(Status),
}

/// The position of one attempt in it.
pub(super) struct Player {
    tape: Arc<Tape>,
    attempt: u32,
    /// The index of the next frame, from the beginning of the body.
    position: usize,
}

struct Reel {
    frames: VecDeque<Bytes>,
    /// How many frames were before these, and were dropped.
    gone: usize,
    reserved: Reservation,
    rest: Rest,
    /// The attempt that continues alone.
    chosen: Option<u32>,
    /// Attempts that have failed, and read no more.
    over: Vec<u32>,
    /// Attempts that wait for the source.
    waiting: Vec<(u32, Waker)>,
}

/// The state after the frames that were read.
enum Rest {
    Source(Body),
    /// The body has ended without an error, and only then is the request complete.
    Ended,
    /// The body has failed: so do all further reads.
    Failed(Status),
}

// === impl Tape ===

impl Tape {
    /// Begins with the `frames` that were already read.
    pub(super) fn new(
        frames: Frames,
        why: Undrained,
        source: Body,
        reserved: Reservation,
    ) -> Arc<Self> {
        let chosen = matches!(why, Undrained::TooLarge).then_some(0);
        let rest = match why {
            Undrained::Failed(status) => Rest::Failed(status),
            Undrained::Streaming | Undrained::TooLarge => Rest::Source(source),
        };
        Arc::new(Self(Mutex::new(Reel {
            frames: frames.into_iter().collect(),
            gone: 0,
            reserved,
            rest,
            chosen,
            over: Vec::new(),
            waiting: Vec::new(),
        })))
    }

    /// The body of an attempt, from its beginning; `None` if another attempt continues alone.
    pub(super) fn play(self: &Arc<Self>, attempt: u32) -> Option<Player> {
        let alone = self.reel().chosen;
        alone.is_none_or(|chosen| chosen == attempt).then(|| self.player(attempt))
    }

    /// The same, where that is known.
    pub(super) fn player(self: &Arc<Self>, attempt: u32) -> Player {
        Player { tape: self.clone(), attempt, position: 0 }
    }

    /// Whether no further attempt can send the request.
    pub(super) fn is_cut(&self) -> bool {
        let reel = self.reel();
        reel.chosen.is_some() || matches!(reel.rest, Rest::Failed(_))
    }

    /// The error with which the body has failed, if it has.
    pub(super) fn failure(&self) -> Option<Status> {
        match &self.reel().rest {
            Rest::Failed(status) => Some(status.clone()),
            Rest::Source(_) | Rest::Ended => None,
        }
    }

    pub(super) fn has_left_behind(&self, attempt: u32) -> bool {
        self.reel().chosen.is_some_and(|chosen| chosen != attempt)
    }

    /// Lets `attempt` continue alone, unless another already does.
    pub(super) fn cut(&self, attempt: u32) {
        let mut reel = self.reel();
        reel.chosen.get_or_insert(attempt);
        reel.wake_all();
    }

    /// Stops the failed `attempt` from reading frames that the next one is to send.
    pub(super) fn stop(&self, attempt: u32) {
        let mut reel = self.reel();
        reel.over.push(attempt);
        reel.wake_all();
    }

    /// Only the source can panic while the lock is held, and then it has failed.
    fn reel(&self) -> MutexGuard<'_, Reel> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Tape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Reel { frames, gone, rest, chosen, .. } = &*self.reel();
        f.debug_struct("Tape")
            .field("kept", &frames.len())
            .field("gone", gone)
            .field("ended", &matches!(rest, Rest::Ended))
            .field("failed", &matches!(rest, Rest::Failed(_)))
            .field("chosen", chosen)
            .finish()
    }
}

// === impl Player ===

impl HttpBody for Player {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let tape = self.tape.clone();
        let frame = tape.reel().next(self.attempt, self.position, cx);
        if let Poll::Ready(Some(Ok(_))) = frame {
            self.position += 1;
        }
        frame.map(|frame| frame.map(|frame| frame.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        let reel = self.tape.reel();
        matches!(reel.rest, Rest::Ended) && self.position >= reel.gone + reel.frames.len()
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        // The source may know only this attempt's waker: wake the others to poll it themselves.
        let mut reel = self.tape.reel();
        reel.waiting.retain(|(attempt, _)| *attempt != self.attempt);
        reel.wake_all();
    }
}

// === impl Reel ===

impl Reel {
    fn next(
        &mut self,
        attempt: u32,
        position: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Status>>> {
        let alone = self.chosen.is_some();
        if self.chosen.is_some_and(|chosen| chosen != attempt) || self.over.contains(&attempt) {
            return Poll::Ready(Some(Err(Status::cancelled("another attempt goes on"))));
        }
        if alone {
            self.forget_before(position);
        }
        if let Some(frame) = self.frames.get(position - self.gone) {
            return Poll::Ready(Some(Ok(frame.clone())));
        }
        self.pull(attempt, alone, cx)
    }

    /// The next frame of the source, recorded if there may be other attempts.
    fn pull(
        &mut self,
        attempt: u32,
        alone: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Status>>> {
        let data = match self.poll_source(cx) {
            Poll::Pending => {
                self.waiting.retain(|(waiting, _)| *waiting != attempt);
                self.waiting.push((attempt, cx.waker().clone()));
                return Poll::Pending;
            }
            Poll::Ready(Some(Ok(data))) => data,
            Poll::Ready(end) => {
                self.wake_all();
                return Poll::Ready(end);
            }
        };
        if !alone && self.reserved.add(data.len()) {
            self.frames.push_back(data.clone());
        } else {
            self.chosen = Some(attempt);
            self.gone += self.frames.len() + 1;
            self.frames.clear();
            self.reserved.free();
        }
        self.wake_all();
        Poll::Ready(Some(Ok(data)))
    }

    /// The next data of the source. Its end is recorded.
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        // A source that panics is dropped, and must not look as if it had ended: that is an error
        // of this call alone.
        let panicked = || Rest::Failed(Status::internal("the request's body has panicked"));
        let mut source = match mem::replace(&mut self.rest, panicked()) {
            Rest::Source(source) => source,
            Rest::Ended => {
                self.rest = Rest::Ended;
                return Poll::Ready(None);
            }
            Rest::Failed(status) => {
                self.rest = Rest::Failed(status.clone());
                return Poll::Ready(Some(Err(status)));
            }
        };
        let polled = loop {
            let polled = || Pin::new(&mut source).poll_frame(cx);
            let Ok(polled) = catch_unwind(AssertUnwindSafe(polled)) else {
                return Poll::Ready(Some(Err(self.failed())));
            };
            match polled {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => break Poll::Ready(Some(Ok(data))),
                    // A gRPC request has no trailers.
                    Err(_) => continue,
                },
                Poll::Ready(Some(Err(error))) => break Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => break Poll::Ready(None),
                Poll::Pending => break Poll::Pending,
            }
        };
        self.rest = match &polled {
            Poll::Ready(None) => Rest::Ended,
            Poll::Ready(Some(Err(status))) => Rest::Failed(status.clone()),
            Poll::Ready(Some(Ok(_))) | Poll::Pending => Rest::Source(source),
        };
        polled
    }

    /// The error of the body, if it has failed.
    fn failed(&self) -> Status {
        match &self.rest {
            Rest::Failed(status) => status.clone(),
            Rest::Source(_) | Rest::Ended => Status::internal("the request's body has failed"),
        }
    }

    fn forget_before(&mut self, position: usize) {
        while self.gone < position && self.frames.pop_front().is_some() {
            self.gone += 1;
        }
        if self.frames.is_empty() {
            self.reserved.free();
        }
    }

    fn wake_all(&mut self) {
        self.waiting.drain(..).for_each(|(_, waker)| waker.wake());
    }
}
