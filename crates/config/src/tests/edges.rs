//! Every duration and every number at the edges of its range: refused by its path, or a config with
//! which a call through the real layers ends.

use super::{fields::path, properties::valid, *};
use crate::{Client, MessageLimitsLayer};
use cinchona_balance::{Balance, Options};
use cinchona_core::{BoxError, Methods, Rng, Target};
use cinchona_deadline::CallDeadlineLayer;
use cinchona_retry::RetrySettings;
use cinchona_testkit::{Answer, Network, ScriptedServer, encode};
use proptest::prelude::*;
use tokio::{
    runtime::Builder,
    time::{sleep, timeout},
};
use tonic::{Status, body::Body};
use tower::{Service, ServiceBuilder, ServiceExt};

/// Longer than all waits of five attempts.
const AGES: Duration = Duration::from_secs(10 * 315_576_000_000);

/// Fails in three ways, then answers.
fn failing_at_first() -> ScriptedServer {
    let failure = |code| Answer::Status(Status::new(code, "not yet"));
    let failures = [Code::Unavailable, Code::Aborted, Code::Aborted].map(failure);
    ScriptedServer::new(failures.into_iter().chain([Answer::Ok(encode(&"done".to_owned()))]))
}

/// Whether a call ends in a client to which the config was applied.
///
/// A balancer is built only if the config sets balancing: its sweeps go on for as long as the call
/// does, and a call may take 10,000 years.
fn ends(config: &ServiceConfig) -> bool {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let network = Network::new();
        let _serving = network.serve_service(failing_at_first());
        if config.picker.is_none() {
            return ends_through(config, network.channel()).await;
        }
        let target = Target::from(http::Uri::from_static("http://here:1"));
        let options = config.balance(Options::default());
        let balance = Balance::with_connector(vec![target], network.connector(), options).unwrap();
        let ended = ends_through(config, balance.clone()).await;
        sleep(Duration::from_secs(60)).await;
        ended && balance.states().len() == 1
    })
}

async fn ends_through<C, B>(config: &ServiceConfig, channel: C) -> bool
where
    C: Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + 'static,
    C::Error: Into<BoxError>,
    C::Future: Send,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let retry = RetrySettings::new(Default::default(), Methods::all_idempotent());
    let retry = retry.with_rng(Rng::seeded(1)).layer();
    let (deadline, limits) = (CallDeadlineLayer::new(), MessageLimitsLayer::new());
    config.apply_to(Client::new(&deadline, &retry).with_limits(&limits)).unwrap();
    let stack = ServiceBuilder::new().layer(limits).layer(deadline).layer(retry).service(channel);
    let request = http::Request::post("/a.B/C").body(Body::empty()).unwrap();
    timeout(AGES, stack.oneshot(request)).await.is_ok()
}

/// Puts each value at each pointer into a config that is valid without it.
fn at_each(pointers: &[&str], values: &[Value]) {
    for pointer in pointers {
        let (called, other) = if pointer.starts_with("/methodConfig/1") { (1, 0) } else { (0, 1) };
        let mut json = json!({
            "methodConfig": [{ "retryPolicy": retry() }, { "hedgingPolicy": hedging() }],
            "retryThrottling": { "maxTokens": 1000, "tokenRatio": 1 },
        });
        json["methodConfig"][called]["name"] = json!([{ "service": "a.B" }]);
        json["methodConfig"][other]["name"] = json!([{ "service": "a.C" }]);
        if pointer.contains("least_request") {
            json["loadBalancingConfig"] = json!([{ "least_request_experimental": {} }]);
        } else if pointer.contains("outlier_detection") {
            json["loadBalancingConfig"] = json!([{ "outlier_detection_experimental": {
                "successRateEjection": {}, "failurePercentageEjection": {},
                "childPolicy": [{ "weighted_round_robin": {} }] } }]);
        }
        for value in values {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            json.pointer_mut(parent).unwrap()[key] = value.clone();
            match parse(&json) {
                Ok(config) => assert!(ends(&config), "{json}"),
                Err(errors) => {
                    let paths: Vec<_> = errors.0.iter().map(|error| &*error.path).collect();
                    assert_eq!(paths, [path(pointer)], "{json}");
                }
            }
        }
    }
}

#[test]
fn a_duration_at_an_edge_is_refused_by_its_path_or_a_call_ends() {
    const WEIGHTED: &str =
        "/loadBalancingConfig/0/outlier_detection_experimental/childPolicy/0/weighted_round_robin";
    const OUTLIER: &str = "/loadBalancingConfig/0/outlier_detection_experimental";
    let fields = |at: &str, fields: &[&str]| {
        fields.iter().map(|field| format!("{at}/{field}")).collect::<Vec<_>>()
    };
    let pointers = [
        fields("/methodConfig/0", &["timeout"]),
        fields("/methodConfig/1", &["timeout", "hedgingPolicy/hedgingDelay"]),
        fields(
            "/methodConfig/0/retryPolicy",
            &["initialBackoff", "maxBackoff", "perAttemptRecvTimeout"],
        ),
        fields(OUTLIER, &["interval", "baseEjectionTime", "maxEjectionTime"]),
        fields(
            WEIGHTED,
            &[
                "blackoutPeriod",
                "weightExpirationPeriod",
                "weightUpdatePeriod",
                "oobReportingPeriod",
            ],
        ),
    ];
    let pointers = pointers.concat();
    let pointers: Vec<_> = pointers.iter().map(|pointer| &**pointer).collect();
    let texts = [
        "0s",
        "-0s",
        "0.000000001s",
        "0.999999999s",
        "1.000000001s",
        "0.0000000001s",
        "315576000000s",
        "315576000000.000000001s",
        "315576000001s",
        "18446744073709551615.999999999s",
        "18446744073709551616s",
        "-0.000000001s",
        "-1s",
        "-315576000000s",
        "NaNs",
        "NaN",
        "Infinity",
        "-Infinitys",
        "1e3s",
        "",
    ];
    let mut values = texts.map(Value::from).to_vec();
    values.extend([json!(0), json!(1), json!({ "seconds": 1 }), json!(1e300)]);
    at_each(&pointers, &values);
}

#[test]
fn a_number_at_an_edge_is_refused_by_its_path_or_a_call_ends() {
    const OUTLIER: &str = "/loadBalancingConfig/0/outlier_detection_experimental";
    let mut pointers: Vec<String> = [
        "/methodConfig/0/maxRequestMessageBytes",
        "/methodConfig/0/maxResponseMessageBytes",
        "/methodConfig/0/retryPolicy/maxAttempts",
        "/methodConfig/0/retryPolicy/backoffMultiplier",
        "/methodConfig/1/hedgingPolicy/maxAttempts",
        "/retryThrottling/maxTokens",
        "/retryThrottling/tokenRatio",
        "/loadBalancingConfig/0/least_request_experimental/choiceCount",
    ]
    .map(String::from)
    .to_vec();
    let penalty = "childPolicy/0/weighted_round_robin/errorUtilizationPenalty";
    pointers.extend([penalty, "maxEjectionPercent"].map(|field| format!("{OUTLIER}/{field}")));
    let counts = ["enforcementPercentage", "minimumHosts", "requestVolume"];
    for (kind, own) in
        [("successRateEjection", "stdevFactor"), ("failurePercentageEjection", "threshold")]
    {
        pointers.extend(counts.iter().chain([&own]).map(|it| format!("{OUTLIER}/{kind}/{it}")));
    }
    let pointers: Vec<_> = pointers.iter().map(|pointer| &**pointer).collect();
    let mut values: Vec<Value> =
        ["NaN", "Infinity", "-Infinity", "inf", "1e999", "-1", "0", ""].map(Value::from).to_vec();
    values.extend([0, 1, 2, 101, -1, i64::from(u32::MAX), 1 << 32, i64::MIN].map(Value::from));
    values.extend([-0.0, 5e-324, 0.0009, 0.5, 1e-300, 1e300, -1e300, f64::MAX].map(Value::from));
    values.extend([json!(u64::MAX), json!([]), json!(true)]);
    at_each(&pointers, &values);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn with_any_valid_config_a_call_ends(config in valid()) {
        prop_assert!(ends(&config), "{:?}", config);
    }
}
