//! Headers that more than one layer reads.

use http::HeaderName;

/// The request header that names a logical call, the same on each of its attempts
/// ([draft-ietf-httpapi-idempotency-key-header]).
///
/// [draft-ietf-httpapi-idempotency-key-header]: https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The header that names the servers which share what they remember of calls. In a response: the
/// server's own. In a request: that of an earlier attempt, so that a server outside of it refuses
/// the call, which it would not recognise.
pub const DOMAIN: HeaderName = HeaderName::from_static("idempotency-domain");

/// The response header of an answer that is less than what was asked for: `cached` (an earlier
/// answer, with its [`age`](https://www.rfc-editor.org/rfc/rfc9111#section-5.1) in seconds),
/// `default` or `alternate`, or whatever a service in trouble says of itself.
pub const DEGRADED: HeaderName = HeaderName::from_static("degraded");
