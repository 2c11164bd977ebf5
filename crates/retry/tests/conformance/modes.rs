//! Enforce, shadow, off.

use super::*;
use cinchona_core::{Mode, Switch};

// catalogue: X-shadow-and-off
#[tokio::test(start_paused = true)]
async fn in_shadow_nothing_is_retried_and_everything_that_would_have_been_is_counted() {
    let switch = Switch::new(Mode::Shadow);
    let layer = retrying_settings(4).with_switch(switch.clone()).layer();
    let mut client =
        Client::new(&layer, [unavailable(), failing(Code::Internal), unavailable(), ok()]);
    assert_eq!(code(&client.call().await), Code::Unavailable);
    assert_eq!(code(&client.call().await), Code::Internal);
    assert_eq!((client.server.attempts(), switch.shadowed()), (2, 1));
    switch.set(Mode::Enforce);
    assert_eq!(code(&client.call().await), Code::Ok);
    assert_eq!((client.server.attempts(), switch.shadowed()), (4, 1));
}

// catalogue: X-shadow-and-off
#[tokio::test(start_paused = true)]
async fn switched_off_the_layer_passes_calls_through() {
    let switch = Switch::new(Mode::Off);
    let layer = retrying_settings(4).with_switch(switch.clone()).layer();
    let (client, outcome) = play(layer, [unavailable(), ok()]).await;
    assert_eq!((client.server.attempts(), code(&outcome)), (1, Code::Unavailable));
    assert!(Ledger::of(&outcome.unwrap_err()).is_none());
    assert_eq!(switch.shadowed(), 0);
}

// catalogue: X-shadow-and-off
#[tokio::test(start_paused = true)]
async fn in_shadow_hedges_that_would_have_been_begun_are_counted() {
    let switch = Switch::new(Mode::Shadow);
    let hedging =
        settings(hedge(3, ms(100), [Code::Unavailable])).with_switch(switch.clone()).layer();
    let slow = Answer::After(ms(150), Box::new(ok()));
    let mut client = Client::new(&hedging, [slow, ok(), unavailable(), failing(Code::Internal)]);
    let mut counted = Vec::new();
    for _ in 0..4 {
        _ = client.call().await;
        counted.push(switch.shadowed());
    }
    assert_eq!((client.server.attempts(), counted), (4, vec![1, 1, 2, 2]));
}

// catalogue: X-shadow-and-off
#[tokio::test(start_paused = true)]
async fn in_shadow_a_request_arrives_as_it_was_sent_whatever_its_headers_are() {
    for (timeout, counted) in [("no timeout", 1), ("5S", 0)] {
        let switch = Switch::new(Mode::Shadow);
        let layer = retrying_settings(4).with_switch(switch.clone()).layer();
        let mut client = Client::new(&layer, [ok()]);
        let mut request = Request::new(message(3));
        request.metadata_mut().insert("grpc-timeout", timeout.parse().unwrap());
        request.metadata_mut().insert("grpc-previous-rpc-attempts", "7".parse().unwrap());
        let outcome = client.send(request).await;
        assert_eq!((code(&outcome), switch.shadowed()), (Code::Ok, counted), "{timeout}");
        let headers = &client.server.received()[0].headers;
        assert_eq!(headers["grpc-timeout"], timeout);
        assert_eq!(headers["grpc-previous-rpc-attempts"], "7");
    }
}
