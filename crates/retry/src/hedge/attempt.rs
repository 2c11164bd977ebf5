//! The attempts of a hedged call, each a future of its own.

use crate::{
    call::{Begun, Outcome},
    executor::ready_and_call,
    policy::Progress,
};
use cinchona_core::BoxError;
use http::{HeaderMap, Request, Response};
use tokio::time::{Instant, sleep_until};
use tonic::body::Body;
use tower::Service;

/// An attempt, and its number: what is sent again because it was never seen keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) number: u32,
    pub(super) begun: Begun,
}

/// An attempt that was begun, or what it takes.
pub(super) enum Start<S: Service<Request<Body>>> {
    Begun(S::Future),
    With(S, Box<Request<Body>>, Progress),
}

pub(super) async fn attempt<S, B>(attempt: Attempt, start: Start<S>) -> (Attempt, Outcome<B>)
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Into<BoxError>,
{
    let outcome = match start {
        Start::Begun(begun) => begun.await.map_err(Into::into),
        Start::With(mut service, request, progress) => {
            sleep_until(attempt.begun.at).await;
            let stamp = |headers: &mut HeaderMap| {
                progress.stamp(headers, attempt.number, Instant::now());
            };
            ready_and_call(&mut service, *request, stamp).await
        }
    };
    (attempt, outcome)
}

pub(super) async fn at(then: Option<Instant>) {
    match then {
        Some(then) => sleep_until(then).await,
        None => std::future::pending().await,
    }
}
