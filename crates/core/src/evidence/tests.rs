//! Every row of the table of faults, and its evidence about a server.

use super::*;
use crate::{BoxError, Deadline, Rejected};
use bytes::Bytes;
use cinchona_plumbing::{Allowed, Elapsed, timeout::GRPC_TIMEOUT};
use http::Request;
use http::{HeaderValue, header::CONTENT_TYPE};
use http_body_util::Full;
use std::io;
use std::time::Duration;
use tokio::time::Instant;
use tonic::Status;

const MS: Duration = Duration::from_millis(1);

fn never() -> Spent {
    unreachable!("the time does not matter")
}

fn head(http: u16, content_type: &'static str, body: &'static str) -> Response<Full<Bytes>> {
    let mut head = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *head.status_mut() = StatusCode::from_u16(http).unwrap();
    head.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    head
}

fn trailers(code: Code, more: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", (code as i32).into());
    trailers.extend(more.iter().map(|(name, value)| {
        (http::HeaderName::from_static(name), HeaderValue::from_static(value))
    }));
    trailers
}

const GOOD: fn(Code) -> Evidence = Evidence::Good;
const BAD: fn(Code) -> Evidence = Evidence::Bad;

fn nothing(code: Code) -> Evidence {
    Evidence::Nothing(Some(code))
}

// catalogue: S-A4
#[test]
fn what_a_server_says_in_each_code() {
    let expected = |code| match code {
        Code::Unknown | Code::Internal | Code::Unavailable | Code::DataLoss => BAD(code),
        Code::Cancelled | Code::ResourceExhausted => nothing(code),
        // The server had its usual time.
        Code::DeadlineExceeded => BAD(code),
        _ => GOOD(code),
    };
    for code in cinchona_plumbing::code::all() {
        let said = Evidence::of_trailers(&trailers(code, &[]), Spent::default);
        assert_eq!(said, expected(code), "{code:?} in trailers");
        let only = Status::new(code, "").into_http::<tonic::body::Body>();
        let said = Evidence::of_head(&only, Spent::default);
        assert_eq!(said, Some(expected(code)), "{code:?} alone");
        let pushed = trailers(code, &[("grpc-retry-pushback-ms", "10")]);
        let said = Evidence::of_trailers(&pushed, Spent::default);
        assert!(!matches!(said, Evidence::Bad(_)), "{code:?}: a server that sheds is there");
    }
}

// catalogue: S-A3
#[test]
fn an_answer_that_is_not_grpcs() {
    for (http, content_type, body, expected) in [
        (200, "application/grpc", "message", None),
        (200, "application/grpc", "", Some(BAD(Code::Unknown))),
        (200, "text/html", "<html>", Some(BAD(Code::Unknown))),
        (200, "text/html", "", Some(BAD(Code::Unknown))),
        (200, "application/json", "{}", Some(BAD(Code::Unknown))),
        (204, "text/plain", "", Some(BAD(Code::Unknown))),
        (301, "text/html", "", Some(BAD(Code::Unknown))),
        (404, "text/html", "", Some(BAD(Code::Unimplemented))),
        (500, "text/html", "", Some(BAD(Code::Unknown))),
        (502, "text/html", "", Some(BAD(Code::Unavailable))),
        (503, "text/plain", "", Some(BAD(Code::Unavailable))),
        (504, "text/html", "", Some(BAD(Code::Unavailable))),
        (400, "text/html", "", Some(nothing(Code::Internal))),
        (401, "text/html", "", Some(nothing(Code::Unauthenticated))),
        (403, "text/html", "", Some(nothing(Code::PermissionDenied))),
        (413, "text/html", "", Some(nothing(Code::Unknown))),
        (415, "text/html", "", Some(nothing(Code::Unknown))),
        (429, "text/html", "", Some(nothing(Code::Unavailable))),
        (431, "text/html", "", Some(nothing(Code::Internal))),
    ] {
        let said = Evidence::of_head(&head(http, content_type, body), never);
        assert_eq!(said, expected, "{http} {content_type} {body:?}");
    }
}

// catalogue: S-A3
#[test]
fn errors_of_the_wire_and_of_this_client() {
    let io = |kind: io::ErrorKind| -> BoxError { io::Error::from(kind).into() };
    let connect = tonic::ConnectError(io(io::ErrorKind::ConnectionRefused));
    let rows: Vec<(&str, BoxError, Evidence)> = vec![
        ("refused port", connect.into(), BAD(Code::Unavailable)),
        ("lost connection", io(io::ErrorKind::ConnectionReset), BAD(Code::Unavailable)),
        ("nowhere to go", Rejected::new("down", None).into(), BAD(Code::Unavailable)),
        ("left before it was sent", Rejected::lost("gone").into(), Evidence::Nothing(None)),
        ("all are full", Rejected::exhausted("full").into(), nothing(Code::ResourceExhausted)),
        ("own timer", Elapsed::new("late").into(), BAD(Code::DeadlineExceeded)),
        ("unknown", "?".into(), BAD(Code::Unknown)),
        (
            "reset by the server",
            h2::Error::from(h2::Reason::INTERNAL_ERROR).into(),
            BAD(Code::Internal),
        ),
        (
            "cancelled by the server",
            h2::Error::from(h2::Reason::CANCEL).into(),
            nothing(Code::Cancelled),
        ),
        ("a bare refusal", Status::not_found("").into(), GOOD(Code::NotFound)),
    ];
    for (what, error, expected) in rows {
        assert_eq!(Evidence::of_error(&*error, Spent::default), expected, "{what}");
    }
    for code in cinchona_plumbing::code::all() {
        let local = Evidence::of_verdict(Verdict::Local(code), never);
        assert_eq!(local, Evidence::Nothing(None), "this client's own failure");
    }
    let refused = Evidence::of_verdict(Verdict::NotProcessed(Stage::RefusedStream), never);
    assert_eq!(refused, BAD(Code::Unavailable));
}

fn request(timeout: Option<&'static str>, call: Option<Duration>, now: Instant) -> Request<()> {
    let mut request = Request::new(());
    if let Some(timeout) = timeout {
        request.headers_mut().insert(GRPC_TIMEOUT, HeaderValue::from_static(timeout));
    }
    call.map(|call| request.extensions_mut().insert(Deadline(now + call)));
    request
}

// catalogue: S-A5
#[tokio::test(start_paused = true)]
async fn a_deadline_is_held_against_a_server_only_where_it_left_it_enough_time() {
    let now = Instant::now();
    let allowed = |timeout, call: Option<u32>| {
        let request = request(timeout, call.map(|call| call * MS), now);
        let call = request.extensions().get::<Deadline>().map(|call| call.remaining(now));
        Allowed::of(request.headers(), call)
    };
    let spent = |allowed, took: u32, usual: Option<u32>| Spent {
        allowed,
        took: took * MS,
        usual: usual.map(|usual| usual * MS),
    };
    let bad = BAD(Code::DeadlineExceeded);
    let none = Evidence::Nothing(None);
    for (what, spent, expected) in [
        ("a caller in a hurry", spent(allowed(Some("1m"), None), 1, Some(5)), none),
        ("a patient caller", spent(allowed(Some("50m"), None), 50, Some(5)), bad),
        ("just enough", spent(allowed(Some("5m"), None), 5, Some(5)), bad),
        ("a server that is not known", spent(allowed(Some("99m"), None), 99, None), none),
        ("nor is that one, for long", spent(allowed(Some("100m"), None), 100, None), bad),
        ("the limit of an attempt", spent(allowed(Some("1m"), Some(100)), 1, Some(5)), bad),
        ("the rest of a call", spent(allowed(Some("1m"), Some(1)), 1, Some(5)), none),
        ("the call alone", spent(allowed(None, Some(1)), 1, Some(5)), none),
    ] {
        assert_eq!(Evidence::of_dropped(spent.clone(), None), expected, "{what}: dropped");
        assert_eq!(
            Evidence::of_verdict(Verdict::Deadline, || spent.clone()),
            expected,
            "{what}: a timer"
        );
        let server = trailers(Code::DeadlineExceeded, &[]);
        let said = Evidence::of_trailers(&server, || spent.clone());
        assert_eq!(said == bad, expected == bad, "{what}: the server's own timer");
        let tonic = Status::cancelled("Timeout expired").into_http::<tonic::body::Body>();
        let said = Evidence::of_head(&tonic, || spent).unwrap();
        assert_eq!(said == bad, expected == bad, "{what}: the timer of a tonic server");
    }
    let early = spent(allowed(Some("50m"), None), 2, Some(5));
    assert_eq!(Evidence::of_dropped(early.clone(), None), none, "a caller that gives up");
    let (quiet, mut spoken) = (Framing::default(), Framing::default());
    spoken.read(&[0; 5]);
    for (allowed, read, expected) in [
        (allowed(Some("50m"), None), quiet, none),
        (allowed(Some("50m"), Some(100)), quiet, bad),
        (allowed(Some("50m"), Some(100)), spoken, none),
    ] {
        let cut = Evidence::of_dropped(spent(allowed.clone(), 50, Some(5)), Some(&read));
        assert_eq!(cut, expected, "{allowed:?} {read:?}");
    }
    let said = Evidence::of_trailers(&trailers(Code::DeadlineExceeded, &[]), || early.clone());
    assert_eq!(said, bad, "a server that has given up by itself");
    let words = trailers(Code::Cancelled, &[("grpc-message", "Timeout expired")]);
    let said = Evidence::of_trailers(&words, || early);
    assert_eq!(said, nothing(Code::Cancelled), "no timer of ours has run out");
}

#[test]
fn evidence_has_the_code_that_there_is() {
    for (evidence, code) in [
        (Evidence::Good(Code::NotFound), Some(Code::NotFound)),
        (Evidence::Bad(Code::Internal), Some(Code::Internal)),
        (Evidence::Nothing(Some(Code::Cancelled)), Some(Code::Cancelled)),
        (Evidence::Nothing(None), None),
    ] {
        assert_eq!(evidence.code(), code);
    }
}

#[test]
fn a_cancelled_in_other_words_than_those_of_tonics_timer_asks_for_no_time() {
    let said = trailers(Code::Cancelled, &[("grpc-message", "by the user")]);
    assert_eq!(Evidence::of_trailers(&said, never), nothing(Code::Cancelled));
}
