//! Headers that more than one layer reads.

use http::HeaderName;

/// The request header with the key of a logical call, the same on each of its attempts
/// ([draft-ietf-httpapi-idempotency-key-header]).
///
/// [draft-ietf-httpapi-idempotency-key-header]: https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The header with the name of the servers that share a dedup store. In a response: the server's
/// own. In a request: that of an earlier attempt, so that a server outside of it refuses the call,
/// which it would not recognise.
pub const DOMAIN: HeaderName = HeaderName::from_static("idempotency-domain");

/// The response header of a degraded answer: `cached` (an earlier answer, with its
/// [`age`](https://www.rfc-editor.org/rfc/rfc9111#section-5.1) in seconds), `default` or
/// `alternate`, or a service's own word.
pub const DEGRADED: HeaderName = HeaderName::from_static("degraded");
