//! The head of its response settles a probe; the end of its stream counts as well.

use super::*;
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

type Frames = mpsc::UnboundedSender<Result<Frame<Bytes>, Status>>;

/// A server whose calls fail at first, and are then streams that the test ends.
#[derive(Clone, Default)]
struct Streams(Arc<std::sync::Mutex<(usize, Vec<Frames>)>>);

impl Streams {
    fn service(
        &self,
    ) -> impl Service<
        http::Request<Body>,
        Response = http::Response<Body>,
        Error = BoxError,
        Future = std::future::Ready<Result<http::Response<Body>, BoxError>>,
    > + Clone
    + use<> {
        let streams = self.clone();
        service_fn(move |_| std::future::ready(Ok(streams.answer())))
    }

    fn answer(&self) -> http::Response<Body> {
        let (fails, open) = &mut *self.0.lock().unwrap();
        if *fails > 0 {
            *fails -= 1;
            return Status::unavailable("down").into_http();
        }
        let (frames, body) = mpsc::unbounded_channel();
        open.push(frames);
        let body = Body::new(StreamBody::new(UnboundedReceiverStream::new(body)));
        http::Response::builder().header("content-type", "application/grpc").body(body).unwrap()
    }

    fn fail(&self, calls: usize) {
        self.0.lock().unwrap().0 = calls;
    }

    /// Ends the first open stream with this code.
    fn end(&self, code: Code) {
        let stream = self.0.lock().unwrap().1.remove(0);
        let trailers = Status::new(code, "").into_http::<()>().headers().clone();
        stream.send(Ok(Frame::trailers(trailers))).unwrap();
    }
}

/// A circuit that has opened, at the time of its first probe, and the streams that it admits.
async fn opened(policy: BreakerPolicy) -> (BreakerLayer, Streams) {
    let (layer, streams) = (layer(policy), Streams::default());
    streams.fail(3);
    let service = layer.layer(streams.service());
    for _ in 0..3 {
        call(&service).await;
    }
    assert_eq!(circuit(&layer).state(), State::Open);
    sleep(7 * SECOND).await;
    (layer, streams)
}

async fn begin(
    layer: &BreakerLayer,
    streams: &Streams,
) -> Result<http::Response<ResponseBody>, BoxError> {
    layer.layer(streams.service()).oneshot(request()).await
}

// catalogue: S-A6
#[tokio::test(start_paused = true)]
async fn streams_as_probes_block_no_call() {
    for probes in [1, 3] {
        let policy = policy().with_probes(probes).unwrap().with_successes(probes).unwrap();
        let (layer, streams) = opened(policy).await;
        let mut open = Vec::new();
        for n in 0..100 {
            open.push(begin(&layer, &streams).await.unwrap());
            let expected = if n + 1 < probes { State::HalfOpen } else { State::Closed };
            assert_eq!(circuit(&layer).state(), expected, "{n} of {probes}");
        }
        assert_eq!(circuit(&layer).rejected(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_stream_that_ends_after_its_head_closed_it_decides() {
    for (code, state) in [
        (Code::Unavailable, State::Open),
        (Code::Ok, State::Closed),
        (Code::NotFound, State::Closed),
        (Code::ResourceExhausted, State::Closed),
    ] {
        let (layer, streams) = opened(policy()).await;
        let probe = begin(&layer, &streams).await.unwrap();
        streams.end(code);
        probe.into_body().collect().await.unwrap();
        assert_eq!(circuit(&layer).state(), state, "{code:?}");
    }
    // It opens for longer, as after any failed probe.
    let (layer, streams) = opened(policy()).await;
    let probe = begin(&layer, &streams).await.unwrap();
    streams.end(Code::Internal);
    probe.into_body().collect().await.unwrap();
    assert!(circuit(&layer).next_probe_in().unwrap() >= 8 * SECOND);
}

// catalogue: S-A6
#[tokio::test(start_paused = true)]
async fn bad_trailers_of_a_probe_count_like_those_of_any_other_call() {
    let rate = policy().with_consecutive_failures(None).unwrap().with_failure_rate(0.9).unwrap();
    let rate = rate.with_min_calls(3).unwrap();
    let (layer, streams) = opened(rate).await;
    let probe = begin(&layer, &streams).await.unwrap();
    let other = begin(&layer, &streams).await.unwrap();
    other.into_body();
    assert_eq!(circuit(&layer).failure_rate(), None);
    streams.end(Code::Unavailable);
    probe.into_body().collect().await.unwrap();
    assert_eq!(circuit(&layer).failure_rate(), Some(1.0));
}

#[tokio::test(start_paused = true)]
async fn a_probe_whose_stream_ends_badly_while_others_are_awaited_opens_it() {
    let (layer, streams) = opened(policy().with_successes(2).unwrap()).await;
    let probe = begin(&layer, &streams).await.unwrap();
    assert_eq!(circuit(&layer).state(), State::HalfOpen);
    streams.end(Code::Unavailable);
    probe.into_body().collect().await.unwrap();
    assert_eq!(circuit(&layer).state(), State::Open);
}

// catalogue: S-A3
#[tokio::test(start_paused = true)]
async fn a_head_that_ends_without_a_status_is_no_answer() {
    let layer = layer(policy());
    let empty = service_fn(|_: http::Request<Body>| async {
        let head = http::Response::builder().header("content-type", "application/grpc");
        Ok::<_, BoxError>(head.body(Body::empty()).unwrap())
    });
    let service = layer.layer(empty);
    for _ in 0..3 {
        // The caller does not read the body.
        drop(service.clone().oneshot(request()).await.unwrap());
    }
    assert_eq!(circuit(&layer).state(), State::Open);
}

// catalogue: S-F10
#[tokio::test(start_paused = true)]
async fn a_good_method_is_let_through_an_open_circuit_and_closes_it() {
    let layer = layer(policy());
    let service = layer.layer(service_fn(|request: http::Request<Body>| async move {
        let fails = request.uri().path() == "/s/Bad";
        let code = if fails { Code::Unavailable } else { Code::Ok };
        Ok::<_, BoxError>(Status::new(code, "").into_http::<Body>())
    }));
    let ask = async |path: &str| {
        let request = http::Request::post(path).body(Body::empty()).unwrap();
        service.clone().oneshot(request).await.is_ok()
    };
    for _ in 0..3 {
        assert!(ask("/s/Bad").await);
    }
    assert!(!ask("/s/Bad").await, "rejected");
    assert!(ask("/s/Good").await);
    assert_eq!(circuit(&layer).state(), State::Closed);
    // A circuit opened by hand rejects every method.
    circuit(&layer).open();
    assert!(!ask("/s/Good").await && !ask("/s/Bad").await);
}

#[tokio::test(start_paused = true)]
async fn the_gate_of_an_endpoint_sees_heads_and_streams_block_no_call() {
    for per_method in [false, true] {
        let settings = settings(policy());
        let layer = if per_method { settings.per_method() } else { settings }.layer();
        let (gate, now) = (layer.endpoint("one"), Instant::now());
        let later = now + 7 * SECOND;
        for _ in 0..3 {
            let ticket = gate.enter("/s/M", now).unwrap();
            gate.leave(ticket, Evidence::Bad(Code::Unavailable), MS, now);
        }
        assert!(gate.enter("/s/M", now).is_err());
        let streams: Vec<_> =
            (0..20).map(|_| gate.answered(gate.enter("/s/M", later).unwrap(), MS, later)).collect();
        assert_eq!(layer.circuits()[0].state(), State::Closed);
        for stream in streams {
            gate.leave(stream, Evidence::Good(Code::Ok), MS, later);
        }
        assert!(gate.is_open_to("/s/M", later));
    }
}
