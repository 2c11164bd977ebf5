//! The ledger of a call, and how it is passed on.

use super::*;
use cinchona_core::{Call, Rejected, Stage, Verdict};
use http_body_util::BodyExt;
use prost::Message as _;
use std::{collections::VecDeque, convert::Infallible, num::NonZeroU64, path::Path, sync::Mutex};
use tower::service_fn;

/// Answers as a balancer over two servers would, the first of which is down.
async fn balance(request: Request) -> Result<Response, Infallible> {
    let call = Call::find(&request).unwrap();
    let (n, name) = if call.has_been_sent() { (2, "two:2") } else { (1, "one:1") };
    call.sent_to(NonZeroU64::new(n).unwrap(), &name.into(), None);
    tokio::time::sleep(SECOND).await;
    let down = Status::unavailable("draining").into_http();
    Ok(if n == 1 { down } else { Status::ok("").into_http() })
}

#[tokio::test(start_paused = true)]
async fn an_attempt_in_the_ledger_has_its_kind_time_and_endpoint() {
    let service = layer(on([Code::Unavailable])).layer(service_fn(balance));
    let response = service.oneshot(request()).await.unwrap();
    let ledger = response.extensions().get::<Ledger>().unwrap();
    let [first, second] = ledger.attempts() else { panic!("{ledger}") };
    assert_eq!((first.kind, second.kind), (AttemptKind::First, AttemptKind::Retry));
    assert_eq!((first.began, first.duration), (Duration::ZERO, SECOND));
    assert!(second.began - (SECOND + first.wait) < Duration::from_millis(2), "{second:?}");
    let endpoints = [first, second].map(|attempt| attempt.endpoint.as_deref());
    assert_eq!(endpoints, [Some("one:1"), Some("two:2")]);
    let lines = ledger.to_string();
    assert!(lines.contains("#1 UNAVAILABLE after 1.0s from one:1, waited"), "{lines}");
}

#[tokio::test(start_paused = true)]
async fn hedges_first_attempts_and_transparent_retries_are_distinguished() {
    let hedge = HedgePolicy::default().with_delay(SECOND / 2);
    let policies = PerMethod::from(Policy::from(hedge));
    let layer = settings(RetryPolicy::default()).with_policies(policies).unwrap().layer();
    let response = layer.layer(service_fn(balance)).oneshot(request()).await.unwrap();
    let ledger = response.extensions().get::<Ledger>().unwrap();
    let kinds: Vec<_> =
        ledger.attempts().iter().map(|a| (a.kind, a.began, a.endpoint.as_deref())).collect();
    let half = kinds[1].1;
    assert!(half - SECOND / 2 < Duration::from_millis(2));
    let expected = [
        (AttemptKind::First, Duration::ZERO, Some("one:1")),
        (AttemptKind::Hedge, half, Some("two:2")),
    ];
    assert_eq!(kinds, expected);
}

#[tokio::test(start_paused = true)]
async fn in_shadow_a_call_that_would_be_hedged_and_retried_counts_once() {
    let switch = cinchona_core::Switch::new(cinchona_core::Mode::Shadow);
    let policies = PerMethod::from(Policy::from(HedgePolicy::default().with_delay(SECOND)));
    let settings = settings(RetryPolicy::default()).with_policies(policies).unwrap();
    let unsent = service_fn(|_: Request| async { Err::<Response, _>(Rejected::lost("down")) });
    let service = settings.with_switch(switch.clone()).layer().layer(unsent);
    service.oneshot(request()).await.unwrap_err();
    assert_eq!(switch.shadowed(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_whose_own_request_fails_after_the_head_has_that_verdict() {
    let (sender, body) = http_body_util::channel::Channel::<bytes::Bytes, Status>::new(1);
    tokio::spawn(async move {
        tokio::time::sleep(SECOND).await;
        sender.abort(Status::data_loss("of the caller"));
    });
    let (request, call) = recorded();
    let request = request.map(|_| Body::new(body));
    // Answers before it has read the request, and ends with it.
    let early = service_fn(|request: Request| async move {
        let answer = request.into_body().map_frame(|_| http_body::Frame::data(bytes::Bytes::new()));
        let mut response = Response::new(Body::new(answer));
        response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        Ok::<_, Infallible>(response)
    });
    let response = layer(on([Code::Unavailable])).layer(early).oneshot(request).await.unwrap();
    let error = response.into_body().collect().await.unwrap_err();
    assert_eq!(error.code(), Code::DataLoss);
    assert_eq!(call.attempts()[0].verdict, Some(Verdict::Local(Code::DataLoss)));
}

/// The request of a call, and the handle of its record.
fn recorded() -> (Request, Call) {
    let mut request = request();
    let call = Call::of(&mut request, Instant::now).clone();
    (request, call)
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_never_began_is_none_in_the_record() {
    // Dropped in its backoff.
    let service =
        layer(on([Code::Unavailable])).layer(ScriptedServer::new([failing(Code::Unavailable)]));
    let (request, call) = recorded();
    assert!(tokio::time::timeout(SECOND / 1000, service.oneshot(request)).await.is_err());
    let attempts = call.attempts();
    assert_eq!(attempts.len(), 1, "{attempts:?}");
    // Hedges without a delay, and the first attempt is answered at once.
    let hedge = HedgePolicy::default().with_delay(Duration::ZERO).with_max_attempts(3);
    let policies = PerMethod::from(Policy::from(hedge));
    let layer = settings(RetryPolicy::default()).with_policies(policies).unwrap().layer();
    let at_once =
        service_fn(|_: Request| async { Ok::<_, Infallible>(Status::ok("").into_http::<Body>()) });
    let (request, call) = recorded();
    layer.layer(at_once).oneshot(request).await.unwrap();
    let attempts = call.attempts();
    assert_eq!(attempts.len(), 1, "{attempts:?}");
}

#[tokio::test(start_paused = true)]
async fn the_line_of_an_answered_attempt_has_the_verdict_of_its_trailers() {
    let broken = || Answer::MessageThenStatus(vec![0; 5].into(), Status::data_loss("half"));
    for (answer, verdict) in [(ok(), Verdict::Ok), (broken(), Verdict::of_code(Code::DataLoss))] {
        for failures in 0..2 {
            let mut script = vec![failing(Code::Unavailable); failures];
            script.push(answer.clone());
            let service = layer(on([Code::Unavailable])).layer(ScriptedServer::new(script));
            let (request, call) = recorded();
            let response = service.oneshot(request).await.unwrap();
            response.into_body().collect().await.unwrap();
            let attempts = call.attempts();
            let last = attempts.last().unwrap();
            assert_eq!((attempts.len(), last.verdict), (failures + 1, Some(verdict)));
            assert_eq!(last.ended, Some(Instant::now()));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_explained_success_has_a_ledger_though_it_was_the_first_attempt() {
    let (_, outcome) =
        play(settings(RetryPolicy::default()).explained().layer(), [ok()], request()).await;
    let response = outcome.unwrap();
    let ledger = response.extensions().get::<Ledger>().unwrap();
    let [only] = ledger.attempts() else { panic!("{ledger}") };
    assert_eq!((only.kind, only.verdict), (AttemptKind::First, Verdict::Ok));
}

async fn failure(layer: RetryLayer, status: Status) -> Status {
    let server = ScriptedServer::new([Answer::Status(status)]);
    Status::from_error(layer.layer(server).oneshot(request()).await.unwrap_err())
}

#[tokio::test(start_paused = true)]
async fn an_explained_failure_has_the_ledger_behind_the_details_of_the_server() {
    let policy = on([Code::Unavailable]).with_max_retries(1);
    let said = b"\x08\x0e\x12\x04down\x1a\x05\x0a\x03any";
    for details in [&b""[..], said] {
        let server = || Status::with_details(Code::Unavailable, "down", details.to_vec().into());
        let plain = failure(layer(policy), server()).await;
        assert_eq!(plain.details(), details, "it is passed on as it is");
        let explained = failure(settings(policy).explained().layer(), server()).await;
        assert!(explained.details().starts_with(b"\x08\x0e\x12\x04down"));
        assert!(explained.details().starts_with(details));
        let ledger = Ledger::from_details(explained.details()).unwrap();
        let known = Ledger::of(&explained).unwrap();
        assert_eq!((ledger.attempts(), ledger.stopped()), (known.attempts(), Stop::Exhausted));
        assert_eq!(ledger.attempts().len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn details_that_are_no_message_are_unchanged() {
    let garbage = Status::with_details(Code::NotFound, "", b"\xff\xff".to_vec().into());
    let explained = failure(settings(RetryPolicy::default()).explained().layer(), garbage).await;
    assert_eq!(explained.details(), b"\xff\xff");
    assert!(Ledger::of(&explained).is_some());
}

/// What the file says of each enum and message: names and numbers.
fn described() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    let set = protox::compile(["ledger.proto"], [folder]).unwrap();
    let file = set.file.iter().find(|file| file.name() == "ledger.proto").unwrap();
    let field = |field: &prost_types::FieldDescriptorProto| {
        format!("{:?} {} = {}", field.r#type(), field.name(), field.number())
    };
    let value = |value: &prost_types::EnumValueDescriptorProto| {
        format!("{} = {}", value.name(), value.number())
    };
    let messages = file.message_type.iter().flat_map(|message| message.field.iter().map(field));
    let values = file.enum_type.iter().flat_map(|numbers| numbers.value.iter().map(value));
    messages.chain(values).collect()
}

#[test]
fn the_messages_are_those_of_the_proto() {
    let expected = "Message attempts = 1, Enum stopped = 2, \
        Enum kind = 1, Enum verdict = 2, Int32 code = 3, Message began = 4, Message duration = 5, \
        Message wait = 6, String endpoint = 7, \
        KIND_UNSPECIFIED = 0, FIRST = 1, RETRY = 2, TRANSPARENT = 3, HEDGE = 4, \
        VERDICT_UNSPECIFIED = 0, OK = 1, REFUSED = 2, NO_CONNECTION = 3, NOT_WRITTEN = 4, \
        REFUSED_STREAM = 5, \
        MAYBE_PROCESSED = 6, DEADLINE = 7, LOCAL_FAILURE = 8, \
        STOP_UNSPECIFIED = 0, SUCCEEDED = 1, EXHAUSTED = 2, NOT_RETRYABLE = 3, CALL_DEADLINE = 4, \
        BODY_TOO_LARGE = 5, NOT_IDEMPOTENT = 6, PUSHBACK = 7, THROTTLED = 8, BUDGET = 9, \
        CHAINED = 10, LOCAL = 11";
    assert_eq!(described().join(", "), expected);
}

/// A message by hand: each field's number and wire type, and what is in it.
#[test]
fn every_kind_verdict_and_reason_is_read_as_it_was_written() {
    let any = |ledger: Vec<u8>| {
        let url = b"type.googleapis.com/cinchona.retry.v1.Ledger";
        let any = [&[0x0a, url.len() as u8], &url[..], &[0x12, ledger.len() as u8], &ledger];
        let any = any.concat();
        [&[0x1a, any.len() as u8][..], &any].concat()
    };
    let times = b"\x22\x02\x08\x01\x2a\x02\x10\x07\x32\x00\x3a\x03a:1";
    let attempt = |kind: u8, verdict: u8| [&[8, kind, 16, verdict, 24, 14][..], times].concat();
    let ledger = |kind, verdict, stopped| {
        let attempt = attempt(kind, verdict);
        any([&[0x0a, attempt.len() as u8][..], &attempt, &[16, stopped]].concat())
    };
    let read = |kind, verdict, stopped| Ledger::from_details(&ledger(kind, verdict, stopped));
    use {AttemptKind as K, Stop as S, Verdict as V};
    for (number, kind) in (1..).zip([K::First, K::Retry, K::Transparent, K::Hedge]) {
        let read = read(number, 6, 1).unwrap();
        let expected = Attempt {
            kind,
            verdict: V::MaybeProcessed(Code::Unavailable),
            began: SECOND,
            duration: Duration::from_nanos(7),
            wait: Duration::ZERO,
            endpoint: Some("a:1".into()),
        };
        assert_eq!(read.attempts(), [expected]);
    }
    let sent = V::MaybeProcessed(Code::Unavailable);
    let [unconnected, unsent, unseen] =
        [Stage::NoConnection, Stage::NotWritten, Stage::RefusedStream].map(V::NotProcessed);
    let refused = V::Refused(Code::Unavailable);
    let local = V::Local(Code::Unavailable);
    let verdicts = [V::Ok, refused, unconnected, unsent, unseen, sent, V::Deadline, local];
    for (number, verdict) in (1..).zip(verdicts) {
        assert_eq!(read(1, number, 1).unwrap().attempts()[0].verdict, verdict);
    }
    let stops = [
        S::Succeeded,
        S::Exhausted,
        S::NotRetryable,
        S::Deadline,
        S::BodyTooLarge,
        S::NotIdempotent,
        S::Pushback,
        S::Throttled,
        S::Budget,
        S::Chained,
        S::Local,
    ];
    for (number, stop) in (1..).zip(stops) {
        assert_eq!(read(1, 1, number).unwrap().stopped(), stop);
    }
    for (kind, verdict, stopped) in
        [(0, 1, 1), (5, 1, 1), (1, 0, 1), (1, 9, 1), (1, 1, 0), (1, 1, 12)]
    {
        assert!(read(kind, verdict, stopped).is_none(), "{kind} {verdict} {stopped}");
    }
}

proptest::proptest! {
    #[test]
    fn whatever_the_details_are_reading_them_does_not_panic(details: Vec<u8>) {
        let _ = Ledger::from_details(&details);
        let type_url = "type.googleapis.com/cinchona.retry.v1.Ledger".to_owned();
        let own = prost_types::Any { type_url, value: details };
        let among = [&[0x1a, own.encoded_len() as u8][..], &own.encode_to_vec()].concat();
        let _ = Ledger::from_details(&among);
    }
}

#[tokio::test(start_paused = true)]
async fn the_source_of_a_ledger_is_the_status_of_the_last_attempt() {
    let status = failure(layer(on([])), Status::not_found("no such account")).await;
    let source = std::error::Error::source(Ledger::of(&status).unwrap()).unwrap();
    let source = source.downcast_ref::<Status>().unwrap();
    assert_eq!((source.code(), source.message()), (Code::NotFound, "no such account"));
}

/// The kinds of the attempts of a call that waits for a connection, whose attempts end so.
async fn kinds(outcomes: impl IntoIterator<Item = Result<Status, Rejected>>) -> Vec<AttemptKind> {
    let outcomes = Arc::new(Mutex::new(outcomes.into_iter().collect::<VecDeque<_>>()));
    let server = service_fn(move |_: Request| {
        let outcome = outcomes.lock().unwrap().pop_front().unwrap();
        std::future::ready(outcome.map(|status| status.into_http::<Body>()))
    });
    let policy = Policy::from(on([Code::Unavailable])).with_wait_for_ready(true);
    let layer =
        settings(on([])).with_policies(PerMethod::from(policy)).unwrap().explained().layer();
    let response = layer.layer(server).oneshot(request()).await.unwrap();
    let ledger = response.extensions().get::<Ledger>().unwrap();
    ledger.attempts().iter().map(|attempt| attempt.kind).collect()
}

#[tokio::test(start_paused = true)]
async fn an_attempt_is_of_the_kind_that_what_went_before_makes_it() {
    use AttemptKind::{First, Retry, Transparent};
    let (ok, failed) = (|| Ok(Status::ok("")), || Ok(Status::unavailable("simulated")));
    let lost = || Err(Rejected::lost("the connection is gone"));
    let none = || Err(Rejected::new("nobody listens", None));
    assert_eq!(kinds([lost(), ok()]).await, [First, Transparent]);
    assert_eq!(kinds([failed(), ok()]).await, [First, Retry]);
    // What only waits for a connection is no attempt.
    assert_eq!(kinds([none(), none(), ok()]).await, [First]);
    assert_eq!(kinds([failed(), none(), ok()]).await, [First, Retry]);
}
