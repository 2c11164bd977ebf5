//! The client's part: a name for each logical call.

use cinchona_core::{IDEMPOTENCY_KEY, Methods, Safety};
use http::{HeaderName, HeaderValue, Request};
use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    task::{Context, Poll},
};
use tower_layer::Layer;
use tower_service::Service;
use tracing::{Instrument, Metadata, Span, instrument::Instrumented};
use uuid::Uuid;

/// The request header by which logs of clients and servers are matched.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Applies [`IdempotencyKey`] to a client's stack, outside of what repeats attempts.
#[derive(Clone)]
pub struct IdempotencyKeyLayer {
    methods: Methods,
    ids: Arc<dyn Fn() -> Uuid + Send + Sync>,
}

/// Names each call: the same on all its attempts, and another for each call.
///
/// A call of a unary method that is not safe to repeat gets an `idempotency-key`, a UUIDv7
/// ([RFC 9562]); every call gets an `x-request-id`, equal to the key where it has one. What the
/// caller has set stays. Streams, and methods that the .proto does not list, get no key, as no
/// server would recognise it. The span `call` around everything below says the id as `request_id`:
/// that of a layer further out, if it has such a field, else one of its own.
///
/// *A promise:* retry layers take it that a call with a key may be executed twice, since the server
/// will recognise it. So this layer belongs in front of servers that have a
/// [`DedupLayer`](crate::DedupLayer), or something like it.
///
/// [RFC 9562]: https://www.rfc-editor.org/rfc/rfc9562#section-5.7
#[derive(Clone)]
pub struct IdempotencyKey<S> {
    inner: S,
    layer: IdempotencyKeyLayer,
}

// === impl IdempotencyKeyLayer ===

impl IdempotencyKeyLayer {
    /// Names all calls, and gives a key to those of the unary methods that `methods` lists and that
    /// say neither `NO_SIDE_EFFECTS` nor `IDEMPOTENT`.
    pub fn new(methods: Methods) -> Self {
        Self { methods, ids: Arc::new(Uuid::now_v7) }
    }

    /// Takes ids from `ids` instead, which must never return the same twice: for runs that are to
    /// be repeated. Where it panics, the call has a UUIDv7.
    pub fn with_ids(self, ids: impl Fn() -> Uuid + Send + Sync + 'static) -> Self {
        Self { ids: Arc::new(ids), ..self }
    }

    fn name<B>(&self, request: &mut Request<B>) -> Option<HeaderValue> {
        let path = request.uri().path();
        let is_unsafe = self.methods.safety(path) == Safety::Unknown;
        let needs_key = is_unsafe && self.methods.is_unary(path);
        let headers = request.headers_mut();
        let (key, id) = (headers.get(IDEMPOTENCY_KEY).cloned(), headers.get(REQUEST_ID).cloned());
        let fresh = match (&key, &id) {
            (Some(_), Some(_)) => None,
            (None, Some(_)) if !needs_key => None,
            (Some(key), None) => Some(key.clone()),
            _ => {
                let id = catch_unwind(AssertUnwindSafe(|| (self.ids)())).unwrap_or_else(|_| {
                    tracing::error!("the function that makes ids panicked: a UUIDv7 is used");
                    Uuid::now_v7()
                });
                let text = id.hyphenated().encode_lower(&mut Uuid::encode_buffer()).to_owned();
                HeaderValue::from_str(&text).ok()
            }
        };
        if key.is_none() && needs_key {
            headers.extend(fresh.clone().map(|fresh| (IDEMPOTENCY_KEY, fresh)));
        }
        if id.is_none() {
            headers.extend(fresh.clone().map(|fresh| (REQUEST_ID, fresh)));
        }
        id.or(fresh)
    }
}

impl<S> Layer<S> for IdempotencyKeyLayer {
    type Service = IdempotencyKey<S>;

    fn layer(&self, inner: S) -> Self::Service {
        IdempotencyKey { inner, layer: self.clone() }
    }
}

impl fmt::Debug for IdempotencyKeyLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotencyKeyLayer").finish_non_exhaustive()
    }
}

// === impl IdempotencyKey ===

impl<S, B> Service<Request<B>> for IdempotencyKey<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Instrumented<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let id = self.layer.name(&mut request);
        let request_id = id.as_ref().and_then(|id| id.to_str().ok());
        let around = Span::current();
        let span = if has_place_for_id(&around) {
            around.record("request_id", request_id);
            around
        } else {
            tracing::info_span!("call", rpc.method = request.uri().path(), request_id)
        };
        let _entered = span.enter();
        let calling = self.inner.call(request);
        calling.in_current_span()
    }
}

/// Whether it is that of a call, made by a layer further out, which does not know the id yet.
fn has_place_for_id(span: &Span) -> bool {
    let is_call =
        |of: &Metadata<'_>| of.name() == "call" && of.fields().field("request_id").is_some();
    span.metadata().is_some_and(is_call)
}

impl<S: fmt::Debug> fmt::Debug for IdempotencyKey<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotencyKey").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cinchona_testkit::Logs;
    use std::{collections::HashSet, convert::Infallible, future::ready};
    use tower::{ServiceExt, service_fn};

    /// The key and the id that arrive with a call to `path` that was made with these.
    async fn arrive(path: &str, sent: [Option<&str>; 2]) -> [Option<String>; 2] {
        let mut request = Request::post(path).body(()).unwrap();
        for (name, value) in [IDEMPOTENCY_KEY, REQUEST_ID].into_iter().zip(sent) {
            request.headers_mut().extend(value.map(|value| (name, value.parse().unwrap())));
        }
        let service = service_fn(|request: Request<()>| {
            let value = |name| request.headers().get(name)?.to_str().ok().map(str::to_owned);
            ready(Ok::<_, Infallible>([IDEMPOTENCY_KEY, REQUEST_ID].map(value)))
        });
        let layer = IdempotencyKeyLayer::new(crate::tests::methods());
        layer.layer(service).oneshot(request).await.unwrap()
    }

    const PAY: &str = "/Bank/Pay";

    #[tokio::test]
    async fn a_call_that_has_an_effect_gets_a_key_and_the_same_id() {
        let [key, id] = arrive(PAY, [None, None]).await;
        assert_eq!(key, id);
        let uuid: Uuid = key.unwrap().parse().unwrap();
        assert_eq!(uuid.get_version_num(), 7);
    }

    #[tokio::test]
    async fn where_a_key_would_be_of_no_use_there_is_only_an_id() {
        for path in ["/Bank/Put", "/Bank/Read", "/Bank/Watch", "/Other/Call"] {
            let [key, id] = arrive(path, [None, None]).await;
            assert!(key.is_none() && id.is_some(), "{path}");
        }
    }

    #[tokio::test]
    async fn what_the_caller_has_set_stays() {
        let own = |text: &str| Some(text.to_owned());
        assert_eq!(arrive(PAY, [Some("k"), None]).await, [own("k"), own("k")]);
        assert_eq!(arrive(PAY, [Some("k"), Some("i")]).await, [own("k"), own("i")]);
        let [key, id] = arrive(PAY, [None, Some("i")]).await;
        assert_eq!(id, own("i"));
        assert_ne!(key, id, "an id may be that of a call further up");
    }

    #[tokio::test]
    async fn no_two_calls_have_the_same_key() {
        let mut keys = HashSet::new();
        for _ in 0..1000 {
            let [key, _] = arrive(PAY, [None, None]).await;
            assert!(keys.insert(key));
        }
    }

    #[tokio::test]
    async fn a_span_says_the_id_in_every_line_below() {
        let logs = Logs::of("cinchona_idempotency");
        let service = service_fn(|_: Request<()>| async {
            tokio::task::yield_now().await;
            tracing::info!("below");
            Ok::<_, Infallible>(())
        });
        let layer = IdempotencyKeyLayer::new(Methods::unknown()).with_ids(|| Uuid::from_u128(7));
        layer.layer(service).oneshot(Request::new(())).await.unwrap();
        let [event] = &logs.events()[..] else { panic!("one event") };
        assert_eq!(event.fields["request_id"], "00000000-0000-0000-0000-000000000007");
    }

    #[tokio::test]
    async fn the_id_goes_into_the_span_of_the_call_that_is_there_already() {
        let logs = Logs::of("cinchona_idempotency");
        let span = tracing::info_span!("call", request_id = tracing::field::Empty);
        let service = service_fn(|_: Request<()>| async {
            tracing::info!("below");
            Ok::<_, Infallible>(())
        });
        let layer = IdempotencyKeyLayer::new(Methods::unknown()).with_ids(|| Uuid::from_u128(7));
        let called = async { layer.layer(service).oneshot(Request::new(())).await };
        called.instrument(span).await.unwrap();
        let [event] = &logs.events()[..] else { panic!("one event") };
        assert_eq!(event.fields["request_id"], "00000000-0000-0000-0000-000000000007");
    }
}
