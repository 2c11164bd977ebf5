//! Each layer of a client, and all of them, under and over other layers around a `Channel`.

use crate::{asked, check, methods, ok, scripted};
use cinchona::{
    breaker::{BreakerLayer, BreakerPolicy},
    client::Settings,
    config::MessageLimitsLayer,
    core::BoxError,
    deadline::{AttemptTimeoutLayer, CallDeadlineSettings},
    fallback::FallbackLayer,
    idempotency::IdempotencyKeyLayer,
    observe::{AttemptLayer, CallLayer, Metrics},
    retry::{RetryLayer, RetryPolicy},
    shed::{AdaptiveThrottleLayer, BulkheadLayer},
};
use std::time::Duration;
use tonic::{
    Request, Status,
    body::Body,
    metadata::MetadataValue,
    service::{InterceptorLayer, interceptor::InterceptedService},
    transport::Channel,
};
use tonic_health::pb::health_client::HealthClient;
use tower::{
    Layer, ServiceBuilder, ServiceExt,
    buffer::Buffer,
    util::{BoxCloneSyncService, option_layer},
};
use tower_http::{
    map_response_body::MapResponseBodyLayer, timeout::TimeoutLayer, trace::TraceLayer,
};

const LONG: Duration = Duration::from_secs(60);

fn token(mut request: Request<()>) -> Result<Request<()>, Status> {
    request.metadata_mut().insert("authorization", MetadataValue::from_static("Bearer t"));
    Ok(request)
}

fn timeout() -> TimeoutLayer {
    TimeoutLayer::with_status_code(http::StatusCode::GATEWAY_TIMEOUT, LONG)
}

/// tonic's channel with the error that ours has.
fn plain_errors(
    channel: &Channel,
) -> tower::util::MapErr<Channel, fn(tonic::transport::Error) -> BoxError> {
    ServiceExt::<http::Request<Body>>::map_err(channel.clone(), BoxError::from)
}

/// What a user puts around a channel, around this layer and below it; each is called.
macro_rules! combined {
    ($test:ident, $layer:expr) => {
        #[tokio::test(start_paused = true)]
        async fn $test() {
            let (server, network, _serving) = scripted((0..16).map(|_| ok()));
            let channel = network.channel();
            let layer = $layer;

            // Over it.
            let mut intercepted =
                HealthClient::with_interceptor(layer.layer(channel.clone()), token);
            intercepted.check(asked()).await.unwrap();
            let interceptor = InterceptorLayer::new(token);
            check(interceptor.layer(layer.layer(channel.clone()))).await.unwrap();
            check(TraceLayer::new_for_grpc().layer(layer.layer(channel.clone()))).await.unwrap();
            check(timeout().layer(layer.layer(channel.clone()))).await.unwrap();
            let plain = ServiceExt::<http::Request<Body>>::map_err(
                layer.layer(channel.clone()),
                Into::<BoxError>::into,
            );
            check(BoxCloneSyncService::new(plain)).await.unwrap();
            let buffered: Buffer<http::Request<Body>, _> =
                Buffer::new(layer.layer(channel.clone()), 4);
            check(buffered).await.unwrap();

            // Under it.
            let below = InterceptedService::new(channel.clone(), token);
            check(layer.layer(below)).await.unwrap();
            check(layer.layer(timeout().layer(channel.clone()))).await.unwrap();
            let boxed = BoxCloneSyncService::new(plain_errors(&channel));
            check(layer.layer(boxed)).await.unwrap();
            let buffered: Buffer<http::Request<Body>, _> = Buffer::new(channel.clone(), 4);
            check(layer.layer(buffered)).await.unwrap();
            let traced = TraceLayer::new_for_grpc().layer(channel.clone());
            check(layer.layer(traced)).await.unwrap();

            // Or not at all.
            for maybe in [Some(layer.clone()), None] {
                let same = ServiceBuilder::new()
                    .layer(MapResponseBodyLayer::new(Body::new))
                    .layer(layer.clone());
                let channel = plain_errors(&channel);
                check(option_layer(maybe.map(|_| same)).layer(channel)).await.unwrap();
            }
            assert!(server.attempts() >= 12);
        }
    };
}

combined!(calls_are_watched, CallLayer::new(&Metrics::new(methods()), "any"));
combined!(attempts_are_watched, AttemptLayer::new(&Metrics::new(methods()), "any"));
combined!(calls_are_named, IdempotencyKeyLayer::new(methods()));
combined!(messages_are_limited, MessageLimitsLayer::new());
combined!(calls_end_in_time, CallDeadlineSettings::new().with_limit(LONG).layer());
combined!(calls_have_second_answers, FallbackLayer::new(methods()));
combined!(calls_are_counted, BulkheadLayer::default());
combined!(calls_are_retried, RetryLayer::new(RetryPolicy::default(), methods()));
combined!(servers_are_spared, AdaptiveThrottleLayer::default());
combined!(attempts_end_in_time, AttemptTimeoutLayer::new(LONG));
combined!(servers_that_fail_are_left_alone, BreakerLayer::new(BreakerPolicy::default()));
combined!(all_layers_in_their_order, Settings::new(methods()).layers().unwrap());

#[tokio::test(start_paused = true)]
async fn all_layers_may_be_there_or_not() {
    let (_server, network, _serving) = scripted([ok(), ok()]);
    for layers in [Some(Settings::new(methods()).layers().unwrap()), None] {
        let channel = plain_errors(&network.channel());
        check(option_layer(layers).layer(channel)).await.unwrap();
    }
}
