//! The requested limits of a call.

use cinchona_core::{Call, Deadline, Invalid, MethodKind};
use cinchona_plumbing::{headers, timeout::GRPC_TIMEOUT};
use tokio::time::Instant;

/// The limits requested for a call by its caller or by the layers above.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// The limit of a layer above, for the beginning of the answer, or for all of it.
    pub(crate) first: Option<Deadline>,
    /// The deadline of the whole call.
    pub(crate) whole: Option<Deadline>,
    /// The caller's timeout is so long that it is none.
    is_unlimited: bool,
}

// === impl Asked ===

impl Asked {
    /// The limits of `request`, whose method is of this `kind`. The layer that sets a deadline also
    /// enforces it, so its extent matters only for a known stream.
    ///
    /// # Errors
    /// When `grpc-timeout` is malformed.
    pub(crate) fn of<B>(
        request: &http::Request<B>,
        kind: Option<MethodKind>,
        now: Instant,
    ) -> Result<Self, Invalid> {
        if let Some(first) = Deadline::handed_on(request) {
            let whole = (kind != Some(MethodKind::Unary)).then(|| {
                Call::find(request).and_then(Call::whole).map_or(Some(first), |whole| whole)
            });
            let whole = whole.flatten();
            return Ok(Self { first: Some(first), whole, is_unlimited: false });
        }
        let timeout = Deadline::parse_timeout(request.headers())?;
        let whole = timeout.and_then(|timeout| Deadline::within(timeout, now));
        let is_unlimited = timeout.is_some() && whole.is_none();
        Ok(Self { first: None, whole, is_unlimited })
    }

    /// An unlimited deadline is not sent.
    pub(crate) fn drop_unlimited<B>(self, request: &mut http::Request<B>) {
        if self.is_unlimited {
            headers::remove(request.headers_mut(), &GRPC_TIMEOUT);
        }
    }

    /// The earlier of the two.
    pub(crate) fn min(self) -> Option<Deadline> {
        earlier(self.first, self.whole)
    }
}

/// The earlier of two optional ones.
pub(crate) fn earlier<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
