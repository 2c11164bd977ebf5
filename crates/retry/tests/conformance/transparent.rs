//! Requests that never reached the service.

use super::*;

fn refused() -> Answer {
    Answer::Reset(h2::Reason::REFUSED_STREAM)
}

// catalogue: D06, GO23, JV-transparentRetry-onlyOnceOnRefused, JV-noRetry-transparentRetry
// catalogue: X-refused-first
#[tokio::test(start_paused = true)]
async fn a_refused_stream_is_repeated_once_even_without_a_policy() {
    for (script, attempts, expected) in [
        (vec![refused(), ok()], 2, Code::Ok),
        (vec![refused(), refused(), ok()], 2, Code::Unavailable),
    ] {
        let (client, outcome) = play(layer(Policy::default()), script).await;
        assert_eq!((client.server.attempts(), code(&outcome)), (attempts, expected));
        assert_eq!(client.previous(), vec![None; attempts]);
    }
}

// catalogue: JV-normalRetry-thenNoTransparentRetry, X-refused-later, GO19
#[tokio::test(start_paused = true)]
async fn it_is_once_a_call_at_whatever_attempt_and_then_the_policy_decides() {
    let script = [unavailable(), refused(), refused(), ok()];
    let (client, outcome) = play(retrying(4), script).await;
    assert_eq!((client.server.attempts(), code(&outcome)), (4, Code::Ok));
    assert_eq!(client.previous(), [None, Some(1), Some(1), Some(2)]);
    assert_eq!(client.gaps(), [100, 0, 200]);
}

// catalogue: CC35, JV-transparentRetry-unlimited
#[tokio::test(start_paused = true)]
async fn a_request_that_never_left_the_client_is_repeated_beyond_the_policys_limit() {
    use std::sync::atomic::{AtomicU32, Ordering};
    // A real channel, whose connection is gone just before each of the first ten requests leaves.
    let (server, network) = (ScriptedServer::new([ok()]), Network::new());
    let _serving = network.serve_service(server.clone());
    let failures = std::sync::Arc::new(AtomicU32::new(0));
    let unsent = canceled().await;
    let channel = network.channel();
    let flaky = tower::service_fn(move |request| {
        let first = failures.fetch_add(1, Ordering::Relaxed) < 10;
        let (unsent, mut channel) = (unsent.clone(), channel.clone());
        async move {
            if first {
                let mut status = Status::unavailable("gone");
                status.set_source(unsent);
                return Err(status);
            }
            tower::Service::call(tower::ServiceExt::ready(&mut channel).await.unwrap(), request)
                .await
                .map_err(|error| Status::from_error(error.into()))
        }
    });
    let began = Instant::now();
    let mut grpc = Grpc::new(layer(Policy::default()).layer(flaky));
    let outcome = unary(&mut grpc, Request::new(message(3))).await;
    assert_eq!(ledger(&outcome).attempts().len(), 11);
    // The first is repeated immediately, the others after 1, 2, 4, ... 64, 100, 100 ms.
    assert_eq!((Instant::now() - began).as_millis(), 327);
    assert!(!server.received()[0].headers.contains_key("grpc-previous-rpc-attempts"));
}

/// hyper's own error of a request that it returns.
async fn canceled() -> std::sync::Arc<dyn std::error::Error + Send + Sync> {
    let network = Network::new();
    let mut listening = network.incoming();
    let io = hyper_util::rt::TokioIo::new(network.connect().await.unwrap());
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    let _peer = tokio_stream::StreamExt::next(&mut listening).await;
    drop(connection);
    let request = http::Request::new(tonic::body::Body::empty());
    let error = sender.send_request(request).await.unwrap_err();
    assert!(error.is_canceled());
    std::sync::Arc::new(error)
}

// catalogue: CC33, GO29
#[tokio::test(start_paused = true)]
async fn calls_around_a_goaway_all_succeed_without_a_policy_and_carry_no_number() {
    let server = ScriptedServer::new([ok()]);
    let network = Network::new();
    let rolling = {
        let (network, server) = (network.clone(), server.clone());
        async move {
            for _ in 0..5 {
                let serving = network.serve_service(server.clone());
                tokio::time::sleep(ms(20)).await;
                drop(serving);
                network.reset();
            }
            std::mem::forget(network.serve_service(server));
        }
    };
    let policy = Policy::default().with_wait_for_ready(true);
    let grpc = Grpc::new(layer(policy).layer(network.channel()));
    let calls = async {
        for _ in 0..30 {
            let outcome = unary(&mut grpc.clone(), Request::new(message(3))).await;
            assert_eq!(code(&outcome), Code::Ok);
            tokio::time::sleep(ms(4)).await;
        }
    };
    tokio::join!(rolling, calls);
    let headers = server.received();
    assert!(headers.iter().all(|r| !r.headers.contains_key("grpc-previous-rpc-attempts")));
}

// catalogue: CC34
#[tokio::test(start_paused = true)]
async fn a_call_queued_behind_max_concurrent_streams_survives_a_restart() {
    let (server, network) = (ScriptedServer::new([Answer::Hang, ok()]), Network::new());
    let serve = |network: &Network| {
        let router = tonic::transport::Server::builder()
            .max_concurrent_streams(1)
            .add_routes(server.routes());
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let stopped = async { _ = stopped.await };
        tokio::spawn(router.serve_with_incoming_shutdown(network.incoming(), stopped));
        stop
    };
    let first = serve(&network);
    let policy = Policy::default().with_wait_for_ready(true);
    let grpc = Grpc::new(layer(policy).layer(network.channel()));
    let mut calls = [grpc.clone(), grpc].map(|mut grpc| {
        tokio::spawn(async move { unary(&mut grpc, Request::new(message(3))).await })
    });
    settle().await;
    assert_eq!(server.attempts(), 1);
    first.send(()).unwrap();
    settle().await;
    let _second = serve(&network);
    assert_eq!(code(&(&mut calls[1]).await.unwrap()), Code::Ok);
    assert!(!calls[0].is_finished());
    network.reset();
    assert_eq!(code(&(&mut calls[0]).await.unwrap()), Code::Unavailable);
}

// catalogue: D12, X-lost-after-send-is-not-transparent, X-goaway-including-the-stream
#[tokio::test(start_paused = true)]
async fn a_connection_lost_after_the_request_was_sent_is_not_repeated_without_a_policy() {
    let mut client = Client::new(&layer(Policy::default()), [Answer::Hang, ok()]);
    let (server, network) = (client.server.clone(), client.network.clone());
    let cut = async {
        while server.attempts() == 0 {
            tokio::task::yield_now().await;
        }
        network.reset();
    };
    let (outcome, ()) = tokio::join!(client.call(), cut);
    assert_eq!((client.server.attempts(), code(&outcome)), (1, Code::Unavailable));
}

// catalogue: JV-transparentRetry-cancel-race, GO20
#[tokio::test(start_paused = true)]
async fn a_call_dropped_during_transparent_retries_ends_and_the_next_one_works() {
    let mut client = Client::new(&layer(Policy::default()), [refused(), Answer::Hang, ok()]);
    let server = client.server.clone();
    {
        let call = client.call();
        tokio::pin!(call);
        while server.attempts() < 2 {
            assert!(tokio::time::timeout(ms(1), &mut call).await.is_err());
        }
    }
    settle().await;
    assert_eq!(client.server.dropped(), 1);
    assert_eq!(code(&client.call().await), Code::Ok);
}

// catalogue: X-wait-for-ready-from-config, GO28
#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_ready_waits_for_the_connection_until_its_deadline() {
    let layer = layer(Policy::default().with_wait_for_ready(true));
    let mut client = Client::new(&layer, [ok()]);
    client.network.refuse(true);
    let mut request = Request::new(message(3));
    request.set_timeout(ms(500));
    let began = Instant::now();
    assert_eq!(code(&client.send(request).await), Code::DeadlineExceeded);
    assert!(Instant::now() - began <= ms(501));
    let network = client.network.clone();
    let back = async {
        tokio::time::sleep(ms(30_000)).await;
        network.refuse(false);
    };
    let (outcome, ()) = tokio::join!(client.call(), back);
    assert_eq!((code(&outcome), client.server.attempts()), (Code::Ok, 1));
}
