//! Who a caller is, and how many are remembered.

use super::*;
use http::{Extensions, HeaderMap};
use tonic::{body::Body as TonicBody, transport::server::Connected};

const SECOND: Duration = Duration::from_secs(1);

/// Callers by a header of their calls, each with a call a second.
fn by_path() -> RateLimitLayer {
    let named = |headers: &HeaderMap, _: &Extensions| {
        let name = headers.get("name").and_then(|name| name.to_str().ok());
        name.unwrap_or_default().to_owned()
    };
    RateLimitSettings::new(1, 1).unwrap().by(named).layer()
}

/// So many callers that have called once, not long ago, and their calls are not checked for.
fn remember(layer: &RateLimitLayer, callers: usize) {
    for caller in 0..callers {
        assert!(layer.shared.limiters.check_key(&format!("before {caller}")).is_ok());
    }
}

/// Calls of these callers.
fn calls(layer: &RateLimitLayer, callers: std::ops::Range<u64>) {
    for caller in callers {
        let request = Request::builder().header("name", caller.to_string());
        assert!(layer.shared.over(&request.body(()).unwrap()).is_none());
    }
}

// Each has an address of its own, which is that of a connection.
#[tokio::test]
async fn a_caller_is_the_address_of_its_connection_without_the_port() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connected = tokio::net::TcpStream::connect(listener.local_addr().unwrap());
    let (accepted, _) = tokio::try_join!(listener.accept(), connected).unwrap();
    let mut extensions = Extensions::new();
    extensions.insert(accepted.0.connect_info());
    assert_eq!(peer(&HeaderMap::new(), &extensions), "127.0.0.1");
    assert_eq!(peer(&HeaderMap::new(), &Extensions::new()), "", "all that are unknown are one");
}

#[tokio::test(start_paused = true)]
async fn of_more_than_100_000_callers_those_with_a_full_quota_are_forgotten() {
    let layer = by_path();
    remember(&layer, MOST_CALLERS - 1022);
    tokio::time::sleep(3 * SECOND).await;
    let callers = || layer.shared.limiters.len();
    // Each 1024th call looks for them.
    calls(&layer, 0..1023);
    assert_eq!(callers(), MOST_CALLERS + 1);
    calls(&layer, 1023..1024);
    assert_eq!(callers(), 1024, "those that have called lately");
}

#[tokio::test(start_paused = true)]
async fn as_many_as_100_000_callers_are_remembered() {
    let layer = by_path();
    remember(&layer, MOST_CALLERS - 2047);
    tokio::time::sleep(3 * SECOND).await;
    calls(&layer, 0..2048);
    assert_eq!(layer.shared.limiters.len(), MOST_CALLERS + 1, "as many when it was looked");
}

#[tokio::test(start_paused = true)]
async fn whether_anyone_is_known_is_told_by_those_that_called() {
    let layer = by_path();
    assert!(layer.shared.limiters.is_empty());
    calls(&layer, 0..1);
    assert!(!layer.shared.limiters.is_empty());
}

#[tokio::test]
async fn a_quota_is_ready_when_the_service_below_is() {
    let (mut service, mut below) = tower_test::mock::spawn_with(|mock| {
        let mock: tower_test::mock::Mock<Request<TonicBody>, Response<TonicBody>> = mock;
        by_path().layer(mock)
    });
    below.allow(0);
    tokio_test::assert_pending!(service.poll_ready());
    below.allow(1);
    tokio_test::assert_ready_ok!(service.poll_ready());
}
