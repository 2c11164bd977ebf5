//! The client to which a config is applied.

use crate::MessageLimitsLayer;
use cinchona_deadline::CallDeadlineLayer;
use cinchona_retry::RetryLayer;

/// The most attempts that a client makes, whatever its service config asks for (gRFC A6).
pub const ATTEMPT_LIMIT: u32 = 5;

/// The layers of a client to which a config is applied.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    pub(crate) deadline: &'a CallDeadlineLayer,
    pub(crate) retry: &'a RetryLayer,
    pub(crate) limits: Option<&'a MessageLimitsLayer>,
    pub(crate) attempts: u32,
}

// === impl Client ===

impl<'a> Client<'a> {
    /// A client of these layers, without limits of message sizes.
    pub const fn new(deadline: &'a CallDeadlineLayer, retry: &'a RetryLayer) -> Self {
        Self { deadline, retry, limits: None, attempts: ATTEMPT_LIMIT }
    }

    /// Adds the layer that enforces `maxRequestMessageBytes` and `maxResponseMessageBytes`.
    #[must_use]
    pub const fn with_limits(self, limits: &'a MessageLimitsLayer) -> Self {
        Self { limits: Some(limits), ..self }
    }

    /// Sets another limit for `maxAttempts`; less than 2 means 5. Default 5.
    #[must_use]
    pub const fn with_attempt_limit(self, attempts: u32) -> Self {
        Self { attempts: if attempts < 2 { ATTEMPT_LIMIT } else { attempts }, ..self }
    }
}
