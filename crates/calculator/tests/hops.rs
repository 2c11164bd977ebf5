//! A call that makes a call that makes a call.

use super::*;
use calculator::client::{Layers, stack};
use cinchona::{core::deadline::parse_timeout, deadline::ServerDeadlineLayer};
use http::Request as HttpRequest;
use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};
use tower::{Service, ServiceExt, service_fn};

/// What a server was told: the time that is left, and which retry this is.
type Told = Arc<Mutex<Vec<(&'static str, Duration, u32)>>>;

/// How long a handler works before it asks the next server.
const WORK: Duration = Duration::from_millis(50);

/// Serves, behind the server's deadline layer, a handler that notes what it was told and then asks
/// the next server, or hangs where there is none.
fn hop(name: &'static str, next: Option<&Network>, told: &Told) -> Network {
    let network = Network::new();
    network.set_latency(Duration::from_millis(10));
    let settings = retrying([Code::DeadlineExceeded, Code::Unavailable]);
    let next = next.map(|next| stack(next.channel(), &Layers::from(settings)));
    let told = told.clone();
    let handler = service_fn(move |request: HttpRequest<Body>| {
        let left = parse_timeout(request.headers()).unwrap().unwrap();
        let previous = cinchona::core::status::previous_attempts(request.headers());
        told.lock().unwrap().push((name, left, previous));
        let next = next.clone();
        async move {
            let Some(mut next) = next else { return pending().await };
            tokio::time::sleep(WORK).await;
            let request = HttpRequest::builder().uri("http://next/a.B/C").body(Body::empty());
            let answer = next.ready().await.unwrap().call(request.unwrap()).await;
            let failed = |error| Status::from_error(error).into_http();
            Ok::<_, Infallible>(answer.map_or_else(failed, |head| head.map(Body::new)))
        }
    });
    let served = ServerDeadlineLayer::new().layer(handler);
    let served = service_fn(move |request: HttpRequest<_>| served.clone().oneshot(request));
    std::mem::forget(network.serve_service(served));
    network
}

#[tokio::test(start_paused = true)]
async fn over_three_hops_the_deadline_shrinks_and_only_the_first_caller_retries() {
    let told = Told::default();
    let third = hop("third", None, &told);
    let second = hop("second", Some(&third), &told);
    let first = hop("first", Some(&second), &told);

    let settings = Settings { timeout: SECOND, ..retrying([Code::DeadlineExceeded]) };
    let mut client = client(first.channel(), &settings.into());
    let mut request = Request::new(operation(1.0, 2.0));
    request.set_timeout(3 * SECOND);
    let began = Instant::now();
    let status = client.add(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(Instant::now() - began <= 3 * SECOND);

    let told = told.lock().unwrap();
    let attempts = Ledger::of(&status).unwrap().attempts().len();
    assert!(attempts > 1, "{told:?}");
    // One chain for each attempt of the first caller, and no more.
    let chains: Vec<_> = told.chunks(3).collect();
    assert_eq!(chains.len(), attempts, "{told:?}");
    for (n, chain) in chains.iter().enumerate() {
        let names: Vec<_> = chain.iter().map(|(name, ..)| *name).collect();
        assert_eq!(names, ["first", "second", "third"]);
        let left: Vec<_> = chain.iter().map(|(_, left, _)| *left).collect();
        assert!(left[0] >= left[1] + WORK && left[1] >= left[2] + WORK, "{left:?}");
        assert_eq!(chain[0].2 as usize, n);
    }
}
