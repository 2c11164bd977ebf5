//! What was asked for a call.

use cinchona_core::{Call, Deadline, Invalid, MethodKind};
use cinchona_plumbing::{headers, timeout::GRPC_TIMEOUT};
use tokio::time::Instant;

/// What was asked for a call: by its caller, or by the layers above.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// What a layer above ends the call at, if it has not begun to be answered, or at all.
    pub(crate) first: Option<Deadline>,
    /// What ends the call, however far it is.
    pub(crate) whole: Option<Deadline>,
}

// === impl Asked ===

impl Asked {
    /// What was asked for `request`, whose method is of this `kind`. The layer that put a deadline
    /// there also keeps it, so only where a stream is known must it be known what it is of.
    ///
    /// # Errors
    /// When `grpc-timeout` is malformed.
    pub(crate) fn of<B>(
        request: &mut http::Request<B>,
        kind: Option<MethodKind>,
        now: Instant,
    ) -> Result<Self, Invalid> {
        if let Some(first) = Deadline::handed_on(request) {
            let whole = (kind != Some(MethodKind::Unary)).then(|| {
                Call::find(request).and_then(Call::whole).map_or(Some(first), |whole| whole)
            });
            let whole = whole.flatten();
            return Ok(Self { first: Some(first), whole });
        }
        let timeout = Deadline::parse_timeout(request.headers())?;
        let whole = timeout.and_then(|timeout| Deadline::within(timeout, now));
        if timeout.is_some() && whole.is_none() {
            // For ever is not told.
            headers::remove(request.headers_mut(), &GRPC_TIMEOUT);
        }
        Ok(Self { first: None, whole })
    }

    /// The earlier of the two.
    pub(crate) fn min(self) -> Option<Deadline> {
        earlier(self.first, self.whole)
    }
}

/// The earlier of two that may not be there.
pub(crate) fn earlier<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
