//! Once a response has begun, it is final.

use super::*;

// catalogue: CC19, GO10, JV-headersRead-closed, JV-notAddPrev
#[tokio::test(start_paused = true)]
async fn headers_before_the_failure_commit() {
    let begun = Answer::HeadersThenStatus(Status::unavailable("late"));
    let (client, outcome) = play(retrying(4), [begun, ok()]).await;
    assert_eq!((client.server.attempts(), code(&outcome)), (1, Code::Unavailable));
    assert!(Ledger::of(&outcome.unwrap_err()).is_none());
}

// catalogue: CC20, GO08, GO09, DN-FailureAfterReadingResponseMessage
#[tokio::test(start_paused = true)]
async fn a_message_before_the_failure_commits() {
    let status = Status::unavailable("late");
    let begun = Answer::MessageThenStatus(encode(&message(1)), status);
    let (client, outcome) = play(retrying(4), [begun, ok()]).await;
    assert_eq!((client.server.attempts(), code(&outcome)), (1, Code::Unavailable));
}

// catalogue: CC21
#[tokio::test(start_paused = true)]
async fn the_answer_of_a_retry_is_read_once() {
    let (client, outcome) = play(retrying(4), [unavailable(), ok()]).await;
    assert_eq!(outcome.unwrap().into_inner(), message(7));
    assert_eq!((client.server.attempts(), client.server.dropped()), (2, 0));
}
