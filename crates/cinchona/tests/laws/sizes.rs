//! What a call's way through the layers is made of: futures and responses of a few words, and
//! bodies that an interceptor can make, too.

use crate::layers::methods;
use cinchona::{
    balance::{Balance, Options, ResponseBody},
    breaker::{BreakerLayer, BreakerPolicy},
    config::MessageLimitsLayer,
    core::Target,
    deadline::{AttemptTimeoutLayer, CallDeadlineLayer, ServerDeadlineLayer},
    fallback::FallbackLayer,
    fault::{FaultLayer, Faults},
    idempotency::{DedupLayer, IdempotencyKeyLayer, MemoryStore},
    observe::{AttemptLayer, CallLayer, Metrics, ServerLayer},
    retry::{RetryLayer, RetryPolicy},
    shed::{AdaptiveThrottleLayer, BulkheadLayer, ShedLayer},
};
use http_body::Body as _;
use std::{convert::Infallible, future::Future, pin::Pin};
use tonic::{body::Body, service::interceptor::InterceptedService};
use tower::{Layer, Service, ServiceExt};

/// The sizes of a service's future and of its response, in bytes.
fn sizes<S: Service<http::Request<Body>>>(_: &S) -> (usize, usize) {
    (size_of::<S::Future>(), size_of::<S::Response>())
}

/// Under any layer a response has the same body: there is one type of ours around tonic's.
fn has_our_body<S>(_: &S)
where
    S: Service<http::Request<Body>, Response = http::Response<ResponseBody>>,
{
}

fn future_of<S: Service<http::Request<Body>>>(_: &S) -> usize {
    size_of::<S::Future>()
}

#[test]
fn no_future_of_the_client_stack_has_more_than_256_bytes_at_any_seam() {
    crate::virtually(async {
        let mut seams = vec![];
        macro_rules! around {
            ($inner:ident, $($layer:expr),+ $(,)?) => {
                seams.push(("balancer", sizes(&$inner)));
                $(
                    let $inner = $layer.layer($inner);
                    has_our_body(&$inner);
                    seams.push((stringify!($layer), sizes(&$inner)));
                )+
            };
        }
        let metrics = Metrics::new(methods());
        let targets = vec![Target::from(http::Uri::from_static("http://any:1"))];
        let service = Balance::new(targets, Options::default()).unwrap();
        around!(
            service,
            AttemptTimeoutLayer::default(),
            AttemptLayer::new(&metrics, "any"),
            AdaptiveThrottleLayer::default(),
            BreakerLayer::new(BreakerPolicy::default()),
            RetryLayer::new(RetryPolicy::default(), methods()),
            BulkheadLayer::default(),
            FallbackLayer::new(methods()),
            CallDeadlineLayer::new(),
            MessageLimitsLayer::new(),
            IdempotencyKeyLayer::new(methods()),
            CallLayer::new(&metrics, "any"),
        );
        // tonic's own interceptors can be put around all of it.
        let refuse = |_: tonic::Request<()>| Err(tonic::Status::permission_denied("not you"));
        let intercepted = InterceptedService::new(service, refuse);
        let refused = intercepted.oneshot(http::Request::new(Body::empty())).await.unwrap();
        assert_eq!(refused.headers()["grpc-status"], "7");
        assert!(refused.into_body().is_end_stream());
        for (seam, (future, response)) in seams {
            println!("{future:4} {response:4} {seam}");
            assert!(future <= 256, "{seam}: a future of {future} bytes");
        }
    });
}

#[test]
fn no_future_of_the_server_stack_has_more_than_256_bytes_at_any_seam() {
    crate::virtually(async {
        let mut seams = vec![];
        macro_rules! around {
            ($inner:ident, $($layer:expr),+ $(,)?) => {
                $(
                    let $inner = $layer.layer($inner);
                    seams.push((stringify!($layer), future_of(&$inner)));
                )+
            };
        }
        let metrics = Metrics::new(methods());
        // A boxed future, as `cinchona::server` has innermost.
        let service = tower::service_fn(|_: http::Request<Body>| {
            Box::pin(async { Ok::<_, Infallible>(http::Response::new(Body::empty())) })
                as Pin<Box<dyn Future<Output = _> + Send>>
        });
        around!(
            service,
            DedupLayer::new(MemoryStore::new(), methods()),
            FaultLayer::new(Faults::default()).unwrap(),
            ServerDeadlineLayer::new(),
            ShedLayer::default(),
            ServerLayer::new(&metrics),
        );
        drop(service);
        let everything = cinchona::server::Settings::new(methods()).layers().unwrap();
        let served = everything.layer(tonic::service::Routes::default());
        seams.push(("every layer around tonic's router", future_of(&served)));
        for (seam, future) in seams {
            println!("{future:4} {seam}");
            assert!(future <= 256, "{seam}: a future of {future} bytes");
        }
    });
}
