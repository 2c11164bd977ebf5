//! Requests that outgrow their buffers.

use super::*;
use cinchona_plumbing::ReplayBuffer;

fn large(bytes: usize) -> Request<prost_types::Any> {
    Request::new(prost_types::Any { type_url: String::new(), value: vec![7; bytes] })
}

async fn send(layer: RetryLayer, bytes: usize) -> (usize, Code) {
    let mut client = Client::new(&layer, [unavailable(), ok()]);
    client.grpc.ready().await.unwrap();
    let codec = ProstCodec::<prost_types::Any, Message>::default();
    let outcome = client.grpc.unary(large(bytes), PathAndQuery::from_static(PATH), codec).await;
    let received = client.server.received();
    assert!(received.iter().all(|received| received.body.len() > bytes));
    (client.server.attempts(), code(&outcome))
}

// catalogue: CC11, GO17, JV-perRpcBufferLimitExceeded, DN-LargeMessages-ExceedPerCallBufferSize
#[tokio::test(start_paused = true)]
async fn a_request_over_256_kib_is_sent_once_and_one_below_is_retried() {
    assert_eq!(send(retrying(4), 200 * 1024).await, (2, Code::Ok));
    assert_eq!(send(retrying(4), 300 * 1024).await, (1, Code::Unavailable));
    let roomy = retrying_settings(4).with_buffer(ReplayBuffer::new(1 << 20, 1 << 24)).layer();
    assert_eq!(send(roomy, 300 * 1024).await, (2, Code::Ok));
}

// catalogue: JV-channelBufferLimitExceeded, DN-MultipleLargeMessages-ExceedChannelMaxBufferSize
#[tokio::test(start_paused = true)]
async fn the_buffers_of_all_calls_together_are_limited_and_freed() {
    let buffer = ReplayBuffer::new(1000, 1500);
    let layer = retrying_settings(4).with_buffer(buffer.clone()).layer();
    let calls: Vec<_> = (0..3).map(|_| tokio::spawn(send(layer.clone(), 700))).collect();
    let mut attempts = Vec::new();
    for call in calls {
        attempts.push(call.await.unwrap().0);
    }
    attempts.sort_unstable();
    assert_eq!((attempts, buffer.used()), (vec![1, 2, 2], 0));
}
