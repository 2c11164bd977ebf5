//! Requests that are streamed: recorded, replayed, committed.

use super::*;
use cinchona_plumbing::ReplayBuffer;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

type Sender = mpsc::Sender<Message>;

fn requests() -> (Sender, Request<ReceiverStream<Message>>) {
    let (sender, receiver) = mpsc::channel(8);
    (sender, Request::new(ReceiverStream::new(receiver)))
}

async fn bidi(
    mut client: Grpc<cinchona_retry::Retry<Channel>>,
    request: Request<ReceiverStream<Message>>,
) -> Result<Response<Streaming<Message>>, Status> {
    client.ready().await.unwrap();
    client.streaming(request, PathAndQuery::from_static(PATH), ProstCodec::default()).await
}

/// A server that answers by `answer` once it has read `after` messages; later ones it reads on.
fn reading(
    network: &Network,
    answers: Vec<(usize, Answer)>,
) -> (Serving, std::sync::Arc<std::sync::Mutex<Vec<Vec<Message>>>>) {
    use http_body_util::BodyExt;
    use prost::Message as _;
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let (all, answers) = (seen.clone(), std::sync::Arc::new(answers));
    let service = tower::service_fn(move |request: http::Request<tonic::body::Body>| {
        let (all, answers) = (all.clone(), answers.clone());
        async move {
            let n = {
                let mut all = all.lock().unwrap();
                all.push(Vec::new());
                all.len() - 1
            };
            let (after, answer) = answers[n.min(answers.len() - 1)].clone();
            let mut body = request.into_body();
            let mut bytes = Vec::new();
            while all.lock().unwrap()[n].len() < after {
                let Some(Ok(frame)) = body.frame().await else { break };
                bytes.extend_from_slice(&frame.into_data().unwrap_or_default());
                while bytes.len() >= 5 + usize::from(bytes.get(4).copied().unwrap_or(0)) {
                    let end = 5 + usize::from(bytes[4]);
                    let read = Message::decode(&bytes[5..end]).unwrap();
                    bytes.drain(..end);
                    all.lock().unwrap()[n].push(read);
                }
            }
            let one = ScriptedServer::new([answer]);
            let empty = http::Request::new(tonic::body::Body::empty());
            let answered = tower::ServiceExt::oneshot(one, empty).await;
            // The rest is read, as by a server that continues.
            tokio::spawn(async move { while let Some(Ok(_)) = body.frame().await {} });
            answered
        }
    });
    (network.serve_service(service), seen)
}

// catalogue: CC28, GO06, GO07, GO12, DN-ClientStreaming-MultipleWritesAndRetries
// catalogue: JV-operationsWhileDraining
#[tokio::test(start_paused = true)]
async fn messages_that_were_sent_are_replayed_and_the_stream_goes_on() {
    let network = Network::new();
    let (_serving, seen) = reading(&network, vec![(2, unavailable()), (3, ok())]);
    let client = Grpc::new(retrying(4).layer(network.channel()));
    let (sender, request) = requests();
    let call = tokio::spawn(bidi(client, request));
    for n in [1, 2] {
        sender.send(message(n)).await.unwrap();
    }
    tokio::time::sleep(ms(50)).await;
    sender.send(message(3)).await.unwrap();
    drop(sender);
    let mut answer = call.await.unwrap().unwrap().into_inner();
    assert_eq!(answer.message().await.unwrap(), Some(message(7)));
    let sent = |range: std::ops::RangeInclusive<i64>| range.map(message).collect::<Vec<_>>();
    assert_eq!(*seen.lock().unwrap(), [sent(1..=2), sent(1..=3)]);
}

// catalogue: CC12, GO17-stream, DN-ClientStreaming-ExceedPerCallLimit
#[tokio::test(start_paused = true)]
async fn a_stream_that_outgrows_its_buffer_is_not_retried() {
    let network = Network::new();
    let (_serving, seen) = reading(&network, vec![(3, unavailable()), (3, ok())]);
    let layer = retrying_settings(4).with_buffer(ReplayBuffer::new(15, 1000)).layer();
    let client = Grpc::new(layer.layer(network.channel()));
    let (sender, request) = requests();
    let call = tokio::spawn(bidi(client, request));
    for n in 1..=3 {
        sender.send(message(n)).await.unwrap();
        settle().await;
    }
    let status = call.await.unwrap().unwrap_err();
    assert_eq!(Ledger::of(&status).unwrap().stopped(), Stop::BodyTooLarge);
    assert_eq!(seen.lock().unwrap().len(), 1);
}

// catalogue: CC29, GO04, DN-OneMessageSentThenRetryThenAnotherMessage
#[tokio::test(start_paused = true)]
async fn after_the_commit_both_sides_go_on_and_a_failure_is_final() {
    let network = Network::new();
    let late = Answer::MessageThenStatus(encode(&message(5)), Status::unavailable("late"));
    let (_serving, seen) = reading(&network, vec![(1, unavailable()), (2, late)]);
    let client = Grpc::new(retrying(4).layer(network.channel()));
    let (sender, request) = requests();
    let call = tokio::spawn(bidi(client, request));
    sender.send(message(1)).await.unwrap();
    tokio::time::sleep(ms(200)).await;
    sender.send(message(2)).await.unwrap();
    let mut answers = call.await.unwrap().unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap(), Some(message(5)));
    assert!(sender.send(message(3)).await.is_ok());
    assert_eq!(answers.message().await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(seen.lock().unwrap().len(), 2);
}

// catalogue: CC30, DN-WriteAfterResult
#[tokio::test(start_paused = true)]
async fn a_server_may_answer_before_the_replay_is_done() {
    let network = Network::new();
    let (_serving, seen) = reading(&network, vec![(3, unavailable()), (0, ok())]);
    let client = Grpc::new(retrying(4).layer(network.channel()));
    let (sender, request) = requests();
    for n in 1..=3 {
        sender.send(message(n)).await.unwrap();
    }
    let mut answer = bidi(client, request).await.unwrap().into_inner();
    assert_eq!(answer.message().await.unwrap(), Some(message(7)));
    assert_eq!(seen.lock().unwrap().len(), 2);
}

// catalogue: DN-NoMessagesSuccess
#[tokio::test(start_paused = true)]
async fn a_stream_without_messages_is_retried_too() {
    let mut client = Client::new(&retrying(4), [unavailable(), ok()]);
    let (sender, request) = requests();
    drop(sender);
    client.grpc.ready().await.unwrap();
    let path = PathAndQuery::from_static(PATH);
    let codec = ProstCodec::<Message, Message>::default();
    let outcome = client.grpc.client_streaming(request, path, codec).await;
    assert_eq!((code(&outcome), client.server.attempts()), (Code::Ok, 2));
}

// catalogue: JV-hedging-perRpcBufferLimitExceeded, JV-hedging-channelBufferLimitExceeded
// catalogue: DN-WriteLargeMessageCausingCommit
#[tokio::test(start_paused = true)]
async fn a_hedged_stream_that_outgrows_its_buffer_goes_on_with_one_attempt() {
    let network = Network::new();
    let (_serving, seen) = reading(&network, vec![(4, ok())]);
    let settings = settings(hedge(2, ms(50), [Code::Unavailable]));
    let hedging = settings.with_buffer(ReplayBuffer::new(15, 1000)).layer();
    let client = Grpc::new(hedging.layer(network.channel()));
    let (sender, request) = requests();
    let call = tokio::spawn(bidi(client, request));
    sender.send(message(1)).await.unwrap();
    tokio::time::sleep(ms(100)).await;
    assert_eq!(seen.lock().unwrap().len(), 2);
    for n in 2..=4 {
        sender.send(message(n)).await.unwrap();
        settle().await;
    }
    let mut answer = call.await.unwrap().unwrap().into_inner();
    assert_eq!(answer.message().await.unwrap(), Some(message(7)));
    let mut read: Vec<usize> = seen.lock().unwrap().iter().map(Vec::len).collect();
    read.sort_unstable();
    assert_eq!(read[1], 4);
    assert!(read[0] < 4);
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_chosen_attempt_fails_tells_of_those_that_were_abandoned_for_it() {
    let network = Network::new();
    let (_serving, _) = reading(&network, vec![(4, unavailable())]);
    let settings = settings(hedge(2, ms(50), [Code::Unavailable]));
    let hedging = settings.with_buffer(ReplayBuffer::new(15, 1000)).layer();
    let client = Grpc::new(hedging.layer(network.channel()));
    let (sender, request) = requests();
    let call = tokio::spawn(bidi(client, request));
    sender.send(message(1)).await.unwrap();
    tokio::time::sleep(ms(100)).await;
    for n in 2..=4 {
        sender.send(message(n)).await.unwrap();
        settle().await;
    }
    let failure = call.await.unwrap().unwrap_err();
    let attempts = Ledger::of(&failure).unwrap().attempts();
    let codes: Vec<_> = attempts.iter().map(|attempt| attempt.verdict.code()).collect();
    assert_eq!(codes, [Code::Unavailable, Code::Cancelled]);
}

// catalogue: JV-everythingDrained-stream, DN-Duplex-ManyParallelRequests
#[tokio::test(start_paused = true)]
async fn every_hedge_of_a_stream_gets_every_message() {
    let network = Network::new();
    let slow = Answer::After(ms(1000), Box::new(ok()));
    let (_serving, seen) = reading(&network, vec![(3, slow), (3, ok())]);
    let client = Grpc::new(layer(hedge(2, ms(50), [Code::Unavailable])).layer(network.channel()));
    let (sender, request) = requests();
    let call = tokio::spawn(bidi(client, request));
    for n in 1..=3 {
        sender.send(message(n)).await.unwrap();
        tokio::time::sleep(ms(40)).await;
    }
    call.await.unwrap().unwrap();
    let all: Vec<Message> = (1..=3).map(message).collect();
    assert_eq!(*seen.lock().unwrap(), [all.clone(), all]);
}

// catalogue: CC10
#[tokio::test(start_paused = true)]
async fn the_buffer_is_not_filled_while_no_attempt_is_in_flight() {
    let network = Network::new();
    let (_serving, seen) = reading(&network, vec![(1, unavailable()), (4, ok())]);
    let layer = retrying_settings(4).with_buffer(ReplayBuffer::new(20, 1000)).layer();
    let client = Grpc::new(layer.layer(network.channel()));
    let (sender, request) = requests();
    let call = tokio::spawn(bidi(client, request));
    sender.send(message(1)).await.unwrap();
    tokio::time::sleep(ms(50)).await;
    // The backoff has begun: these wait in the application, and not in the buffer.
    for n in 2..=4 {
        sender.send(message(n)).await.unwrap();
    }
    let mut answer = call.await.unwrap().unwrap().into_inner();
    assert_eq!(answer.message().await.unwrap(), Some(message(7)));
    assert_eq!(seen.lock().unwrap()[1].len(), 4);
}
