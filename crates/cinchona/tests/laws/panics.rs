//! A panic of the user's code costs one call.

use crate::{
    bare::Plan,
    layers::{boxed, methods},
    virtually,
};
use bytes::Bytes;
use cinchona::{
    core::Methods,
    observe::{CallLayer, Metrics},
    shed::RateLimitSettings,
};
use cinchona_plumbing::status;
use http::{Request, Response};
use http_body::Body as _;
use http_body_util::Full;
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};
use tonic::{Code, Status, body::Body};
use tower::{Layer, ServiceExt, service_fn};

async fn answered(_: Request<Body>) -> Result<Response<Body>, std::convert::Infallible> {
    Ok(Status::new(Code::Ok, "").into_http())
}

/// A function that panics each second time.
fn now_and_then() -> impl Fn() + Clone + Send + Sync + 'static {
    let times = Arc::new(AtomicU32::new(0));
    move || assert!(times.fetch_add(1, Ordering::Relaxed) % 2 == 1, "in a function of the user's")
}

// catalogue: S-E3
#[test]
fn a_call_is_refused_whose_caller_cannot_be_named_and_no_other() {
    crate::off::quiet();
    virtually(async {
        let may_panic = now_and_then();
        let layer = RateLimitSettings::new(100, 100)
            .unwrap()
            .by(move |_, _| {
                may_panic();
                "one".into()
            })
            .layer();
        let service = layer.layer(service_fn(answered));
        for expected in [Code::Internal, Code::Ok, Code::Internal, Code::Ok] {
            let response = service.clone().oneshot(Plan::plain().request(true)).await.unwrap();
            assert_eq!(status::code(response.headers()), Some(expected));
        }
    });
}

#[test]
fn an_answer_that_may_end_in_trailers_before_its_end_announces_no_length() {
    let hint = |kind: &'static str| {
        let answers = move |_: Request<Body>| async move {
            let body = Body::new(Full::new(Bytes::from_static(&[0; 5])));
            let response = Response::builder().header("content-type", kind).body(body);
            Ok::<_, std::convert::Infallible>(response.unwrap())
        };
        let settings = cinchona::server::Settings::new(methods());
        virtually(async {
            let service = settings.layers().unwrap().layer(service_fn(answers));
            let request = Request::post("/a.B/Unknown").header("content-type", "application/grpc");
            let response = service.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
            response.body().size_hint().exact()
        })
    };
    assert_eq!(hint("application/grpc"), None);
    assert_eq!(hint("application/json"), Some(5), "a panic breaks it off");
}

// catalogue: S-E3
#[test]
fn what_a_metric_asks_may_panic_and_all_others_are_shown() {
    crate::off::quiet();
    let metrics = Metrics::new(Methods::unknown());
    let may_panic = now_and_then();
    metrics.gauge("a.first", &[], || 1.0).unwrap();
    metrics
        .gauges("b.panics", move |samples| {
            samples.add(&[("half", "done")], 1.0);
            may_panic();
        })
        .unwrap();
    metrics.counter("c.last", &[], || 3.0).unwrap();
    for expected in [false, true, false, true] {
        let text = metrics.render();
        assert!(text.contains("a_first 1\n") && text.contains("c_last_total 3\n"), "{text}");
        assert_eq!(text.contains("b_panics"), expected, "{text}");
    }
}

// catalogue: S-E3
#[test]
fn a_filter_of_methods_may_panic_and_its_call_goes_on() {
    crate::off::quiet();
    virtually(async {
        let metrics = Metrics::new(Methods::unknown());
        let metrics = metrics.with_unlisted(|_| panic!("in a filter"));
        let service = CallLayer::new(&metrics, "any").layer(service_fn(answered));
        for _ in 0..3 {
            let mut called = boxed(service.clone());
            let ready = called.ready().await.unwrap();
            tower::Service::call(ready, Plan::plain().request(true)).await.unwrap();
        }
        assert!(metrics.render().contains("grpc_method=\"other\""));
    });
}
