//! Long calls beside short ones, and requests that do not arrive.

use super::*;
use crate::places::Limits;
use bytes::Bytes;
use cinchona_core::MethodKind;
use cinchona_policy::concurrency::{Entry, Permit};
use cinchona_testkit::Logs;
use http_body::Frame;
use std::{
    pin::Pin,
    task::{Context, Poll},
};
use tokio::sync::mpsc;

/// A body of which a part is ready when it is sent.
struct Parts(mpsc::UnboundedReceiver<Bytes>);

impl http_body::Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|part| part.map(|part| Ok(Frame::data(part))))
    }
}

fn parts() -> (mpsc::UnboundedSender<Bytes>, Body) {
    let (sender, parts) = mpsc::unbounded_channel();
    (sender, Body::new(Parts(parts)))
}

/// A request of a method of this kind, if known.
fn of(kind: Option<MethodKind>) -> Request<Body> {
    let mut request = request();
    kind.into_iter().for_each(|kind| _ = request.extensions_mut().insert(kind));
    request
}

const KINDS: [Option<MethodKind>; 5] = [
    None,
    Some(MethodKind::Unary),
    Some(MethodKind::ClientStreaming),
    Some(MethodKind::ServerStreaming),
    Some(MethodKind::Bidi),
];

fn is_stream(kind: Option<MethodKind>) -> bool {
    kind.is_some_and(|kind| kind != MethodKind::Unary)
}

// catalogue: S-C1
#[tokio::test(start_paused = true)]
async fn a_server_counts_a_call_until_its_head_and_a_stream_among_the_streams_until_its_end() {
    for kind in KINDS {
        let layer = settings(1).with_queue(Queue::none()).layer();
        let service = layer.layer(ScriptedServer::new([
            Answer::After(SECOND, Box::new(Answer::HeadersThenHang)),
            Answer::Ok(encode(&7_u32)),
        ]));
        let counted = || (layer.counters().in_progress, layer.counters().streams);
        let mut head = tokio_test::task::spawn(service.clone().oneshot(of(kind)));
        tokio_test::assert_pending!(head.poll());
        assert_eq!(counted(), if is_stream(kind) { (0, 1) } else { (1, 0) }, "{kind:?}");
        let response = head.await.unwrap();
        assert_eq!(counted(), (0, u32::from(is_stream(kind))), "{kind:?}");
        assert_eq!(call(&service, request()).await, Code::Ok, "{kind:?}");
        drop(response);
        assert_eq!(counted(), (0, 0), "{kind:?}");
        let read = service.clone().oneshot(of(kind)).await.unwrap();
        read.into_body().collect().await.unwrap();
        assert_eq!((counted(), layer.counters().shed), ((0, 0), 0), "{kind:?}");
    }
}

// catalogue: S-C1
#[tokio::test(start_paused = true)]
async fn a_client_counts_a_unary_call_until_its_end_and_a_stream_among_the_streams() {
    for kind in KINDS {
        let layer = BulkheadLayer::new(1, Duration::ZERO).unwrap();
        let service =
            layer.layer(ScriptedServer::new([Answer::HeadersThenHang, Answer::Ok(encode(&7_u32))]));
        let response = service.clone().oneshot(of(kind)).await.unwrap();
        let counted = (layer.counters().in_progress, layer.counters().streams);
        let expected = match kind {
            None => (0, 0),
            Some(MethodKind::Unary) => (1, 0),
            Some(_) => (0, 1),
        };
        assert_eq!(counted, expected, "{kind:?}");
        drop(response);
        assert_eq!((layer.counters().in_progress, layer.counters().streams), (0, 0), "{kind:?}");
        assert_eq!(call(&service, of(Some(MethodKind::Unary))).await, Code::Ok);
    }
}

/// The share of unary calls, at this rate for 20 s, that are answered beside so many watches. Each
/// takes 20 ms on one of eight workers, so more than 400 a second are too many.
async fn goodput(kind: Option<MethodKind>, watches: usize, rate: u32, limit: Limit) -> f64 {
    let layer = ShedSettings::new(limit).unwrap().with_rng(Rng::seeded(1)).layer();
    let workers = Arc::new(Semaphore::new(8));
    let events = Arc::new(Mutex::new(Vec::new()));
    let service = layer.layer(service_fn(move |request: Request<Body>| {
        let (workers, events) = (workers.clone(), events.clone());
        async move {
            if request.uri().path() == "/a.B/Watch" {
                let (sender, body) = parts();
                events.lock().unwrap().push(sender);
                return Ok::<_, Infallible>(Response::new(body));
            }
            let _worker = workers.acquire().await;
            sleep(20 * MS).await;
            Ok(Status::ok("").into_http())
        }
    }));
    let mut held = Vec::new();
    for _ in 0..watches {
        let mut watch = of(kind);
        *watch.uri_mut() = "/a.B/Watch".parse().unwrap();
        held.push(service.clone().oneshot(watch).await.unwrap());
    }
    let mut calls = JoinSet::new();
    for _ in 0..20 * rate {
        sleep(SECOND / rate).await;
        let call = call(&service, of(kind.map(|_| MethodKind::Unary)));
        calls.spawn(async move { timeout(SECOND, call).await == Ok(Code::Ok) });
    }
    let answered = calls.join_all().await;
    answered.iter().filter(|ok| **ok).count() as f64 / answered.len() as f64
}

// catalogue: S-C1
#[tokio::test(start_paused = true)]
async fn watches_take_nothing_from_unary_calls() {
    for limit in [Limit::default(), Limit::Fixed(8)] {
        for rate in [10, 100, 1000] {
            let alone = goodput(None, 0, rate, limit).await;
            for kind in [None, Some(MethodKind::ServerStreaming), Some(MethodKind::Bidi)] {
                for watches in [25, 1000] {
                    let beside = goodput(kind, watches, rate, limit).await;
                    assert!(
                        beside >= 0.95 * alone,
                        "{beside} of {alone} at {rate}/s beside {watches} of {kind:?}"
                    );
                }
            }
        }
    }
}

// catalogue: S-C1
#[tokio::test(start_paused = true)]
async fn handlers_that_wait_before_they_answer_take_nothing_from_unary_calls_either() {
    for kind in KINDS.into_iter().filter(|kind| is_stream(*kind)) {
        let layer = fixed(2);
        let service = layer.layer(service_fn(|request: Request<Body>| async move {
            if request.extensions().get() != Some(&MethodKind::Unary) {
                sleep(3600 * SECOND).await;
            }
            Ok::<_, Infallible>(Status::ok("").into_http::<Body>())
        }));
        let mut lasting = JoinSet::new();
        (0..25).for_each(|_| _ = lasting.spawn(call(&service, of(kind))));
        sleep(SECOND).await;
        assert_eq!((layer.counters().streams, layer.counters().in_progress), (25, 0), "{kind:?}");
        for _ in 0..100 {
            assert_eq!(call(&service, of(Some(MethodKind::Unary))).await, Code::Ok);
        }
        lasting.shutdown().await;
        assert_eq!(layer.counters().streams, 0);
    }
}

// catalogue: S-C1
#[tokio::test(start_paused = true)]
async fn an_adaptive_limit_keeps_adapting_while_no_call_ends() {
    let settings = Adaptive { initial: 4, ..Adaptive::default() };
    let layer = ShedLayer::new(Limit::Adaptive(settings)).unwrap();
    let service = layer.layer(service_fn(|request: Request<Body>| async move {
        if request.uri().path() == "/a.B/Poll" {
            sleep(3600 * SECOND).await;
        }
        Ok::<_, Infallible>(Status::ok("").into_http::<Body>())
    }));
    let mut lasting = JoinSet::new();
    for _ in 0..4 {
        let mut poll = request();
        *poll.uri_mut() = "/a.B/Poll".parse().unwrap();
        lasting.spawn(call(&service, poll));
    }
    sleep(MS).await;
    let mut answered = 0;
    for _ in 0..300 {
        sleep(200 * MS).await;
        answered += u32::from(call(&service, request()).await == Code::Ok);
    }
    assert!(answered >= 285, "{answered} of 300");
}

#[tokio::test(start_paused = true)]
async fn streams_that_pass_through_an_adaptive_limit_are_no_calls_that_were_abandoned() {
    let settings = Adaptive { initial: 100, ..Adaptive::default() };
    let layer = ShedLayer::new(Limit::Adaptive(settings)).unwrap();
    let service = layer.layer(working(MS));
    for _ in 0..1000 {
        assert_eq!(call(&service, of(Some(MethodKind::ServerStreaming))).await, Code::Ok);
        sleep(MS).await;
    }
    assert_eq!(layer.counters().limit, 100, "it learns nothing of them");
}

#[tokio::test(start_paused = true)]
async fn an_adaptive_limit_counts_a_call_among_those_in_flight_when_it_begins_and_logs_changes() {
    let logs = Logs::capture();
    let limiter =
        crate::places::Places::new(&Limits::new(Limit::default()), |_| Queue::none()).common;
    let enter = || match limiter.enter(Criticality::default) {
        Entry::Admitted(permit) => permit,
        _ => panic!("there are 1000 places"),
    };
    let permits = [enter(), enter(), enter()];
    assert_eq!(permits.each_ref().map(Permit::among), [Some(1), Some(2), Some(3)]);
    permits.into_iter().for_each(Permit::pass_on);
    // At its most it stays where it is, window by window.
    for (answered, changes) in [(true, 0), (false, 1)] {
        for _ in 0..40 {
            let mut permit = enter();
            permit.answered(answered);
            sleep(10 * MS).await;
        }
        let logged = logs.events().iter().filter(|it| it.message == "concurrency limit").count();
        assert_eq!(logged, changes);
    }
}

#[tokio::test(start_paused = true)]
async fn methods_can_have_their_own_limits_or_none() {
    let settings = settings(1).with_queue(Queue::none());
    let settings = settings.with_limit_of("a.B", "Report", Limit::Fixed(2)).unwrap();
    let settings = settings.with_exempt("a.Admin", "").unwrap();
    let layer = settings.layer();
    let service = layer.layer(working(SECOND));
    let codes = async |path: &'static str, count: usize| {
        let at = |_| {
            let mut request = request();
            *request.uri_mut() = path.parse().unwrap();
            call(&service, request)
        };
        let calls: JoinSet<_> = (0..count).map(at).collect();
        calls.join_all().await.into_iter().filter(|code| *code == Code::Ok).count()
    };
    let (admin, report, other) =
        tokio::join!(codes("/a.Admin/Any", 5), codes("/a.B/Report", 5), codes("/a.B/Other", 5));
    assert_eq!((admin, report, other), (5, 2, 1));
    assert_eq!((layer.counters().shed, layer.counters().in_progress), (7, 0));

    for (service, method) in [("a.B", "Report"), ("", "Any"), ("", "")] {
        assert!(settings.clone().with_exempt(service, method).is_err(), "{service}/{method}");
    }
    assert!(settings.clone().with_limit_of("a.C", "", Limit::Fixed(0)).is_err());
    assert!(ShedSettings::default().with_streams(0).is_err());
    assert!(BulkheadSettings::default().with_streams(0).is_err());
}

#[tokio::test(start_paused = true)]
async fn streams_are_refused_over_their_own_limit_and_no_other_call_is() {
    let layer = settings(1).with_streams(2).unwrap().layer();
    let service = layer.layer(working(SECOND));
    let streams: JoinSet<_> = (0..4).map(|_| call(&service, of(Some(MethodKind::Bidi)))).collect();
    sleep(MS).await;
    assert_eq!(call(&service, request()).await, Code::Ok);
    let codes = streams.join_all().await;
    assert_eq!(codes.iter().filter(|code| **code == Code::Unavailable).count(), 2);
    assert_eq!((layer.counters().streams, layer.counters().shed), (0, 2));
}

/// A service that reads its request, as tonic does, and takes 10 ms.
fn reading()
-> impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
+ Clone
+ Send {
    service_fn(|request: Request<Body>| async move {
        let read = request.into_body().collect().await;
        sleep(10 * MS).await;
        let read = read.map(|read| read.to_bytes().len()).unwrap_or_default();
        Ok(Status::ok(read.to_string()).into_http())
    })
}

// catalogue: S-E7
#[tokio::test(start_paused = true)]
async fn a_request_that_has_not_arrived_holds_no_place() {
    for kind in KINDS {
        for limit in [Limit::Fixed(2), Limit::default()] {
            let layer = ShedLayer::new(limit).unwrap();
            let service = layer.layer(reading());
            let (mut senders, mut halves) = (Vec::new(), JoinSet::new());
            for _ in 0..20 {
                let (sender, body) = parts();
                sender.send(Bytes::from_static(b"half")).unwrap();
                senders.push(sender);
                halves.spawn(call(&service, of(kind).map(|_| body)));
            }
            for _ in 0..100 {
                assert_eq!(call(&service, of(Some(MethodKind::Unary))).await, Code::Ok, "{kind:?}");
            }
            assert_eq!((layer.counters().in_progress, layer.counters().shed), (0, 0));
            drop(senders);
            let codes = halves.join_all().await;
            assert_eq!(
                codes,
                [Code::Ok; 20],
                "{kind:?}: they wait for their places, and have them"
            );
            assert_eq!(
                (layer.counters().in_progress, layer.counters().waiting, layer.counters().streams),
                (0, 0, 0)
            );
        }
    }
}

// catalogue: S-E7
#[tokio::test(start_paused = true)]
async fn no_call_begins_before_its_one_message_has_arrived_and_has_a_place() {
    let (begun, layer) = (Arc::new(AtomicU32::new(0)), fixed(2));
    let count = begun.clone();
    // It works before it reads, as a layer or a handler may.
    let service = layer.layer(service_fn(move |request: Request<Body>| {
        count.fetch_add(1, Ordering::Relaxed);
        async move {
            sleep(SECOND).await;
            let read = request.into_body().collect().await.unwrap().to_bytes().len();
            Ok::<_, Infallible>(Status::ok(read.to_string()).into_http::<Body>())
        }
    }));
    let (mut senders, mut calls) = (Vec::new(), JoinSet::new());
    for _ in 0..10 {
        let (sender, body) = parts();
        sender.send(Bytes::from_static(b"half")).unwrap();
        senders.push(sender);
        calls.spawn(call(&service, of(Some(MethodKind::Unary)).map(|_| body)));
    }
    sleep(SECOND).await;
    assert_eq!((begun.load(Ordering::Relaxed), layer.counters().in_progress), (0, 0));
    drop(senders);
    let codes = calls.join_all().await;
    let served = codes.iter().filter(|code| **code == Code::Ok).count();
    assert_eq!((served, layer.counters().shed), (2, 8), "{codes:?}");
    assert_eq!(begun.load(Ordering::Relaxed), 2, "a refused call was not begun");

    // A request larger than the buffer takes its place when the buffer is full.
    let (sender, body) = parts();
    for _ in 0..5 {
        sender.send(Bytes::from(vec![0; 1 << 20])).unwrap();
    }
    let large = tokio::spawn(call(&service, of(Some(MethodKind::Unary)).map(|_| body)));
    sleep(SECOND / 2).await;
    assert_eq!((begun.load(Ordering::Relaxed), layer.counters().in_progress), (3, 1));
    sleep(SECOND).await;
    sender.send(Bytes::from_static(b"end")).unwrap();
    drop(sender);
    assert_eq!(large.await.unwrap(), Code::Ok);
}

// catalogue: S-E7
#[tokio::test(start_paused = true)]
async fn a_request_has_30_s_to_arrive_unless_it_may_be_a_stream() {
    for kind in KINDS {
        let layer = fixed(1);
        let service = layer.layer(reading());
        let (sender, body) = parts();
        sender.send(Bytes::from_static(b"half")).unwrap();
        let began = Instant::now();
        let ended = timeout(3600 * SECOND, call(&service, of(kind).map(|_| body))).await;
        if kind.is_some_and(|kind| !kind.streams_requests()) {
            assert_eq!(ended, Ok(Code::DeadlineExceeded), "{kind:?}");
            assert_eq!(
                (Instant::now() - began, layer.counters().late),
                (30 * SECOND, 1),
                "{kind:?}"
            );
        } else {
            assert!(ended.is_err(), "{kind:?}");
        }
        assert_eq!(
            (layer.counters().in_progress, layer.counters().streams, layer.counters().shed),
            (0, 0, 0)
        );
    }
    let service = settings(1).with_arrival(Duration::MAX).layer().layer(reading());
    let (_sender, body) = parts();
    let call = call(&service, of(Some(MethodKind::Unary)).map(|_| body));
    assert!(timeout(1000 * 24 * 3600 * SECOND, call).await.is_err());
}

// catalogue: S-E7
#[tokio::test(start_paused = true)]
async fn a_request_that_arrives_late_takes_a_place_or_is_refused() {
    for (kind, queue) in [(None, Queue::none()), (Some(MethodKind::Unary), Queue::default())] {
        let layer = settings(1).with_queue(queue).layer();
        let service = layer.layer(reading());
        let (sender, body) = parts();
        let late = tokio::spawn(call(&service, of(kind).map(|_| body)));
        sleep(MS).await;
        let busy = layer.layer(working(SECOND));
        let first = tokio::spawn(call(&busy, request()));
        sleep(MS).await;
        sender.send(Bytes::from_static(b"all")).unwrap();
        drop(sender);
        assert_eq!(late.await.unwrap(), Code::Unavailable);
        assert_eq!(
            (layer.counters().in_progress, layer.counters().waiting, layer.counters().shed),
            (1, 0, 1)
        );
        assert_eq!(first.await.unwrap(), Code::Ok);
    }
}

// catalogue: S-E7
#[tokio::test(start_paused = true)]
async fn a_body_is_passed_on_unchanged() {
    for at_once in [true, false] {
        let service = fixed(1).layer(reading());
        let (sender, body) = parts();
        let send = move || {
            ["a", "bc", "", "def"].map(|part| sender.send(Bytes::from_static(part.as_bytes())))
        };
        if at_once {
            send().into_iter().for_each(Result::unwrap);
            drop(send);
            let answered = service.oneshot(request().map(|_| body)).await.unwrap();
            assert_eq!(status::from_headers(answered.headers()).unwrap().message(), "6");
        } else {
            let answered = tokio::spawn(service.oneshot(request().map(|_| body)));
            sleep(MS).await;
            send().into_iter().for_each(Result::unwrap);
            drop(send);
            let answered = answered.await.unwrap().unwrap();
            assert_eq!(status::from_headers(answered.headers()).unwrap().message(), "6");
        }
    }
}
