//! Which endpoints a call has been sent to.

use http::{HeaderName, HeaderValue};
use std::{
    num::NonZeroU64,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

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

/// The endpoints that the attempts of a call were sent to, shared by them all: in the extensions of
/// a request, for a balancer that sends it elsewhere if it can.
#[derive(Clone, Debug, Default)]
pub struct Tried {
    places: Arc<Places>,
    /// Which of the requests this is that were built for the call, from 0.
    attempt: u32,
}

#[derive(Debug, Default)]
struct Places {
    endpoints: [AtomicU64; MOST],
    /// Where each attempt went.
    names: [OnceLock<Arc<str>>; MOST],
    /// The dedup domain that the first attempt was sent to, if it was known.
    domain: OnceLock<Option<HeaderValue>>,
}

/// gRPC makes at most five attempts (gRFC A6).
const MOST: usize = 6;

// === impl Tried ===

impl Tried {
    /// The same, in the request of the `n`th attempt, from 0.
    #[must_use]
    pub fn in_attempt(&self, n: u32) -> Self {
        Self { places: self.places.clone(), attempt: n }
    }

    /// Where the `n`th attempt was sent, from 0; of the first six.
    pub fn endpoint_of(&self, n: u32) -> Option<&Arc<str>> {
        self.places.names.get(n as usize)?.get()
    }

    /// Adds an endpoint, by the number and the name that its balancer gave it, and its dedup
    /// domain, if it has named one; beyond six they are not remembered.
    pub fn add(&self, endpoint: NonZeroU64, name: &Arc<str>, domain: Option<&HeaderValue>) {
        let endpoint = endpoint.get();
        self.places.domain.get_or_init(|| domain.cloned());
        if let Some(place) = self.places.names.get(self.attempt as usize) {
            place.get_or_init(|| name.clone());
        }
        for place in &self.places.endpoints {
            let free = place.compare_exchange(0, endpoint, Ordering::Relaxed, Ordering::Relaxed);
            if free.is_ok() || free == Err(endpoint) {
                return;
            }
        }
    }

    /// Whether no attempt was sent yet.
    pub fn is_empty(&self) -> bool {
        self.places.endpoints[0].load(Ordering::Relaxed) == 0
    }

    /// The dedup domain of the first attempt, if it was known: whoever is sent another is to be
    /// told in [`DOMAIN`], and refuses it in another domain.
    pub fn domain(&self) -> Option<&HeaderValue> {
        self.places.domain.get()?.as_ref()
    }

    /// Whether a call that is only safe to repeat because it is recognised may be sent to this
    /// endpoint: it was last heard of in the first one's domain, or it is the first one where
    /// nothing is known of that.
    pub fn would_recognise(&self, endpoint: NonZeroU64, domain: Option<&HeaderValue>) -> bool {
        match self.domain() {
            Some(first) => domain == Some(first),
            None => self.is_empty() || self.contains(endpoint),
        }
    }

    /// Whether an attempt was sent to this endpoint.
    pub fn contains(&self, endpoint: NonZeroU64) -> bool {
        self.places.endpoints.iter().any(|place| place.load(Ordering::Relaxed) == endpoint.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(id: u64) -> NonZeroU64 {
        NonZeroU64::new(id).unwrap()
    }

    fn name(id: u64) -> Arc<str> {
        format!("server-{id}").into()
    }

    #[test]
    fn where_an_attempt_went_is_known_by_its_number() {
        let tried = Tried::default();
        tried.in_attempt(1).add(id(7), &name(7), None);
        tried.in_attempt(9).add(id(8), &name(8), None);
        assert_eq!(tried.endpoint_of(1).map(|name| &**name), Some("server-7"));
        assert_eq!((tried.endpoint_of(0), tried.endpoint_of(9)), (None, None));
    }

    #[test]
    fn what_was_tried_is_known_to_all_clones_up_to_six() {
        let tried = Tried::default();
        for n in [1, 2, 1, 3, 4, 5, 6, 7] {
            tried.clone().add(id(n), &name(n), None);
        }
        assert!((1..=6).all(|n| tried.contains(id(n))));
        assert!(!tried.contains(id(7)));
    }

    #[test]
    fn a_call_that_must_be_recognised_stays_in_the_domain_of_its_first_attempt() {
        let [ours, other] = ["ours", "other"].map(HeaderValue::from_static);
        let tried = Tried::default();
        assert!(tried.would_recognise(id(1), None), "it was not sent yet");
        tried.add(id(1), &name(1), Some(&ours));
        tried.add(id(2), &name(2), Some(&other));
        assert_eq!(tried.domain(), Some(&ours));
        assert!(tried.would_recognise(id(3), Some(&ours)));
        assert!(!tried.would_recognise(id(3), None));
        assert!(!tried.would_recognise(id(1), Some(&other)), "it has forgotten since");
        let unknown = Tried::default();
        unknown.add(id(1), &name(1), None);
        assert!(unknown.would_recognise(id(1), Some(&ours)));
        assert!(!unknown.would_recognise(id(2), Some(&ours)));
    }
}
