//! A deadline counts against a server only if it left the usual response time.

use super::*;
use cinchona_core::Deadline;

/// A call that has `limit` by its header, and the rest of `whole` by its deadline; dropped when the
/// first of them is over.
async fn give_up<S, B>(service: &S, header: Option<Duration>, whole: Option<Duration>)
where
    S: Service<http::Request<Body>, Response = http::Response<B>> + Clone,
{
    let (mut request, now) = (request(), Instant::now());
    if let Some(limit) = header {
        Deadline::after(limit, now).stamp(request.headers_mut(), now);
    }
    if let Some(whole) = whole {
        request.extensions_mut().insert(Deadline::after(whole, now));
    }
    let limit = header.into_iter().chain(whole).min().unwrap_or(SECOND);
    let _ = timeout(limit, service.clone().oneshot(request)).await;
}

/// The state after calls that are dropped so, to a server that has answered 20 after `usual`.
async fn after(
    usual: Option<Duration>,
    header: Option<Duration>,
    whole: Option<Duration>,
) -> State {
    let layer = layer(policy());
    let answers = usual.map(|usual| Answer::After(usual, Box::new(answer(Code::Ok))));
    let server = ScriptedServer::new(
        answers.map_or_else(Vec::new, |answer| vec![answer; 20]).into_iter().chain([Answer::Hang]),
    );
    let service = layer.layer(server);
    for _ in usual.iter().cycle().take(20) {
        give_up(&service, Some(10 * SECOND), None).await;
    }
    for _ in 0..15 {
        give_up(&service, header, whole).await;
    }
    circuit(&layer).state()
}

// catalogue: S-A5
#[tokio::test(start_paused = true)]
async fn a_callers_impatience_is_no_evidence_and_a_limit_that_sufficed_is() {
    use State::{Closed, Open};
    let ms = |limit: u32| Some(limit * MS);
    for (usual, header, whole, state, why) in [
        (ms(5), ms(1), None, Closed, "too little time"),
        (ms(5), None, ms(1), Closed, "too little time, which the header does not say"),
        (ms(5), ms(1), ms(1), Closed, "the header is the deadline"),
        (ms(5), ms(5), None, Open, "as long as usual"),
        (ms(5), ms(50), None, Open, "ten times as long"),
        (ms(300), ms(150), None, Closed, "half as long"),
        (ms(300), ms(150), ms(1000), Open, "half as long, by the limit of an attempt"),
        (ms(300), ms(150), ms(151), Closed, "what remains, rounded"),
        (None, ms(99), None, Closed, "the usual time is unknown"),
        (None, ms(100), None, Open, "unknown, but 100 ms are long"),
        (None, ms(50), ms(1000), Open, "unknown, but so it was configured"),
        (None, None, None, Closed, "no limit: it was given up"),
    ] {
        assert_eq!(after(usual, header, whole).await, state, "{why}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_servers_own_deadline_exceeded_is_judged_alike() {
    let late = |wait| Answer::After(wait, Box::new(answer(Code::DeadlineExceeded)));
    for (wait, limit, state) in [
        // The server answers so when the caller's deadline has passed.
        (20 * MS, Some("20m"), State::Closed),
        (200 * MS, Some("200m"), State::Open),
        // It answers so earlier, or without a limit: another server let it wait.
        (20 * MS, Some("1S"), State::Open),
        (20 * MS, None, State::Open),
    ] {
        let layer = layer(policy());
        let service = layer.layer(ScriptedServer::new([late(wait)]));
        for _ in 0..5 {
            let mut request = request();
            if let Some(limit) = limit {
                request.headers_mut().insert("grpc-timeout", limit.parse().unwrap());
            }
            let _ = service.clone().oneshot(request).await;
        }
        assert_eq!(circuit(&layer).state(), state, "{wait:?} of {limit:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_lasts_until_its_deadline_is_no_failure() {
    let layer = layer(policy());
    let service = layer.layer(service_fn(|_: http::Request<Body>| async {
        let silent = tokio_stream::pending::<Result<http_body::Frame<Bytes>, Status>>();
        let body = Body::new(http_body_util::StreamBody::new(silent));
        let head = http::Response::builder().header("content-type", "application/grpc");
        Ok::<_, BoxError>(head.body(body).unwrap())
    }));
    for _ in 0..10 {
        let mut request = request();
        request.headers_mut().insert("grpc-timeout", "1S".parse().unwrap());
        let stream = service.clone().oneshot(request).await.unwrap();
        assert!(timeout(SECOND, stream.into_body().collect()).await.is_err());
    }
    assert_eq!(circuit(&layer).state(), State::Closed);
}
