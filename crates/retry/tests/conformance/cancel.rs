//! The caller cancels.

use super::*;

/// Drops a call after `time`, and lets another second pass.
async fn dropped_after(time: Duration, script: Vec<Answer>) -> Client {
    let mut client = Client::new(&retrying(4), script);
    assert!(tokio::time::timeout(time, client.call()).await.is_err());
    tokio::time::sleep(ms(1000)).await;
    client
}

// catalogue: CC02, CC37, JV-cancel-closed
#[tokio::test(start_paused = true)]
async fn during_the_first_attempt_it_is_reset() {
    let client = dropped_after(ms(10), vec![Answer::Hang]).await;
    assert_eq!((client.server.attempts(), client.server.dropped()), (1, 1));
}

// catalogue: CC03, JV-retry-cancelWhileBackoff, DN-CancellationDuringBackoff-retry
#[tokio::test(start_paused = true)]
async fn during_the_backoff_there_is_no_other_attempt() {
    let client = dropped_after(ms(50), vec![unavailable()]).await;
    assert_eq!((client.server.attempts(), client.server.dropped()), (1, 0));
}

// catalogue: CC07, CC05, JV-retry-cancel-closed
#[tokio::test(start_paused = true)]
async fn during_a_retry_that_attempt_is_reset() {
    let client = dropped_after(ms(150), vec![unavailable(), Answer::Hang]).await;
    assert_eq!((client.server.attempts(), client.server.dropped()), (2, 1));
}

// catalogue: CC36
#[tokio::test(start_paused = true)]
async fn an_unread_answer_leaves_nothing_behind() {
    let buffer = cinchona_plumbing::ReplayBuffer::default();
    let layer = retrying_settings(4).with_buffer(buffer.clone()).layer();
    let (client, outcome) = play(layer, [unavailable(), ok()]).await;
    drop(outcome);
    settle().await;
    assert_eq!((buffer.used(), client.network.live()), (0, 1));
}
