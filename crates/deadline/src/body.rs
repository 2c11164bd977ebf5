//! The response's body, which ends at an instant or after a silence.

use crate::{stage::Stage, timer::Timer};
use cinchona_core::Verdict;
use cinchona_plumbing::{Next, Polled, Seen, Watcher};
use std::{
    mem,
    pin::Pin,
    task::{Context, Poll},
};
use tonic::Status;

impl Watcher for Timer {
    fn sees(mut self: Pin<&mut Self>, polled: &mut Polled, _: &mut Seen) -> Next {
        match polled {
            Some(Ok(frame)) => {
                let Some(data) = frame.data_ref() else { return Next::Watch };
                self.as_mut().heard(data);
                // A stream whose next frame is always ready never waits, and must end as well.
                if self.bound().messages.stage() == Stage::Rest
                    && let Some(elapsed) = self.as_mut().bound_mut().whole_is_over()
                {
                    *polled = Some(Err(elapsed.into()));
                    return Next::Cut;
                }
                Next::Watch
            }
            Some(Err(error)) => {
                let failed = mem::replace(error, Status::ok(""));
                *error = Verdict::status_of(failed.into());
                Next::Watch
            }
            None => Next::Watch,
        }
    }

    fn waits(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Polled> {
        let stage = self.bound().messages.stage();
        self.poll_end(cx, stage).map(|elapsed| Some(Err(elapsed.into())))
    }
}
