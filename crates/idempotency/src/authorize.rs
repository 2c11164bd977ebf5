//! The authorization check before an answer is replayed.

use crate::refusal;
use cinchona_plumbing::Callback;
use http::Request;
use std::{
    fmt,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::Poll,
};
use tonic::Status;

/// A user's function that decides whether a call may receive the answer of an earlier one.
#[derive(Clone, PartialEq)]
pub(crate) struct Authorize(Callback<dyn Fn(Request<()>) -> Asked + Send + Sync>);

type Asked = Pin<Box<dyn Future<Output = Result<(), Status>> + Send>>;

// === impl Authorize ===

impl Authorize {
    pub(crate) fn new<F, A>(ask: F) -> Self
    where
        F: Fn(Request<()>) -> A + Send + Sync + 'static,
        A: Future<Output = Result<(), Status>> + Send + 'static,
    {
        Self(Callback(Arc::new(move |request| Box::pin(ask(request)))))
    }

    /// Checks the request with this head. A panic is a refusal.
    pub(crate) async fn ask(&self, head: Request<()>) -> Result<(), Status> {
        let panicked = |_| refusal::panicked("the function that authorizes replays");
        let mut asked = catch_unwind(AssertUnwindSafe(|| (self.0)(head))).map_err(panicked)?;
        poll_fn(|cx| {
            let polled = catch_unwind(AssertUnwindSafe(|| asked.as_mut().poll(cx)));
            polled.unwrap_or_else(|panic| Poll::Ready(Err(panicked(panic))))
        })
        .await
    }
}

/// All of a request but the message.
pub(crate) fn head<B>(request: &Request<B>) -> Request<()> {
    let mut head = Request::new(());
    *head.method_mut() = request.method().clone();
    *head.uri_mut() = request.uri().clone();
    *head.version_mut() = request.version();
    *head.headers_mut() = request.headers().clone();
    *head.extensions_mut() = request.extensions().clone();
    head
}

impl fmt::Debug for Authorize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorize").finish_non_exhaustive()
    }
}
