//! The timeout sent to the server is correct when it is sent; and any duration works.

use super::*;
use cinchona_core::{Deadline, MethodKind};
use proptest::prelude::*;
use std::{
    pin::Pin,
    sync::Mutex,
    task::{Context, Poll},
};
use tokio::time::{Sleep, sleep};

/// The value of `grpc-timeout`, and when it was received.
type Received = Arc<Mutex<Vec<(Option<Duration>, Instant)>>>;

/// Becomes ready some time after it is polled, records the timeout, and answers.
struct Slow {
    ready_after: Duration,
    becoming: Option<Pin<Box<Sleep>>>,
    received: Received,
}

impl Clone for Slow {
    fn clone(&self) -> Self {
        Self { becoming: None, received: self.received.clone(), ..*self }
    }
}

impl Service<Request> for Slow {
    type Response = Response;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        let after = self.ready_after;
        self.becoming.get_or_insert_with(|| Box::pin(sleep(after))).as_mut().poll(cx).map(Ok)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let timeout = Deadline::parse_timeout(request.headers()).unwrap();
        self.received.lock().unwrap().push((timeout, Instant::now()));
        std::future::ready(Ok(Response::new(Body::empty())))
    }
}

const KINDS: [Option<MethodKind>; 4] =
    [None, Some(MethodKind::Unary), Some(MethodKind::ServerStreaming), Some(MethodKind::Bidi)];

type Bounded = http::Response<ResponseBody>;

/// A layer between the two, such as a queue, that takes its time.
fn queue<S>(
    after: Duration,
    inner: S,
) -> impl Service<Request, Response = Bounded, Error = BoxError, Future: Send> + Clone
where
    S: Service<Request, Response = Bounded, Error = BoxError> + Clone + Send + 'static,
    S::Future: Send,
{
    service_fn(move |request: Request| {
        let inner = inner.clone();
        async move {
            sleep(after).await;
            inner.oneshot(request).await
        }
    })
}

fn in_virtual_time<T>(run: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap().block_on(run)
}

proptest! {
    // catalogue: S-A8
    #[test]
    fn the_remaining_time_is_stamped_when_it_is_sent(
        asked in proptest::option::of(1_u64..20_000),
        limit in proptest::option::of(1_u64..20_000),
        attempt in proptest::option::of(1_u64..20_000),
        waits in (0_u64..3_000, 0_u64..3_000, 0_u64..3_000),
        kind in prop::sample::select(&KINDS[..]),
        mode in 0..3_usize,
        ready_first in any::<bool>(),
    ) {
        let mode = [Mode::Enforce, Mode::Shadow, Mode::Off][mode];
        let received = Received::default();
        let begun = in_virtual_time(async {
            sleep(ms(waits.0)).await;
            let received = received.clone();
            let slow = Slow { ready_after: ms(waits.1), becoming: None, received };
            let forever = |limit: Option<u64>| limit.map_or(Duration::MAX, ms);
            let attempts = AttemptTimeoutLayer::new(forever(attempt)).layer(slow);
            let calls = CallDeadlineSettings::new()
                .with_limit(forever(limit))
                .with_switch(Switch::new(mode)).layer();
            let mut service = calls.layer(queue(ms(waits.2), attempts));
            if ready_first {
                service.ready().await.unwrap();
                sleep(ms(waits.0)).await;
            }
            let mut request = request();
            if let Some(asked) = asked {
                let asked = format!("{asked}m").parse().unwrap();
                request.headers_mut().insert("grpc-timeout", asked);
            }
            kind.map(|kind| request.extensions_mut().insert(kind));
            let begun = Instant::now();
            drop(service.ready().await.unwrap().call(request).await);
            begun
        });
        for (timeout, at) in received.lock().unwrap().iter() {
            let is_unary = matches!(kind, None | Some(MethodKind::Unary));
            let mut ends = Vec::new();
            let asked = asked.map(ms);
            // If the layer above only counts, the time begins when the layer below is called.
            let read = if mode == Mode::Enforce { begun } else { begun + ms(waits.2) };
            ends.extend(asked.map(|asked| read + asked));
            if let Some(limit) = limit.filter(|_| is_unary && mode == Mode::Enforce) {
                ends.push(begun + ms(limit));
            }
            if let Some(attempt) = attempt.filter(|_| is_unary) {
                // It began when the queue admitted it.
                ends.push(begun + ms(waits.2) + ms(attempt));
            }
            let remains = ends.iter().min().map(|end| end.saturating_duration_since(*at));
            match (timeout, remains) {
                (None, None) => {}
                (Some(timeout), Some(remains)) => {
                    prop_assert!(*timeout <= remains, "{timeout:?} of {remains:?}");
                    prop_assert!(*timeout + ms(1) >= remains, "{timeout:?} of {remains:?}");
                }
                (sent, remains) => prop_assert!(false, "sent {sent:?} of {remains:?}"),
            }
        }
    }
}

// catalogue: S-D7
#[tokio::test(start_paused = true)]
async fn any_duration_ends_calls_or_lets_them_run() {
    const NANO: Duration = Duration::from_nanos(1);
    let hang = service_fn(|_: Request| std::future::pending::<Result<Response, Infallible>>());
    let kinds = [MethodKind::Unary, MethodKind::ClientStreaming, MethodKind::ServerStreaming];
    for kind in kinds.map(Some).into_iter().chain([Some(MethodKind::Bidi), None]) {
        let request = move || {
            let mut request = request();
            kind.map(|kind| request.extensions_mut().insert(kind));
            request
        };
        for limit in [Duration::ZERO, NANO, ms(1), Duration::MAX, Duration::MAX - NANO] {
            let call = CallDeadlineSettings::new().with_limit(limit).with_silence(limit).layer();
            let attempt = AttemptTimeoutSettings::new(limit).with_silence(limit).layer();
            let year = Duration::from_secs(365 * 24 * 3600);
            let call = tokio::time::timeout(year, call.layer(hang).oneshot(request()));
            let attempt = tokio::time::timeout(year, attempt.layer(hang).oneshot(request()));
            let (call, attempt) = tokio::join!(call, attempt);
            for ended in [call.ok(), attempt.ok()] {
                let code = ended.map(|outcome| code(outcome.err().unwrap()));
                let expected = (limit <= ms(1)).then_some(Code::DeadlineExceeded);
                assert_eq!(code, expected, "{kind:?} {limit:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_unlimited_deadline_is_not_sent() {
    let service = service_fn(|request: Request| async move {
        assert!(!request.headers().contains_key("grpc-timeout"));
        Ok::<_, Infallible>(Response::new(Body::empty()))
    });
    for asked in [request(), with_timeout("99999999H")] {
        let stack = tower::ServiceBuilder::new()
            .layer(CallDeadlineSettings::new().with_limit(Duration::MAX).layer())
            .layer(AttemptTimeoutLayer::new(Duration::MAX))
            .service(service);
        stack.oneshot(asked).await.unwrap();
    }
    let server = ServerDeadlineSettings::new().with_limit(Duration::MAX).layer().layer(service_fn(
        |request: Request| async move {
            assert!(request.extensions().get::<Deadline>().is_none());
            assert_eq!(cinchona_core::ServerContext::current().unwrap().deadline, None);
            Ok::<_, Infallible>(Response::new(Body::empty()))
        },
    ));
    server.clone().oneshot(request()).await.unwrap();
    server.oneshot(with_timeout("99999999H")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_error_names_the_limit_and_the_stage() {
    let hang = service_fn(|_: Request| std::future::pending::<Result<Response, Infallible>>());
    let said = async |call: CallDeadlineLayer, attempt: AttemptTimeoutLayer, request| {
        let stack = tower::ServiceBuilder::new().layer(call).layer(attempt).service(hang);
        Status::from_error(stack.oneshot(request).await.err().unwrap()).message().to_owned()
    };
    let (none, never) = (CallDeadlineLayer::new(), AttemptTimeoutLayer::new(Duration::MAX));
    assert_eq!(
        said(none.clone(), AttemptTimeoutLayer::new(ms(5)), request()).await,
        "attempt timeout of 5ms exceeded by /a.B/C, attempt 1, waiting for the response",
    );
    assert_eq!(
        said(
            CallDeadlineSettings::new().with_limit(Duration::ZERO).layer(),
            never.clone(),
            request()
        )
        .await,
        "call deadline of 0ns exceeded by /a.B/C, attempt 1, before it was sent",
    );
    assert_eq!(
        said(none, never.clone(), with_timeout("7m")).await,
        "call deadline exceeded by /a.B/C, attempt 1, 7ms after it began, waiting for the response",
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_that_gets_ready_at_the_instant_of_its_deadline_is_not_sent() {
    let received = Received::default();
    let slow = Slow { ready_after: ms(50), becoming: None, received: received.clone() };
    let service = AttemptTimeoutLayer::new(ms(50)).layer(slow);
    let error = service.oneshot(request()).await.err().unwrap();
    let said = "attempt timeout of 50ms exceeded by /a.B/C, attempt 1, waiting for a connection";
    assert_eq!(error.to_string(), said);
    assert!(received.lock().unwrap().is_empty());
}
