//! The client's part: a key for each logical call.

use crate::NO_METHODS;
use cinchona_core::{Call, IDEMPOTENCY_KEY, Methods, Mode, Safety, Switch};
use cinchona_plumbing::{
    Callback, Misplaced,
    headers::{self, REQUEST_ID},
};
use http::{HeaderValue, Request};
use pin_project_lite::pin_project;
use std::{
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tower_layer::Layer;
use tower_service::Service;
use tracing::{Metadata, Span, field::Empty};
use uuid::Uuid;

/// Applies [`IdempotencyKey`] to a client's stack, outside of layers that repeat attempts.
#[derive(Clone)]
pub struct IdempotencyKeyLayer {
    methods: Methods,
    ids: Option<Callback<Ids>>,
    always: bool,
    switch: Switch,
    misplaced: Misplaced,
}

/// The settings of an [`IdempotencyKeyLayer`].
#[derive(Clone, Debug, PartialEq)]
pub struct IdempotencyKeySettings {
    methods: Methods,
    ids: Option<Callback<Ids>>,
    always: bool,
    switch: Option<Switch>,
}

type Ids = dyn Fn() -> Uuid + Send + Sync;

const WITHIN_ATTEMPTS: &str = "the layer that gives calls their keys stands within the retries, so \
    that each attempt has another key and a server may execute all of them: put \
    `IdempotencyKeyLayer` around `RetryLayer`";

/// Gives each call an id: the same on all its attempts, and unique among calls.
///
/// A call of a unary method that is not safe to repeat gets an `idempotency-key`, a UUIDv7 ([RFC
/// 9562]). A key that the caller has set is kept. Streams, and methods missing in the .proto, get
/// no key, as no server would recognise it.
///
/// If a subscriber enables the span `call`, its field `request_id` has the id, and the call is sent
/// with it as `x-request-id`, so that the log lines of client and server match; it equals the key
/// if there is one. The span is that of a layer further out, if it has such a field, else one of
/// this layer. If no subscriber reads an id, none is made, unless
/// [`IdempotencyKeySettings::with_request_ids`] requests it.
///
/// Both headers are marked as never indexed (RFC 7541 §7.1.3): unique values would only evict
/// others from HPACK's tables.
///
/// *A promise:* retry layers assume that a call with a key may be executed twice, since the server
/// will recognise it. So this layer belongs in front of servers with a
/// [`DedupLayer`](crate::DedupLayer) or an equivalent.
///
/// [RFC 9562]: https://www.rfc-editor.org/rfc/rfc9562#section-5.7
#[derive(Clone)]
pub struct IdempotencyKey<S> {
    inner: S,
    layer: IdempotencyKeyLayer,
}

pin_project! {
    /// The future of an [`IdempotencyKey`] call, in the call's span.
    pub struct KeyFuture<F> {
        #[pin]
        inner: F,
        // Boxed: usually there is none.
        span: Option<Box<Span>>,
    }
}

// === impl IdempotencyKeySettings ===

impl IdempotencyKeySettings {
    /// Gives ids to all calls, and keys to those of the unary methods that `methods` lists and that
    /// are neither `NO_SIDE_EFFECTS` nor `IDEMPOTENT`.
    pub fn new(methods: Methods) -> Self {
        Self { methods, ids: None, always: false, switch: None }
    }

    /// Takes ids from `ids`, which must never return the same one twice: for reproducible runs. If
    /// it panics, the call gets a UUIDv7, as by default.
    #[must_use]
    pub fn with_ids(self, ids: impl Fn() -> Uuid + Send + Sync + 'static) -> Self {
        Self { ids: Some(Callback(Arc::new(ids))), ..self }
    }

    /// Sends an `x-request-id` with every call, for servers that log it, even if no subscriber of
    /// this process reads it.
    #[must_use]
    pub fn with_request_ids(self) -> Self {
        Self { always: true, ..self }
    }

    /// Sets the switch that decides whether calls get ids; in shadow they do not.
    #[must_use]
    pub fn with_switch(self, switch: Switch) -> Self {
        Self { switch: Some(switch), ..self }
    }

    /// A layer with these settings.
    #[must_use]
    pub fn layer(&self) -> IdempotencyKeyLayer {
        let Self { methods, ids, always, switch } = self.clone();
        let (switch, misplaced) = (switch.unwrap_or_default(), Misplaced::default());
        IdempotencyKeyLayer { methods, ids, always, switch, misplaced }
    }
}

// === impl IdempotencyKeyLayer ===

impl IdempotencyKeyLayer {
    /// The layer of [`IdempotencyKeySettings::new`].
    pub fn new(methods: Methods) -> Self {
        IdempotencyKeySettings::new(methods).layer()
    }

    /// Gives a call the ids that it needs; returns its id, if that `is_read`.
    fn name<B>(&self, request: &mut Request<B>, is_read: bool) -> Option<HeaderValue> {
        let path = request.uri().path();
        let is_unsafe = self.methods.safety(path) == Safety::Unknown;
        let needs_key = is_unsafe && self.methods.is_unary(path);
        let needs_id = is_read || self.always;
        if !needs_key && !needs_id {
            return None;
        }
        let has_key = headers::has(request.headers(), &IDEMPOTENCY_KEY);
        if needs_key && !has_key && Call::find(request).is_some_and(Call::is_of_attempt) {
            self.misplaced.warn(path, WITHIN_ATTEMPTS);
        }
        let sent = request.headers_mut();
        let [mut key, mut id] =
            [&IDEMPOTENCY_KEY, &REQUEST_ID].map(|name| headers::get(sent, name).cloned());
        if key.is_none() && needs_key {
            key = self.fresh();
            key.iter().for_each(|key| _ = sent.insert(IDEMPOTENCY_KEY, key.clone()));
        }
        if id.is_none() && needs_id {
            id = key.or_else(|| self.fresh());
            id.iter().for_each(|id| _ = sent.insert(REQUEST_ID, id.clone()));
        }
        id
    }

    fn fresh(&self) -> Option<HeaderValue> {
        let own = self.ids.as_ref().and_then(|ids| {
            let made = catch_unwind(AssertUnwindSafe(&**ids));
            let panicked =
                |_| tracing::error!("the function that makes ids panicked: using a UUIDv7");
            made.map_err(panicked).ok()
        });
        let id = own.unwrap_or_else(Uuid::now_v7);
        let text = &mut Uuid::encode_buffer();
        let mut value = HeaderValue::from_str(id.hyphenated().encode_lower(text)).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl<S> Layer<S> for IdempotencyKeyLayer {
    type Service = IdempotencyKey<S>;

    fn layer(&self, inner: S) -> Self::Service {
        let is_on = self.switch.mode() != Mode::Off;
        if is_on && !self.always && self.methods.kinds().next().is_none() {
            tracing::warn!("no call is given a key: {NO_METHODS}");
        }
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
    type Future = KeyFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if self.layer.switch.mode() != Mode::Enforce {
            return KeyFuture { inner: self.inner.call(request), span: None };
        }
        let around = Span::current();
        let span = if has_place_for_id(&around) {
            around
        } else {
            tracing::info_span!("call", rpc.method = request.uri().path(), request_id = Empty)
        };
        let id = self.layer.name(&mut request, !span.is_disabled());
        span.record("request_id", id.as_ref().and_then(|id| id.to_str().ok()));
        if span.is_disabled() {
            return KeyFuture { inner: self.inner.call(request), span: None };
        }
        let inner = span.in_scope(|| self.inner.call(request));
        KeyFuture { inner, span: Some(Box::new(span)) }
    }
}

// === impl KeyFuture ===

impl<F: Future> Future for KeyFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _entered = this.span.as_ref().map(|span| span.enter());
        this.inner.poll(cx)
    }
}

impl<F> fmt::Debug for KeyFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyFuture").finish_non_exhaustive()
    }
}

/// Whether it is the span of a call by a layer further out, without an id yet.
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
    use cinchona_core::AttemptKind;
    use cinchona_testkit::Logs;
    use std::{collections::HashSet, convert::Infallible, future::ready};
    use tower::{ServiceExt, service_fn};
    use tracing::Instrument;

    /// The key and the id of a call to `path` that was made with these, if a subscriber reads the
    /// id.
    async fn arrive(path: &str, sent: [Option<&str>; 2]) -> [Option<String>; 2] {
        let _logs = Logs::of("cinchona_idempotency");
        arrive_unread(path, sent).await
    }

    async fn arrive_unread(path: &str, sent: [Option<&str>; 2]) -> [Option<String>; 2] {
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
    async fn calls_that_need_no_key_have_only_an_id() {
        for path in ["/Bank/Put", "/Bank/Read", "/Bank/Watch", "/Other/Call"] {
            let [key, id] = arrive(path, [None, None]).await;
            assert!(key.is_none() && id.is_some(), "{path}");
        }
    }

    #[tokio::test]
    async fn without_a_reader_no_id_is_sent() {
        for path in ["/Bank/Put", "/Bank/Read", "/Bank/Watch", "/Other/Call"] {
            assert_eq!(arrive_unread(path, [None, None]).await, [None, None], "{path}");
        }
        let [key, id] = arrive_unread(PAY, [None, None]).await;
        assert!(key.is_some() && id.is_none(), "a key is for the server");
    }

    #[tokio::test]
    async fn an_id_can_be_asked_for() {
        let service = service_fn(|request: Request<()>| {
            let id = request.headers().get(REQUEST_ID).cloned();
            ready(Ok::<_, Infallible>(id.is_some_and(|id| id.is_sensitive())))
        });
        let layer = IdempotencyKeySettings::new(Methods::unknown()).with_request_ids().layer();
        assert!(layer.layer(service).oneshot(Request::new(())).await.unwrap());
    }

    #[tokio::test]
    async fn ids_that_the_caller_has_set_are_kept() {
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
    async fn a_span_adds_the_id_to_every_line_below() {
        let logs = Logs::of("cinchona_idempotency");
        let service = service_fn(|_: Request<()>| async {
            tokio::task::yield_now().await;
            tracing::info!("below");
            Ok::<_, Infallible>(())
        });
        let layer =
            IdempotencyKeySettings::new(Methods::unknown()).with_ids(|| Uuid::from_u128(7)).layer();
        layer.layer(service).oneshot(Request::new(())).await.unwrap();
        let events = logs.events();
        let event = events.iter().find(|event| event.message == "below").unwrap();
        assert_eq!(event.fields["request_id"], "00000000-0000-0000-0000-000000000007");
    }

    #[tokio::test]
    async fn the_id_is_recorded_in_the_existing_span_of_the_call() {
        let logs = Logs::of("cinchona_idempotency");
        let span = tracing::info_span!("call", request_id = tracing::field::Empty);
        let service = service_fn(|_: Request<()>| async {
            tracing::info!("below");
            Ok::<_, Infallible>(())
        });
        let layer =
            IdempotencyKeySettings::new(Methods::unknown()).with_ids(|| Uuid::from_u128(7)).layer();
        let called = async { layer.layer(service).oneshot(Request::new(())).await };
        called.instrument(span).await.unwrap();
        let events = logs.events();
        let event = events.iter().find(|event| event.message == "below").unwrap();
        assert_eq!(event.fields["request_id"], "00000000-0000-0000-0000-000000000007");
    }

    /// The values of `request_id` in the lines `below`, in the service, and `after`, beside it, of
    /// a call within `span`.
    async fn ids_in_lines(span: fn() -> Span) -> [Option<String>; 2] {
        let logs = Logs::of("cinchona_idempotency");
        let service = service_fn(|_: Request<()>| async {
            tracing::info!("below");
            Ok::<_, Infallible>(())
        });
        let layer =
            IdempotencyKeySettings::new(Methods::unknown()).with_ids(|| Uuid::from_u128(7)).layer();
        let called = async {
            layer.layer(service).oneshot(Request::new(())).await.unwrap();
            tracing::info!("after");
        };
        called.instrument(span()).await;
        ["below", "after"].map(|line| {
            let events = logs.events();
            let event = events.iter().find(|event| event.message == line).unwrap();
            event.fields.get("request_id").cloned()
        })
    }

    #[tokio::test]
    async fn a_span_of_the_call_further_out_is_used_and_none_that_has_another_name_or_no_field() {
        let id = Some("00000000-0000-0000-0000-000000000007".to_owned());
        let spans: [(fn() -> Span, _); 4] = [
            (|| tracing::info_span!("call", request_id = Empty), [true, true]),
            (|| tracing::info_span!("other", request_id = Empty), [true, false]),
            (|| tracing::info_span!("call"), [true, false]),
            (Span::none, [true, false]),
        ];
        for (number, (span, has_id)) in spans.into_iter().enumerate() {
            let expected = has_id.map(|has_id| id.clone().filter(|_| has_id));
            assert_eq!(ids_in_lines(span).await, expected, "{number}");
        }
    }

    #[tokio::test]
    async fn a_layer_that_is_off_or_in_shadow_gives_no_key() {
        for (mode, is_given) in [(Mode::Enforce, true), (Mode::Shadow, false), (Mode::Off, false)] {
            let settings = IdempotencyKeySettings::new(crate::tests::methods());
            let service = settings.with_switch(Switch::new(mode)).layer().layer(service_fn(
                |request: Request<()>| ready(Ok::<_, Infallible>(request.headers().clone())),
            ));
            let sent = service.oneshot(Request::post(PAY).body(()).unwrap()).await.unwrap();
            assert_eq!(sent.contains_key(IDEMPOTENCY_KEY), is_given, "{mode:?}");
        }
    }

    #[tokio::test]
    async fn a_layer_within_the_attempts_that_would_give_each_another_key_warns_once() {
        for (is_within, path, key, warned) in [
            (true, PAY, None, 1),
            (false, PAY, None, 0),
            (true, PAY, Some("k"), 0),
            (true, "/Bank/Put", None, 0),
        ] {
            let logs = Logs::of("cinchona_plumbing");
            let service = service_fn(|_: Request<()>| ready(Ok::<_, Infallible>(())));
            let service = IdempotencyKeyLayer::new(crate::tests::methods()).layer(service);
            for _ in 0..3 {
                let mut request = Request::post(path).body(()).unwrap();
                let key = key.map(HeaderValue::from_static);
                request.headers_mut().extend(key.map(|key| (IDEMPOTENCY_KEY, key)));
                let now = tokio::time::Instant::now();
                let call = Call::of(&mut request, || now);
                if is_within {
                    let attempt = call.begins(AttemptKind::First, now);
                    request.extensions_mut().insert(attempt);
                }
                service.clone().oneshot(request).await.unwrap();
            }
            let logged = logs.events().iter().filter(|it| it.message == WITHIN_ATTEMPTS).count();
            assert_eq!(logged, warned, "{is_within}, {path}, {key:?}");
        }
    }

    #[test]
    fn a_layer_that_gives_no_call_anything_warns() {
        let unknown = || IdempotencyKeySettings::new(Methods::unknown());
        let known = || IdempotencyKeySettings::new(crate::tests::methods());
        for (settings, warned) in [
            (unknown(), 1),
            (unknown().with_switch(Switch::new(Mode::Shadow)), 1),
            (unknown().with_switch(Switch::new(Mode::Off)), 0),
            (unknown().with_request_ids(), 0),
            (known(), 0),
            (known().with_request_ids(), 0),
            (known().with_switch(Switch::new(Mode::Off)), 0),
        ] {
            let logs = Logs::of("cinchona_idempotency");
            _ = settings.layer().layer(());
            let warnings = logs.events();
            assert_eq!(warnings.len(), warned, "{warnings:?}");
            assert!(warnings.iter().all(|it| it.message.starts_with("no call is given a key")));
        }
    }

    #[tokio::test]
    async fn it_is_ready_when_the_service_below_is() {
        let layer = IdempotencyKeyLayer::new(crate::tests::methods());
        let (mut service, mut below) = tower_test::mock::spawn_with(|mock| {
            let mock: tower_test::mock::Mock<Request<()>, ()> = mock;
            layer.layer(mock)
        });
        below.allow(0);
        tokio_test::assert_pending!(service.poll_ready());
        below.allow(1);
        tokio_test::assert_ready_ok!(service.poll_ready());
    }
}
