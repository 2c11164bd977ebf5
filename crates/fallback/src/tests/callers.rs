//! Which caller gets which answer.

use super::*;
use cinchona_core::IDEMPOTENCY_KEY;
use cinchona_testkit::Network;
use http::{HeaderMap, HeaderValue, header};
use proptest::prelude::*;
use std::collections::BTreeMap;
use tonic::{Request as Call, client::Grpc, metadata::MetadataValue};
use tonic_prost::ProstCodec;

fn answering_once() -> ScriptedServer {
    ScriptedServer::new([ok(7), down()])
}

fn name(name: &'static str) -> HeaderName {
    HeaderName::from_static(name)
}

// catalogue: S-F2
#[tokio::test(start_paused = true)]
async fn no_caller_is_given_the_answer_of_another_however_they_differ() {
    for name_of in [
        "authorization",
        "cookie",
        "proxy-authorization",
        "x-api-key",
        "x-user",
        "x-tenant-id",
        "x-forwarded-for",
        "x-forwarded-client-cert",
        "x-goog-request-params",
        "x-correlation-id",
        "session",
        "baggage",
        "grpc-tags-bin",
        "identity-bin",
        "accept-language",
        "content-type",
        "te",
        "grpc-encoding",
        "grpc-accept-encoding",
        "criticality",
    ] {
        let client = caching().layer(answering_once());
        let by = |value| with(balance(), name(name_of), value);
        assert_eq!(ask(&client, by("YWxpY2U")).await, live(7), "{name_of}");
        for other in [by("Ym9i"), by(""), balance(), with(by("YWxpY2U"), name(name_of), "YWxpY2U")]
        {
            assert_eq!(ask(&client, other).await, unavailable(), "{name_of}");
        }
        assert_eq!(ask(&client, by("YWxpY2U")).await, cached(7, 0), "{name_of}");
    }
}

#[tokio::test(start_paused = true)]
async fn metadata_of_the_single_call_does_not_keep_its_answer_from_the_caller() {
    for own in [
        "grpc-timeout",
        "grpc-previous-rpc-attempts",
        "user-agent",
        "x-request-id",
        "traceparent",
        "tracestate",
        "grpc-trace-bin",
        "b3",
        "x-b3-traceid",
        "x-b3-spanid",
        "x-b3-parentspanid",
        "x-b3-sampled",
        "x-b3-flags",
        "idempotency-key",
    ] {
        let client = caching().layer(answering_once());
        let by = |key| with(balance(), name("x-api-key"), key);
        assert_eq!(ask(&client, with(by("alice"), name(own), "1S")).await, live(7));
        assert_eq!(ask(&client, by("alice")).await, cached(7, 0), "{own}");
        assert_eq!(ask(&client, with(by("alice"), name(own), "2S")).await, cached(7, 0), "{own}");
        assert_eq!(ask(&client, with(by("bob"), name(own), "1S")).await, unavailable(), "{own}");
    }
}

#[tokio::test(start_paused = true)]
async fn ignored_metadata_does_not_distinguish_requests() {
    let layer = settings().with_ignored(name("x-correlation-id")).unwrap().layer();
    let client = layer.layer(answering_once());
    let by = |id| with(balance(), name("x-correlation-id"), id);
    assert_eq!(ask(&client, by("1")).await, live(7));
    assert_eq!(ask(&client, by("2")).await, cached(7, 0));
    assert_eq!(ask(&client, with(by("2"), name("x-api-key"), "bob")).await, unavailable());
}

#[test]
fn metadata_that_identifies_callers_or_encodings_cannot_be_ignored() {
    for essential in [
        "authorization",
        "proxy-authorization",
        "cookie",
        "host",
        "content-type",
        "grpc-encoding",
        "grpc-accept-encoding",
    ] {
        let refused = settings().with_ignored(name(essential)).unwrap_err();
        assert_eq!(refused.field(), "ignored", "{essential}");
        assert!(refused.to_string().contains(essential), "{refused}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_service_that_the_layer_is_applied_to_has_its_own_answers_and_its_clones_share_them() {
    let layer = caching();
    let (alice, bob) = (layer.layer(answering_once()), layer.layer(ScriptedServer::new([down()])));
    assert_eq!(ask(&alice, balance()).await, live(7));
    assert_eq!(ask(&bob, balance()).await, unavailable(), "its channel may be another caller's");
    assert_eq!(ask(&alice.clone(), balance()).await, cached(7, 0));
    assert_eq!(ask(&layer.clone().layer(answering_once()), balance()).await, live(7));
    assert_eq!(layer.counters().kept_entries, 2);
}

#[tokio::test(start_paused = true)]
async fn callers_that_differ_only_in_extensions_are_distinguished_by_the_callers_function() {
    #[derive(Clone)]
    struct User(&'static str);
    let layer = settings()
        .with_caller(|request| match request.extensions.get()? {
            User("mallory") => panic!("simulated"),
            User(user) => Some(*user),
        })
        .layer();
    let client = layer.layer(ScriptedServer::new([ok(7), ok(8), ok(9), down()]));
    let by = |user| {
        let mut request = balance();
        request.extensions_mut().insert(User(user));
        request
    };
    assert_eq!(ask(&client, by("alice")).await, live(7));
    assert_eq!(ask(&client, balance()).await, live(8), "nobody");
    assert_eq!(ask(&client, by("mallory")).await, live(9), "the panic costs no call");
    for other in [by("bob"), balance(), by("mallory")] {
        assert_eq!(ask(&client, other).await, unavailable());
    }
    assert_eq!(ask(&client, by("alice")).await, cached(7, 0));
    assert_eq!(layer.counters().kept_entries, 1);
}

#[tokio::test(start_paused = true)]
async fn an_operation_is_not_answered_by_the_outcome_of_another_unless_configured() {
    let forced = settings().with_forced("bank.Bank", "Withdraw").unwrap();
    let careless = forced.clone().with_ignored(IDEMPOTENCY_KEY).unwrap();
    for (settings, expected) in [(forced, unavailable()), (careless, cached(7, 0))] {
        let client = settings.layer().layer(answering_once());
        let named = |key| with(request(WITHDRAW, 1), IDEMPOTENCY_KEY, key);
        assert_eq!(ask(&client, named("1")).await, live(7));
        assert_eq!(ask(&client, named("2")).await, expected);
        assert_eq!(ask(&client, named("1")).await, cached(7, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn the_whole_address_distinguishes_requests() {
    let client = caching().layer(answering_once());
    let to = |uri: &str| {
        let mut request = balance();
        *request.uri_mut() = uri.parse().unwrap();
        request
    };
    let first = "http://bank/bank.Bank/Balance?branch=1";
    assert_eq!(ask(&client, to(first)).await, live(7));
    for other in [
        "https://bank/bank.Bank/Balance?branch=1",
        "http://bank:80/bank.Bank/Balance?branch=1",
        "http://bank2/bank.Bank/Balance?branch=1",
        "http://alice@bank/bank.Bank/Balance?branch=1",
        "http://bank/bank.Bank/Balance?branch=2",
        "http://bank/bank.Bank/Balance",
        "/bank.Bank/Balance?branch=1",
    ] {
        assert_eq!(ask(&client, to(other)).await, unavailable(), "{other}");
    }
    let mut get = to(first);
    *get.method_mut() = http::Method::GET;
    assert_eq!(ask(&client, get).await, unavailable());
    assert_eq!(ask(&client, to(first)).await, cached(7, 0));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_kept_or_given_that_the_caller_or_the_server_forbids() {
    for (value, expected) in [
        ("no-store", unavailable()),
        ("private, No-Cache", unavailable()),
        ("no-cache=\"x\"", unavailable()),
        ("max-age=1 ,must-revalidate", unavailable()),
        ("private, max-age=60", cached(7, 0)),
        ("no-storefront", cached(7, 0)),
    ] {
        let client = caching().layer(answering_once());
        let asked = || with(balance(), header::CACHE_CONTROL, value);
        ask(&client, asked()).await;
        assert_eq!(ask(&client, asked()).await, expected, "asked: {value}");

        let said = HeaderValue::from_static(value);
        let server =
            tower::util::MapResponse::new(answering_once(), move |mut response: Response<Body>| {
                response.headers_mut().append(header::CACHE_CONTROL, said.clone());
                response
            });
        let client = caching().layer(server);
        ask(&client, balance()).await;
        assert_eq!(ask(&client, balance()).await, expected, "said: {value}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_generated_client_with_another_key_is_not_given_the_answer_to_the_first() {
    let net = Network::new();
    let _serving = net.serve_service(answering_once());
    let client = caching().layer(net.channel());
    let call = async |metadata: &[(&'static str, &'static str)], token: &'static [u8]| {
        let mut client = Grpc::with_origin(client.clone(), http::Uri::from_static("http://bank"));
        client.ready().await.unwrap();
        let mut call = Call::new(1_u32);
        call.set_timeout(Duration::from_millis(token.len() as u64 * 1000));
        for (name, value) in metadata {
            call.metadata_mut().append(*name, value.parse().unwrap());
        }
        call.metadata_mut().insert_bin("token-bin", MetadataValue::from_bytes(token));
        let path = http::uri::PathAndQuery::from_static(BALANCE);
        let got = client.unary(call, path, ProstCodec::<u32, u32>::default()).await;
        let got = got.map(|got| (got.metadata().clone().into_headers(), got.into_inner()));
        got.map_err(|status| status.code())
    };
    let live = call(&[("x-api-key", "alice")], b"1").await.unwrap();
    assert_eq!((live.1, live.0.get("degraded")), (7, None));
    assert_eq!(call(&[("x-api-key", "bob")], b"1").await.unwrap_err(), Code::Unavailable);
    assert_eq!(call(&[("x-api-key", "alice")], b"2").await.unwrap_err(), Code::Unavailable);
    assert_eq!(call(&[], b"1").await.unwrap_err(), Code::Unavailable);
    let second = call(&[("x-api-key", "alice"), ("x-request-id", "2")], b"1").await.unwrap();
    assert_eq!((second.1, second.0["degraded"].to_str().unwrap()), (7, "cached"));
}

/// The request as the server sees it, without ignored metadata.
type Seen = (String, BTreeMap<String, Vec<Vec<u8>>>, Vec<u8>);

#[derive(Clone, Debug)]
struct Asked {
    path: String,
    metadata: Vec<(&'static str, &'static str)>,
    message: Vec<u8>,
}

impl Asked {
    fn key(&self, layer: &FallbackLayer) -> Box<[u8]> {
        let mut headers = HeaderMap::new();
        for (own, value) in &self.metadata {
            headers.append(name(own), HeaderValue::from_static(value));
        }
        let mut request = Request::post(&self.path).body(()).unwrap();
        *request.headers_mut() = headers;
        layer.shared.key(0, &request.into_parts().0, &self.message.clone().into()).unwrap()
    }

    fn seen(&self) -> Seen {
        let mut seen = BTreeMap::<_, Vec<_>>::new();
        for (name, value) in &self.metadata {
            if !["x-request-id", "traceparent"].contains(name) {
                seen.entry((*name).to_owned()).or_default().push(value.as_bytes().to_vec());
            }
        }
        (self.path.clone(), seen, self.message.clone())
    }
}

const PATHS: [&str; 3] = ["/a.B/C", "/a.B/Cx", "http://a/a.B/C"];

const METADATA: [(&str, &str); 8] = [
    ("x", ""),
    ("x", "a"),
    ("x", "ab"),
    ("xa", "b"),
    ("x-bin", "AA"),
    ("x-bin", "AA=="),
    ("x-request-id", "a"),
    ("traceparent", "b"),
];

const MESSAGES: [&[u8]; 4] = [b"", b"a", b"ab", b"\0"];

fn asked() -> impl Strategy<Value = Asked> {
    let path = prop::sample::select(&PATHS[..]);
    let metadata = prop::collection::vec(prop::sample::select(&METADATA[..]), 0..5);
    let message = prop::sample::select(&MESSAGES[..]);
    (path, metadata, message).prop_map(|(path, metadata, message)| Asked {
        path: path.into(),
        metadata,
        message: message.into(),
    })
}

/// A request, and others that differ in one value, or only in their order.
fn alike() -> impl Strategy<Value = Vec<Asked>> {
    let change = (any::<prop::sample::Index>(), prop::sample::select(&METADATA[..]));
    (asked(), asked(), prop::collection::vec(change, 6)).prop_map(|(one, other, changes)| {
        let shuffled = one.metadata.iter().rev().copied().collect();
        let mut all = vec![one.clone(), other, Asked { metadata: shuffled, ..one.clone() }];
        all.extend(changes.into_iter().map(|(at, with)| {
            let mut near = one.clone();
            match near.metadata.len() {
                0 => near.metadata.push(with),
                many => near.metadata[at.index(many)] = with,
            }
            near
        }));
        all
    })
}

proptest! {
    #[test]
    fn two_requests_have_one_key_only_if_the_server_could_not_tell_them_apart(all in alike()) {
        let layer = caching();
        let all: Vec<_> = all.iter().map(|asked| (asked.seen(), asked.key(&layer))).collect();
        for (seen, key) in &all {
            for (other, its_key) in &all {
                prop_assert_eq!(seen == other, key == its_key);
            }
        }
    }
}
