//! What a limit bounds, by the kind of the method.

use super::*;
use cinchona_core::{MethodKind, PerMethod};
use std::pin::Pin;
use tokio::time::sleep;

const MESSAGE: &[u8] = &[0, 0, 0, 0, 1, 7];

/// A service that sends its head after a time, each message after another, and then falls silent.
fn streaming(head: Duration, waits: Vec<Duration>) -> Serving {
    let waits = Arc::new(waits);
    Box::new(move |_: Request| {
        let waits = waits.clone();
        Box::pin(async move {
            sleep(head).await;
            let (mut sender, body) = Channel::<Bytes, Infallible>::new(1);
            tokio::spawn(async move {
                for wait in waits.iter() {
                    sleep(*wait).await;
                    if sender.send_data(Bytes::from_static(MESSAGE)).await.is_err() {
                        return;
                    }
                }
                std::future::pending::<()>().await;
            });
            Ok(Response::new(Body::new(body)))
        })
    })
}

type Answer = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;
type Serving = Box<dyn Fn(Request) -> Answer + Send + Sync>;

fn of(kind: impl Into<Option<MethodKind>>) -> Request {
    let mut request = request();
    request.extensions_mut().remove::<MethodKind>();
    kind.into().map(|kind| request.extensions_mut().insert(kind));
    request
}

/// How many messages arrived, and when and how the call ended; within an hour.
async fn ending<L>(layer: &L, request: Request, server: Serving) -> (usize, Option<(u128, Code)>)
where
    L: Layer<ServiceFn>,
    L::Service: Service<Request, Response = http::Response<ResponseBody>, Error = BoxError>,
{
    let began = Instant::now();
    let server = Arc::new(server);
    let service = layer.layer(ServiceFn(server));
    let mut messages = 0;
    let all = async {
        let mut body = Box::pin(service.oneshot(request).await?.into_body());
        while let Some(frame) = body.frame().await {
            messages += usize::from(frame?.is_data());
        }
        Ok::<_, BoxError>(())
    };
    let ended = tokio::time::timeout(Duration::from_secs(3600), all).await.ok();
    let ended = ended.map(|outcome| {
        let code = outcome.err().map_or(Code::Ok, code);
        ((Instant::now() - began).as_millis(), code)
    });
    (messages, ended)
}

#[derive(Clone)]
struct ServiceFn(Arc<Serving>);

impl Service<Request> for ServiceFn {
    type Response = Response;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Answer {
        (self.0)(request)
    }
}

const LATE: Code = Code::DeadlineExceeded;

#[tokio::test(start_paused = true)]
async fn a_limit_bounds_a_unary_answer_to_its_trailers_and_a_stream_to_its_first_message() {
    let (call, attempt) = (
        CallDeadlineSettings::new().with_limit(ms(100)).layer(),
        AttemptTimeoutLayer::new(ms(100)),
    );
    for (kind, head, waits, expected) in [
        // Silent before the head, and between head and first message.
        (Some(MethodKind::ServerStreaming), 500, vec![], (0, Some((100, LATE)))),
        (Some(MethodKind::ServerStreaming), 60, vec![ms(60)], (0, Some((100, LATE)))),
        (None, 60, vec![ms(60)], (0, Some((100, LATE)))),
        (Some(MethodKind::Bidi), 60, vec![ms(60)], (0, Some((100, LATE)))),
        // After the first message.
        (Some(MethodKind::ServerStreaming), 60, vec![ms(10); 5], (5, None)),
        (Some(MethodKind::ServerStreaming), 0, vec![ms(50), ms(900_000)], (2, None)),
        (Some(MethodKind::Bidi), 0, vec![ms(50), ms(900_000)], (2, None)),
        (Some(MethodKind::Unary), 0, vec![ms(50)], (1, Some((100, LATE)))),
        (Some(MethodKind::ClientStreaming), 0, vec![ms(50)], (1, Some((150, LATE)))),
        // Of an unknown kind: one message may be all, two are a stream.
        (None, 0, vec![ms(50)], (1, Some((60_050, LATE)))),
        (None, 0, vec![ms(50), ms(59_000), ms(900_000)], (3, None)),
    ] {
        let server = || streaming(ms(head), waits.clone());
        let case = format!("{kind:?} {head} {waits:?}");
        assert_eq!(ending(&call, of(kind), server()).await, expected, "call {case}");
        assert_eq!(ending(&attempt, of(kind), server()).await, expected, "attempt {case}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_requested_deadline_bounds_a_stream_and_is_sent() {
    let server = || streaming(ms(0), vec![ms(50); 5]);
    let asked = |kind| {
        let mut request = of(kind);
        request.headers_mut().insert("grpc-timeout", "120m".parse().unwrap());
        request
    };
    let mut timeouts = PerMethod::new();
    timeouts.insert("a.B", "C", Some(ms(120))).unwrap();
    let configured = CallDeadlineLayer::new();
    configured.set_timeouts(timeouts);
    for kind in [None, Some(MethodKind::ServerStreaming), Some(MethodKind::Bidi)] {
        let call = CallDeadlineSettings::new().with_limit(ms(100)).layer();
        let attempt = AttemptTimeoutLayer::new(ms(100));
        let expected = (2, Some((120, LATE)));
        assert_eq!(ending(&call, asked(kind), server()).await, expected, "{kind:?}");
        assert_eq!(ending(&attempt, asked(kind), server()).await, expected, "{kind:?}");
        assert_eq!(ending(&configured, of(kind), server()).await, expected, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_the_call_that_is_served_bounds_a_stream() {
    let deadline = Some(Deadline::after(ms(120), Instant::now()));
    let inbound = cinchona_core::ServerContext::new(deadline, 0);
    let call = CallDeadlineSettings::new().with_limit(ms(100)).layer();
    let ended = inbound.scope(async {
        let server = streaming(ms(0), vec![ms(50); 5]);
        ending(&call, of(MethodKind::ServerStreaming), server).await
    });
    assert_eq!(ended.await, (2, Some((120, LATE))));
}

#[tokio::test(start_paused = true)]
async fn silence_ends_a_stream_if_configured() {
    let kind = MethodKind::ServerStreaming;
    let mut by_method = PerMethod::new();
    by_method.insert("a.B", "C", Some(ms(200))).unwrap();
    let layers = [
        AttemptTimeoutSettings::new(ms(100)).with_silence(ms(200)).layer(),
        AttemptTimeoutSettings::new(ms(100)).with_kind_silence(kind, Some(ms(200))).layer(),
        AttemptTimeoutSettings::new(ms(100))
            .with_silences(by_method.clone())
            .with_silence(ms(1))
            .layer(),
    ];
    for layer in &layers {
        let server = || streaming(ms(0), vec![ms(50), ms(150), ms(150), ms(300)]);
        assert_eq!(ending(layer, of(kind), server()).await, (3, Some((550, LATE))));
    }
    let call = CallDeadlineSettings::new().with_silences(by_method).layer();
    let server = streaming(ms(0), vec![ms(500), ms(150), ms(300)]);
    assert_eq!(ending(&call, of(kind), server).await, (2, Some((850, LATE))));
    let other = AttemptTimeoutSettings::new(ms(100))
        .with_kind_silence(MethodKind::Bidi, Some(ms(1)))
        .layer();
    let server = streaming(ms(0), vec![ms(50), ms(150)]);
    assert_eq!(ending(&other, of(kind), server).await, (2, None));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_is_slow_to_read_is_no_silence() {
    let server = streaming(ms(0), vec![ms(10); 3]);
    let layer = CallDeadlineSettings::new().with_limit(ms(100)).with_silence(ms(50)).layer();
    let service = layer.layer(ServiceFn(Arc::new(server)));
    let response = service.oneshot(of(MethodKind::ServerStreaming)).await.unwrap();
    let mut body = Box::pin(response.into_body());
    for _ in 0..3 {
        assert!(body.frame().await.unwrap().unwrap().is_data());
        sleep(ms(5000)).await;
    }
    let began = Instant::now();
    let error = body.frame().await.unwrap().err().unwrap();
    assert_eq!(Instant::now() - began, ms(50));
    let said = "limit of silence of 50ms exceeded by /a.B/C, attempt 1, \
        waiting for the rest of the response";
    assert_eq!(error.message(), said);
}

#[tokio::test(start_paused = true)]
async fn limits_are_by_method_then_by_kind() {
    let mut by_method = PerMethod::new();
    by_method.insert("a.B", "C", Some(ms(30))).unwrap();
    let hang = || streaming(ms(9_000_000), vec![]);
    let settings = AttemptTimeoutSettings::new(ms(10))
        .with_kind_limit(MethodKind::ServerStreaming, Some(ms(20)))
        .with_kind_limit(MethodKind::Bidi, None);
    let layer = settings.layer();
    for (kind, expected) in [
        (MethodKind::Unary, Some((10, LATE))),
        (MethodKind::ServerStreaming, Some((20, LATE))),
        (MethodKind::Bidi, None),
    ] {
        assert_eq!(ending(&layer, of(kind), hang()).await, (0, expected), "{kind:?}");
        let own = settings.clone().with_limits(by_method.clone()).layer();
        assert_eq!(ending(&own, of(kind), hang()).await, (0, Some((30, LATE))), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_does_not_bound_a_stream_is_not_sent() {
    let server = service_fn(|request: Request| async move {
        let mut response = Response::new(Body::empty());
        *response.headers_mut() = request.headers().clone();
        Ok::<_, Infallible>(response)
    });
    let stack = tower::ServiceBuilder::new()
        .layer(CallDeadlineSettings::new().with_limit(ms(100)).layer())
        .layer(AttemptTimeoutLayer::new(ms(20)))
        .service(server);
    for (kind, asked, expected) in [
        (Some(MethodKind::Unary), None, Some("20000000n")),
        (None, None, None),
        (None, Some("50m"), Some("50000000n")),
        (Some(MethodKind::ServerStreaming), None, None),
        (Some(MethodKind::Bidi), None, None),
        (Some(MethodKind::ServerStreaming), Some("5S"), Some("5000000u")),
        (Some(MethodKind::ClientStreaming), Some("50m"), Some("50000000n")),
    ] {
        let mut request = of(kind);
        if let Some(asked) = asked {
            request.headers_mut().insert("grpc-timeout", asked.parse().unwrap());
        }
        let response = stack.clone().oneshot(request).await.unwrap();
        let sent = response.headers().get("grpc-timeout").map(|value| value.to_str().unwrap());
        assert_eq!(sent, expected, "{kind:?} {asked:?}");
    }
}

/// A request whose messages are sent one after each of `waits`, and which then ends, or does not.
fn upload(kind: MethodKind, waits: Vec<Duration>, ends: bool) -> Request {
    let (mut sender, body) = Channel::<Bytes, Status>::new(1);
    tokio::spawn(async move {
        for wait in waits {
            sleep(wait).await;
            sender.send_data(Bytes::from_static(MESSAGE)).await.ok();
        }
        if !ends {
            std::future::pending::<()>().await;
        }
    });
    of(kind).map(|_| Body::new(body))
}

/// Reads up to so many messages of the request, then stops reading, and never answers.
fn reading(most: usize) -> Serving {
    Box::new(move |request: Request| {
        Box::pin(async move {
            let mut body = request.into_body();
            for _ in 0..most {
                if body.frame().await.is_none() {
                    break;
                }
            }
            let held = body;
            std::future::pending::<()>().await;
            drop(held);
            Ok(Response::new(Body::empty()))
        })
    })
}

#[tokio::test(start_paused = true)]
async fn while_a_request_is_sent_the_limit_is_for_the_server_not_for_the_caller() {
    let (call, attempt) = (
        CallDeadlineSettings::new().with_limit(ms(100)).layer(),
        AttemptTimeoutLayer::new(ms(100)),
    );
    for kind in [MethodKind::ClientStreaming, MethodKind::Bidi] {
        for (waits, ends, read, expected) in [
            // The server has all of it, and does not answer.
            (vec![ms(3000); 5], true, usize::MAX, Some((15_100, LATE))),
            // It does not read on.
            (vec![ms(3000); 5], true, 2, Some((6_100, LATE))),
            // It was never reached.
            (vec![ms(3000); 5], true, 0, Some((100, LATE))),
            // The caller has not sent all.
            (vec![ms(3000); 5], false, usize::MAX, None),
        ] {
            let case = format!("{kind:?} {waits:?} {ends} {read}");
            let request = || upload(kind, waits.clone(), ends);
            let ended = ending(&call, request(), reading(read)).await;
            assert_eq!(ended, (0, expected), "call {case}");
            let ended = ending(&attempt, request(), reading(read)).await;
            assert_eq!(ended, (0, expected), "attempt {case}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_limit_of_a_server_ends_with_the_first_message_of_a_response() {
    let layer = ServerDeadlineSettings::new().with_limit(ms(100)).layer();
    let messages = async |asked: Request, waits| {
        let service = layer.layer(ServiceFn(Arc::new(streaming(ms(0), waits))));
        let mut body = service.oneshot(asked).await.unwrap().into_body();
        let (mut count, began) = (0, Instant::now());
        let all = async {
            while let Some(frame) = body.frame().await {
                count += usize::from(frame.unwrap().is_data());
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(3600), all).await.is_ok();
        (count, ended.then(|| (Instant::now() - began).as_millis()))
    };
    assert_eq!(messages(request(), vec![ms(50); 5]).await, (5, None));
    assert_eq!(messages(request(), vec![ms(500)]).await, (0, Some(99)));
    assert_eq!(messages(with_timeout("120m"), vec![ms(50); 5]).await, (2, Some(119)));
}
