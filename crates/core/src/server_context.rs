//! The record of the call that is being served.

use crate::{Deadline, MethodKind};
use http::Request;
use pin_project_lite::pin_project;
use std::{
    cell::Cell,
    future::Future,
    marker::PhantomData,
    num::NonZeroU64,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::time::Instant;

/// The record of a call that is served, in the extensions of its request; and the context for the
/// calls that its handler makes.
///
/// The first server layer of ours that sees a call creates the record ([`of`](Self::of)), the
/// others find it, in whatever order they are composed: when it began, what its method streams, how
/// much of its request has arrived. A layer that ends calls at their deadline puts it around the
/// handler as well; client layers find it there, provided that the handler makes its calls in its
/// own task.
///
/// ```
/// use cinchona_core::{MethodKind, ServerContext};
/// use tokio::time::Instant;
///
/// let (mut request, now) = (http::Request::new(()), Instant::now());
/// ServerContext::of(&mut request, || now).kind = Some(MethodKind::Unary);
/// // Any layer further in finds the same.
/// let found = ServerContext::of(&mut request, || unreachable!("it is there"));
/// assert_eq!((found.kind, found.began()), (Some(MethodKind::Unary), Some(now)));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerContext {
    /// When the answer is due, which limits the handler's calls.
    pub deadline: Option<Deadline>,
    /// The number of this attempt among the caller's, from 0 (gRFC A6); 0 if no layer has read it.
    pub previous_attempts: u32,
    /// What its method streams, if a layer knows it.
    pub kind: Option<MethodKind>,
    /// The length of the request's body plus one.
    arrived: Option<NonZeroU64>,
    is_arriving: bool,
    began: Option<Instant>,
}

pin_project! {
    /// A future that is polled in the context of a served call.
    struct Scoped<F> {
        context: ServerContext,
        #[pin]
        inner: F,
    }
}

/// Restores the outer context.
struct Before(Option<ServerContext>, PhantomData<*const ()>);

thread_local! {
    /// The context of the current task, while it is polled.
    static SERVED: Cell<Option<ServerContext>> = const { Cell::new(None) };
}

// === impl ServerContext ===

impl ServerContext {
    /// A call whose answer is due at `deadline`, and the number of this attempt.
    pub const fn new(deadline: Option<Deadline>, previous_attempts: u32) -> Self {
        let (kind, arrived, began) = (None, None, None);
        Self { deadline, previous_attempts, kind, arrived, is_arriving: false, began }
    }

    /// The record of the call that `request` belongs to: created here, at the time `now`, if no
    /// layer further out has created it.
    pub fn of<B>(request: &mut Request<B>, now: impl FnOnce() -> Instant) -> &mut Self {
        let context = request.extensions_mut().get_or_insert_with(Self::default);
        context.began.get_or_insert_with(now);
        context
    }

    /// The record of the call, if a layer has created it.
    pub fn find<B>(request: &Request<B>) -> Option<&Self> {
        request.extensions().get()
    }

    /// When the outermost layer has seen it, or admitted it after a wait: its `grpc-timeout` counts
    /// from there. `None` if no layer has read the clock.
    pub const fn began(&self) -> Option<Instant> {
        self.began
    }

    /// It has waited, and begins only `now`: the calling layer subtracts the wait from its
    /// `grpc-timeout`.
    pub const fn begins(&mut self, now: Instant) {
        self.began = Some(now);
    }

    /// The length of the request's body, with the prefixes of its messages, in bytes, if all of it
    /// has arrived.
    pub const fn arrived(&self) -> Option<u64> {
        match self.arrived {
            Some(more) => Some(more.get() - 1),
            None => None,
        }
    }

    /// All of the request has arrived: a body of so many bytes.
    pub const fn has_arrived(&mut self, size: u64) {
        self.arrived = NonZeroU64::new(size.saturating_add(1));
    }

    /// A layer has looked for all of the request, and it had not arrived: the next one waits for it
    /// at once.
    pub const fn is_still_arriving(&mut self) {
        self.is_arriving = true;
    }

    /// Whether a layer has looked for all of the request, and it had not arrived.
    pub const fn was_arriving(&self) -> bool {
        self.is_arriving
    }

    /// The call that this task is serving, if any.
    pub fn current() -> Option<Self> {
        SERVED.try_with(Cell::get).ok().flatten()
    }

    /// Runs `handler` in the context of this call.
    pub fn scope<F: Future>(self, handler: F) -> impl Future<Output = F::Output> {
        Scoped { context: self, inner: handler }
    }

    /// Runs `poll` in the context of this call.
    #[inline]
    pub fn within<T>(self, poll: impl FnOnce() -> T) -> T {
        let _entered = self.enter();
        poll()
    }

    /// Until the guard is dropped, this thread works for this call. It stays on its thread: a
    /// future that holds it while it waits is not `Send`.
    ///
    /// ```compile_fail
    /// fn is_send(_: impl Send) {}
    /// is_send(cinchona_core::ServerContext::new(None, 0).enter());
    /// ```
    #[inline]
    #[must_use = "dropping the guard restores the outer context"]
    pub fn enter(self) -> impl Sized {
        let before = SERVED.try_with(|served| served.replace(Some(self)));
        Before(before.ok().flatten(), PhantomData)
    }
}

// === impl Scoped ===

impl<F: Future> Future for Scoped<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        this.context.within(|| this.inner.poll(cx))
    }
}

// === impl Before ===

impl Drop for Before {
    #[inline]
    fn drop(&mut self) {
        _ = SERVED.try_with(|served| served.set(self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outer_context_is_restored_whatever_the_inner_calls_outcome() {
        let of = |attempts| ServerContext::new(None, attempts);
        of(1).within(|| {
            let panicked = std::panic::catch_unwind(|| of(2).within(|| panic!("inner")));
            assert!(panicked.is_err());
            assert_eq!(ServerContext::current(), Some(of(1)));
        });
        assert_eq!(ServerContext::current(), None);
    }

    #[tokio::test]
    async fn a_future_serves_while_it_is_polled_and_no_longer() {
        let served = ServerContext::new(None, 3).scope(async {
            tokio::task::yield_now().await;
            ServerContext::current().map(|context| context.previous_attempts)
        });
        let (inside, outside) = tokio::join!(served, async { ServerContext::current() });
        assert_eq!((inside, outside), (Some(3), None));
    }

    #[test]
    fn a_call_that_has_waited_has_a_new_beginning() {
        let (mut request, now) = (Request::new(()), Instant::now());
        let later = now + std::time::Duration::from_secs(1);
        ServerContext::of(&mut request, || now).begins(later);
        assert_eq!(ServerContext::of(&mut request, || now).began(), Some(later));
    }
}
