//! Configs that are accepted or refused. The comments name the cases of other implementations that
//! a test covers.

use super::*;
use serde_json::{Value, json};
use std::time::Duration;
use tonic::Code;

mod edges;
mod fields;
mod properties;
mod warnings;

fn parse(json: &Value) -> Result<ServiceConfig, Errors> {
    ServiceConfig::parse(&json.to_string())
}

/// Each mistake of `json` as `path value rule`.
fn mistakes(json: &Value) -> Vec<(String, String, &'static str)> {
    let errors = parse(json).unwrap_err();
    errors.0.into_iter().map(|error| (error.path, error.value, error.rule)).collect()
}

/// `json` has one mistake, at `path`, where `rule` is broken.
#[track_caller]
fn refused(json: &Value, path: &str, rule: &str) {
    let found = mistakes(json);
    let [(place, _, broken)] = found.as_slice() else { panic!("{json}: {found:?}") };
    assert_eq!((&**place, *broken), (path, rule), "{json}");
}

/// A config of one entry, for `a.B`, with `key` set to `value`.
fn entry(key: &str, value: &Value) -> Value {
    json!({ "methodConfig": [{ "name": [{ "service": "a.B" }], key: value }] })
}

fn entry_of(config: &ServiceConfig) -> &MethodConfig {
    config.method("/a.B/C").unwrap()
}

fn retry() -> Value {
    json!({
        "maxAttempts": 3,
        "initialBackoff": "1s",
        "maxBackoff": "120s",
        "backoffMultiplier": 1.6,
        "retryableStatusCodes": ["ABORTED"],
    })
}

fn hedging() -> Value {
    json!({ "maxAttempts": 3, "hedgingDelay": "0.5s", "nonFatalStatusCodes": ["UNAVAILABLE"] })
}

fn throttling() -> Value {
    json!({ "maxTokens": 2, "tokenRatio": 1.0 })
}

fn with(mut object: Value, key: &str, value: Value) -> Value {
    object[key] = value;
    object
}

fn without(mut object: Value, key: &str) -> Value {
    object.as_object_mut().unwrap().remove(key).unwrap();
    object
}

fn parsed_retry(policy: &Value) -> RetryPolicy {
    let config = parse(&entry("retryPolicy", policy)).unwrap();
    match entry_of(&config).policy.clone() {
        Some(Policy::Retry(policy)) => policy,
        other => panic!("{other:?}"),
    }
}

fn parsed_hedging(policy: &Value) -> HedgingPolicy {
    let config = parse(&entry("hedgingPolicy", policy)).unwrap();
    match entry_of(&config).policy.clone() {
        Some(Policy::Hedging(policy)) => policy,
        other => panic!("{other:?}"),
    }
}

/// A retry policy, or a hedging policy, is refused for one of its fields, for each of `values`;
/// `json!(null)` is an absent one.
#[track_caller]
fn field_refused(kind: &str, key: &str, rule: &str, values: &[Value]) {
    let policy = if kind == "retryPolicy" { retry() } else { hedging() };
    for value in values {
        let config = entry(kind, &with(policy.clone(), key, value.clone()));
        refused(&config, &format!("methodConfig[0].{kind}.{key}"), rule);
    }
}

const ATTEMPTS: &str = "an integer of at least 2";
const ABOVE_0S: &str = "a duration above 0 such as \"0.1s\"";
const FROM_0S: &str = "a duration of 0 or more such as \"0.1s\"";
const CODE: &str = "a status code: 0 to 16, or a name such as \"UNAVAILABLE\"";
const MAX_TOKENS: &str = "a number of at least 0.001 and at most 1000";
const TOKEN_RATIO: &str = "a number of at least 0.001";

// === the text, and names ===

// C-core: JsonParseError.
// catalogue: CU-config-json-parse-error
#[test]
fn a_text_that_is_not_json_is_refused_by_line_and_column() {
    for (text, place) in [
        ("", "line 1 column 0"),
        ("{\n  \"methodConfig\" [] }", "line 2 column 18"),
        ("{} {}", "line 1 column 4"),
        ("{\"timeout\": 1e999}", "line 1 column 17"),
    ] {
        let errors = ServiceConfig::parse(text).unwrap_err();
        let [error] = errors.as_slice() else { panic!("{errors}") };
        assert_eq!((&*error.path, error.rule), ("", "JSON"), "{text}");
        assert!(error.value.ends_with(place), "{text}: {error}");
        assert!(error.to_string().starts_with("service config: must be JSON, not a text"));
    }
}

#[test]
fn json_of_any_depth_is_refused_and_not_a_stack_overflow() {
    for open in ["[", "{\"methodConfig\":", "{\"methodConfig\":["] {
        let error = ServiceConfig::parse(&open.repeat(200_000)).unwrap_err();
        assert!(error.to_string().contains("recursion limit exceeded"), "{error}");
    }
}

// C-core: EmptyConfig.
// catalogue: CU-config-empty
#[test]
fn an_empty_config_sets_nothing() {
    for json in [
        json!({}),
        json!({ "methodConfig": [] }),
        json!({ "methodConfig": null, "retryThrottling": null }),
    ] {
        assert_eq!(parse(&json).unwrap(), ServiceConfig::default());
    }
    assert_eq!(ServiceConfig::default().method("/a.B/C"), None);
}

#[test]
fn a_value_of_the_wrong_type_is_reported_at_any_place() {
    refused(&json!([]), "", "an object");
    refused(&json!(null), "", "an object");
    refused(&json!({ "methodConfig": {} }), "methodConfig", "a list");
    refused(&json!({ "methodConfig": [null] }), "methodConfig[0]", "an object");
    refused(&json!({ "methodConfig": [{}, "x"] }), "methodConfig[1]", "an object");
    refused(&json!({ "methodConfig": [{ "name": {} }] }), "methodConfig[0].name", "a list");
    let name = |name| json!({ "methodConfig": [{ "name": [name] }] });
    refused(&name(json!(null)), "methodConfig[0].name[0]", "an object");
    refused(&name(json!("a.B")), "methodConfig[0].name[0]", "an object");
    refused(&name(json!({ "service": 1 })), "methodConfig[0].name[0].service", "a string");
    let method = json!({ "service": "a.B", "method": ["C"] });
    refused(&name(method), "methodConfig[0].name[0].method", "a string");
    refused(&json!({ "retryThrottling": [] }), "retryThrottling", "an object");
}

// C-core: SkipMethodConfigWithNoNameOrEmptyName.
// catalogue: CU-config-skips-no-name
#[test]
fn an_entry_without_names_is_skipped_but_checked() {
    for names in [json!([]), json!(null)] {
        let nameless = json!({ "name": names, "timeout": "1s" });
        let config = json!({ "methodConfig": [nameless, { "name": [{}], "timeout": "2s" }] });
        let config = parse(&config).unwrap();
        assert_eq!(config.methods.len(), 1);
        assert_eq!(entry_of(&config).timeout, Some(Duration::from_secs(2)));
        let config = json!({ "methodConfig": [{ "name": names, "timeout": "1" }] });
        refused(&config, "methodConfig[0].timeout", FROM_0S);
    }
    refused(&json!({ "methodConfig": [{ "timeout": 1 }] }), "methodConfig[0].timeout", FROM_0S);
}

// C-core: duplicate names, six cases, with null and "" for a method and for a service.
// grpc-java ManagedChannelServiceConfigTest: duplicate method, duplicate service, across configs.
// catalogue: CU-config-names, JV-config-names
#[test]
fn a_name_stands_once_in_a_config_however_it_is_written() {
    const RULE: &str = "a name that is nowhere else in the config";
    let services = [
        json!({ "service": "a.B" }),
        json!({ "service": "a.B", "method": null }),
        json!({ "service": "a.B", "method": "" }),
    ];
    let defaults = [
        json!({}),
        json!({ "service": null }),
        json!({ "service": "" }),
        json!({ "service": "", "method": "" }),
        json!({ "service": null, "method": null }),
    ];
    let methods = [json!({ "service": "a.B", "method": "C" })];
    for names in [&services[..], &defaults[..], &methods[..]] {
        for (first, second) in names.iter().flat_map(|a| names.iter().map(move |b| (a, b))) {
            let within = json!({ "methodConfig": [{ "name": [first, second] }] });
            refused(&within, "methodConfig[0].name[1]", RULE);
            let across = json!({ "methodConfig": [{ "name": [first] }, { "name": [second] }] });
            refused(&across, "methodConfig[1].name[0]", RULE);
        }
    }
    let all = json!({ "methodConfig": [{ "name": [services[1], defaults[2], methods[0]] }] });
    assert_eq!(parse(&all).unwrap().methods[0].names.len(), 3);
}

// grpc-java ManagedChannelServiceConfigTest: method with empty service, method with missing
// service; "missing service name" is the default there as well.
#[test]
fn a_method_needs_its_service() {
    for name in [
        json!({ "method": "C" }),
        json!({ "service": "", "method": "C" }),
        json!({ "service": null, "method": "C" }),
    ] {
        let config = json!({ "methodConfig": [{ "name": [name] }] });
        let rule = "the service of the method that is named";
        refused(&config, "methodConfig[0].name[0].service", rule);
    }
}

// C-core: valid names and parser scoping; grpc-java: default selector.
// catalogue: CU-config-scoping, JV-config-default-selector
#[test]
fn a_method_has_its_own_entry_else_that_of_its_service_else_the_default() {
    let config = json!({ "methodConfig": [
        { "name": [{}], "timeout": "1s", "waitForReady": true },
        { "name": [{ "service": "a.B" }, { "service": "c.D" }], "timeout": "2s" },
        { "name": [{ "service": "a.B", "method": "C" }], "timeout": "3s" },
        { "name": [{ "service": "e.F", "method": "C" }], "timeout": "4s" },
    ] });
    let config = parse(&config).unwrap();
    for (path, seconds) in [
        ("/a.B/C", 3),
        ("/a.B/D", 2),
        ("/a.B/", 2),
        ("/c.D/C", 2),
        ("/e.F/C", 4),
        ("/e.F/D", 1),
        ("/a.BB/C", 1),
        ("/B/C", 1),
        ("//C", 1),
        ("a.B/C", 1),
        ("/a.B", 1),
        ("/", 1),
        ("", 1),
    ] {
        let found = config.method(path).unwrap();
        assert_eq!(found.timeout, Some(Duration::from_secs(seconds)), "{path}");
        assert_eq!(found.wait_for_ready, (seconds == 1).then_some(true), "nothing is merged");
    }
}

// === methodConfig ===

// C-core: ValidTimeout, ValidWaitForReady. grpc-js reads "0.5s" as 5 ns.
// catalogue: CU-config-timeout-and-wait-for-ready, D16, X-timeouts-with-fractions
#[test]
fn the_settings_of_an_entry_are_read() {
    let config = json!({ "methodConfig": [{
        "name": [{ "service": "a.B", "method": "C" }],
        "timeout": "0.5s",
        "waitForReady": false,
        "maxRequestMessageBytes": 0,
        "maxResponseMessageBytes": "4294967295",
    }] });
    let name = Name { service: "a.B".into(), method: "C".into() };
    let expected = MethodConfig {
        timeout: Some(Duration::from_millis(500)),
        wait_for_ready: Some(false),
        max_request_message_bytes: Some(0),
        max_response_message_bytes: Some(u32::MAX),
        policy: None,
    };
    let methods = vec![MethodEntry { index: 0, names: vec![name], config: expected }];
    assert_eq!(parse(&config).unwrap().methods, methods);
    let exact = parse(&entry("timeout", &json!("1.000000001s"))).unwrap();
    assert_eq!(entry_of(&exact).timeout, Some(Duration::new(1, 1)));
    let none = parse(&entry("timeout", &json!("0s"))).unwrap();
    assert_eq!(entry_of(&none).timeout, Some(Duration::ZERO), "no rule says above 0");
}

// C-core: InvalidTimeout, InvalidWaitForReady.
// catalogue: CU-config-timeout-and-wait-for-ready
#[test]
fn the_settings_of_an_entry_are_checked() {
    for value in [json!("1sec"), json!(1), json!("-1s"), json!("315576000001s"), json!({})] {
        refused(&entry("timeout", &value), "methodConfig[0].timeout", FROM_0S);
    }
    for value in [json!("true"), json!(1), json!([])] {
        refused(&entry("waitForReady", &value), "methodConfig[0].waitForReady", "true or false");
    }
    for key in ["maxRequestMessageBytes", "maxResponseMessageBytes"] {
        for value in [json!(-1), json!(0.5), json!(4_294_967_296_u64), json!("x"), json!(true)] {
            let rule = "an integer from 0 to 4294967295";
            refused(&entry(key, &value), &format!("methodConfig[0].{key}"), rule);
        }
    }
}

#[test]
fn a_field_that_is_null_is_absent() {
    let config = json!({ "methodConfig": [{
        "name": [{ "service": "a.B", "method": null }],
        "timeout": null,
        "waitForReady": null,
        "maxRequestMessageBytes": null,
        "maxResponseMessageBytes": null,
        "retryPolicy": null,
        "hedgingPolicy": { "maxAttempts": 2, "hedgingDelay": null, "nonFatalStatusCodes": null },
    }], "retryThrottling": null });
    let policy = HedgingPolicy {
        max_attempts: 2,
        hedging_delay: Duration::ZERO,
        non_fatal_status_codes: Vec::new(),
    };
    let expected = MethodConfig { policy: Some(Policy::Hedging(policy)), ..Default::default() };
    assert_eq!(entry_of(&parse(&config).unwrap()), &expected);
}

// grpc-js refuses the pair too; grpc-java then throws on every call.
// catalogue: D10, X-both-policies
#[test]
fn an_entry_with_both_policies_is_refused() {
    let mut config = entry("retryPolicy", &retry());
    config["methodConfig"][0]["hedgingPolicy"] = hedging();
    refused(&config, "methodConfig[0].hedgingPolicy", "absent beside a retryPolicy");
}

// === retryPolicy ===

// C-core: ValidRetryPolicy. grpc-js: accept valid. grpc-go TestParseRetryPolicy: valid.
// catalogue: CU-config-valid-retry-policy, JS-config-valid, GO25
#[test]
fn a_retry_policy_is_read() {
    let expected = RetryPolicy {
        max_attempts: 3,
        initial_backoff: Duration::from_secs(1),
        max_backoff: Duration::from_secs(120),
        backoff_multiplier: 1.6,
        retryable_status_codes: vec![Code::Aborted],
        per_attempt_recv_timeout: None,
    };
    assert_eq!(parsed_retry(&retry()), expected);
}

// grpc-java RetryPolicyTest clamps the attempts; here `apply` does.
#[test]
fn values_that_no_rule_forbids_are_kept_as_written() {
    let policy = parsed_retry(&json!({
        "maxAttempts": 1000,
        "initialBackoff": "0.000000001s",
        "maxBackoff": "315576000000s",
        "backoffMultiplier": "0.5",
        "retryableStatusCodes": ["UNAVAILABLE", 14, "OK"],
    }));
    assert_eq!(policy.max_attempts, 1000);
    assert_eq!(policy.initial_backoff, Duration::from_nanos(1));
    assert_eq!(policy.backoff_multiplier, 0.5);
    let codes = [Code::Unavailable, Code::Unavailable, Code::Ok];
    assert_eq!(policy.retryable_status_codes, codes);
    let policy = with(with(retry(), "initialBackoff", json!("9s")), "maxBackoff", json!("1s"));
    assert!(parsed_retry(&policy).max_backoff < parsed_retry(&policy).initial_backoff);
}

// C-core: InvalidRetryPolicyWrongType.
// catalogue: CU-config-invalid-retry-policy
#[test]
fn a_policy_is_an_object() {
    for kind in ["retryPolicy", "hedgingPolicy"] {
        for value in [json!(5), json!([retry()]), json!("x"), json!(true)] {
            refused(&entry(kind, &value), &format!("methodConfig[0].{kind}"), "an object");
        }
    }
}

// C-core: InvalidRetryPolicyRequiredFieldsMissing. grpc-js: reject omitted maxAttempts,
// initialBackoff, maxBackoff, multiplier, codes. grpc-go: missing maxAttempts, no codes.
// catalogue: CU-config-invalid-retry-policy, JS-config-retry-rejects
// catalogue: JV-policy-get-retry-policies
#[test]
fn a_retry_policy_needs_its_five_fields() {
    let expected =
        |key: &str, rule| (format!("methodConfig[0].retryPolicy.{key}"), "absent".to_owned(), rule);
    let all = [
        expected("maxAttempts", ATTEMPTS),
        expected("initialBackoff", ABOVE_0S),
        expected("maxBackoff", ABOVE_0S),
        expected("backoffMultiplier", "a number above 0"),
        expected("retryableStatusCodes", "a list of at least one status code"),
    ];
    assert_eq!(mistakes(&entry("retryPolicy", &json!({}))), all);
    for missing in all {
        let key = missing.0.rsplit_once('.').unwrap().1.to_owned();
        assert_eq!(mistakes(&entry("retryPolicy", &without(retry(), &key))), [missing]);
    }
}

// C-core: InvalidRetryPolicyMaxAttemptsWrongType, …BadValue. grpc-js: low maxAttempts, for retries
// and for hedging. grpc-go: negative maxAttempts.
// catalogue: CU-config-invalid-retry-policy, JS-config-retry-rejects, GO25
#[test]
fn max_attempts_are_two_or_more() {
    let low = [json!(1), json!(0), json!(-3), json!("1"), json!(1.0)];
    let not_whole = [json!(2.5), json!("2.5"), json!("FOO"), json!(""), json!([]), json!(true)];
    let huge = [json!(4_294_967_296_u64), json!(u64::MAX), json!(1e300), json!("1e30")];
    for kind in ["retryPolicy", "hedgingPolicy"] {
        field_refused(kind, "maxAttempts", ATTEMPTS, &low);
        field_refused(kind, "maxAttempts", ATTEMPTS, &not_whole);
        field_refused(kind, "maxAttempts", "an integer of at most 4294967295", &huge);
    }
    for (value, attempts) in [
        (json!(2), 2),
        (json!(3.0), 3),
        (json!("4"), 4),
        (json!("5.0"), 5),
        (json!(1e3), 1000),
        (json!(u32::MAX), u32::MAX),
    ] {
        let policy = with(retry(), "maxAttempts", value.clone());
        assert_eq!(parsed_retry(&policy).max_attempts, attempts);
        let policy = with(hedging(), "maxAttempts", value);
        assert_eq!(parsed_hedging(&policy).max_attempts, attempts);
    }
}

// C-core: InvalidRetryPolicyInitialBackoffWrongType, …BadValue, MaxBackoffWrongType, …BadValue.
// grpc-js: non-numeric and no-`s` initialBackoff and maxBackoff. grpc-go: zero of either.
// catalogue: CU-config-invalid-retry-policy, JS-config-retry-rejects
#[test]
fn backoffs_are_durations_above_0() {
    let wrong = [json!(1), json!(1.5), json!([]), json!({ "seconds": 1 }), json!(true)];
    let bad = ["", "1", "abcs", "10", "0s", "0.000000000s", "-0s", "-1s", ".01s", "1ms"];
    let bad = bad.map(Value::from);
    for key in ["initialBackoff", "maxBackoff"] {
        field_refused("retryPolicy", key, ABOVE_0S, &wrong);
        field_refused("retryPolicy", key, ABOVE_0S, &bad);
    }
}

// C-core: InvalidRetryPolicyBackoffMultiplierWrongType, …BadValue. grpc-js: negative multiplier.
// grpc-go: zero multiplier.
// catalogue: CU-config-invalid-retry-policy
#[test]
fn the_multiplier_is_a_number_above_0() {
    let wrong = [json!([]), json!("x"), json!(""), json!("NaN"), json!("Infinity"), json!(true)];
    let bad = [json!(0), json!(0.0), json!(-0.0), json!(-1), json!("-1.5")];
    field_refused("retryPolicy", "backoffMultiplier", "a number above 0", &wrong);
    field_refused("retryPolicy", "backoffMultiplier", "a number above 0", &bad);
    for value in [json!(2), json!(2.0), json!("2")] {
        let policy = parsed_retry(&with(retry(), "backoffMultiplier", value));
        assert_eq!(policy.backoff_multiplier, 2.0);
    }
}

// C-core: InvalidRetryPolicyEmptyRetryableStatusCodes, RetryableStatusCodesWrongType,
// …ElementsWrongType, UnparsableRetryableStatusCodes. grpc-js: empty codes, unknown name,
// out-of-range number; bad codes ×2 of hedging.
// catalogue: CU-config-invalid-retry-policy
#[test]
fn status_codes_are_a_list_of_known_codes() {
    let empty = "a list of at least one status code";
    field_refused("retryPolicy", "retryableStatusCodes", empty, &[json!([]), json!(null)]);
    let not_a_list = [json!(0), json!("ABORTED"), json!({})];
    let unknown = [
        json!(true),
        json!([]),
        json!(null),
        json!({}),
        json!("FOO"),
        json!(""),
        json!("14"),
        json!("deadline-exceeded"),
        json!(" ABORTED"),
        json!(17),
        json!(-1),
        json!(14.5),
        json!(300),
        json!(1e300),
    ];
    for (kind, key) in
        [("retryPolicy", "retryableStatusCodes"), ("hedgingPolicy", "nonFatalStatusCodes")]
    {
        field_refused(kind, key, "a list", &not_a_list);
        for code in &unknown {
            let policy = if kind == "retryPolicy" { retry() } else { hedging() };
            let config = entry(kind, &with(policy, key, json!(["ABORTED", code])));
            refused(&config, &format!("methodConfig[0].{kind}.{key}[1]"), CODE);
        }
    }
}

// catalogue: D08, X-integer-and-lower-case-codes
#[test]
fn a_status_code_is_its_integer_or_its_name_in_any_case() {
    for code in cinchona_plumbing::code::all() {
        let name = cinchona_plumbing::code::name(code);
        let number = code as i32;
        let codes = json!([name, name.to_lowercase(), number, f64::from(number)]);
        let policy = parsed_retry(&with(retry(), "retryableStatusCodes", codes.clone()));
        assert_eq!(policy.retryable_status_codes, [code; 4]);
        let policy = parsed_hedging(&with(hedging(), "nonFatalStatusCodes", codes));
        assert_eq!(policy.non_fatal_status_codes, [code; 4]);
    }
}

// C-core: ValidRetryPolicyWithPerAttemptRecvTimeout, …AndUnsetRetryableStatusCodes. That it is
// IgnoredWhenHedgingDisabled is for `apply` to decide.
// grpc-java ManagedChannelServiceConfigTest: per-attempt timeout ×4.
// catalogue: CU-config-per-attempt-timeout
#[test]
fn a_per_attempt_timeout_may_stand_instead_of_status_codes() {
    let timed = with(retry(), "perAttemptRecvTimeout", json!("1.5s"));
    let policy = parsed_retry(&timed);
    assert_eq!(policy.per_attempt_recv_timeout, Some(Duration::from_millis(1500)));
    assert_eq!(policy.retryable_status_codes, [Code::Aborted]);
    for policy in [
        without(timed.clone(), "retryableStatusCodes"),
        with(timed.clone(), "retryableStatusCodes", json!([])),
        with(timed, "retryableStatusCodes", json!(null)),
    ] {
        assert_eq!(parsed_retry(&policy).retryable_status_codes, []);
    }
}

// C-core: InvalidRetryPolicyPerAttemptRecvTimeoutUnparsable, …WrongType, …BadValue.
// catalogue: CU-config-per-attempt-timeout
#[test]
fn a_per_attempt_timeout_is_a_duration_above_0() {
    let wrong = [json!("1sec"), json!(1), json!([]), json!("0s"), json!("-1s")];
    field_refused("retryPolicy", "perAttemptRecvTimeout", ABOVE_0S, &wrong);
}

// === hedgingPolicy ===

// grpc-js: hedging, accept ×n. grpc-java HedgingPolicyTest wants a delay, against gRFC A6.
// catalogue: JS-config-hedging-accepts, JV-policy-get-hedging-policies, X-hedge-delay-absent
#[test]
fn a_hedging_policy_needs_only_its_attempts() {
    let expected = HedgingPolicy {
        max_attempts: 3,
        hedging_delay: Duration::from_millis(500),
        non_fatal_status_codes: vec![Code::Unavailable],
    };
    assert_eq!(parsed_hedging(&hedging()), expected);
    let at_once = HedgingPolicy { hedging_delay: Duration::ZERO, ..expected.clone() };
    assert_eq!(parsed_hedging(&without(hedging(), "hedgingDelay")), at_once);
    assert_eq!(parsed_hedging(&with(hedging(), "hedgingDelay", json!("0s"))), at_once);
    let all_fatal = HedgingPolicy { non_fatal_status_codes: Vec::new(), ..expected };
    assert_eq!(parsed_hedging(&without(hedging(), "nonFatalStatusCodes")), all_fatal);
    assert_eq!(parsed_hedging(&with(hedging(), "nonFatalStatusCodes", json!([]))), all_fatal);
}

// grpc-js: hedging, reject omitted maxAttempts, bad delay ×2.
// catalogue: JS-config-hedging-rejects
#[test]
fn a_hedging_policy_is_checked() {
    field_refused("hedgingPolicy", "maxAttempts", ATTEMPTS, &[json!(null)]);
    let config = entry("hedgingPolicy", &without(hedging(), "maxAttempts"));
    refused(&config, "methodConfig[0].hedgingPolicy.maxAttempts", ATTEMPTS);
    let delays = [json!("abcs"), json!("10"), json!("-1s"), json!(10), json!({})];
    field_refused("hedgingPolicy", "hedgingDelay", FROM_0S, &delays);
}

// === retryThrottling ===

// C-core: ValidRetryThrottling. grpc-java RetryPolicyTest: getThrottle. An integer tokenRatio
// counts as 0.001 in C-core.
// catalogue: CU-config-throttling, JV-policy-get-throttle, D05
#[test]
fn throttling_is_read_in_thousandths_and_finer_digits_are_cut_off() {
    for (tokens, ratio, max_tokens, token_ratio) in [
        (json!(2), json!(1.0), 2000, 1000),
        (json!(2), json!(1), 2000, 1000),
        (json!("2"), json!("0.1"), 2000, 100),
        (json!(1000), json!(0.5466), 1_000_000, 546),
        (json!(999.9999), json!(1.001), 999_999, 1001),
        (json!(0.001), json!(0.001), 1, 1),
        (json!(10), json!(1e12), 10_000, u32::MAX),
    ] {
        let throttling = json!({ "maxTokens": tokens, "tokenRatio": ratio });
        let config = parse(&json!({ "retryThrottling": throttling })).unwrap();
        let expected = RetryThrottling { max_tokens, token_ratio };
        assert_eq!(config.retry_throttling, Some(expected), "{throttling}");
    }
}

// C-core: RetryThrottlingMissingFields. grpc-js: omitted maxTokens, omitted tokenRatio.
// catalogue: CU-config-throttling, JS-config-throttling-rejects
#[test]
fn throttling_needs_both_fields() {
    let max_tokens = ("retryThrottling.maxTokens".to_owned(), "absent".to_owned(), MAX_TOKENS);
    let token_ratio = ("retryThrottling.tokenRatio".to_owned(), "absent".to_owned(), TOKEN_RATIO);
    let found = |throttling| mistakes(&json!({ "retryThrottling": throttling }));
    assert_eq!(found(json!({})), [max_tokens.clone(), token_ratio.clone()]);
    assert_eq!(found(without(throttling(), "maxTokens")), [max_tokens]);
    assert_eq!(found(without(throttling(), "tokenRatio")), [token_ratio]);
}

// C-core: InvalidRetryThrottlingNegativeMaxTokens, InvalidRetryThrottlingInvalidTokenRatio.
// grpc-js: large maxTokens, zero maxTokens, zero tokenRatio.
// catalogue: CU-config-throttling
#[test]
fn throttling_is_checked() {
    for value in [json!(-2), json!(0), json!(0.0009), json!(1000.001), json!(1001), json!("x")] {
        let config = json!({ "retryThrottling": with(throttling(), "maxTokens", value) });
        refused(&config, "retryThrottling.maxTokens", MAX_TOKENS);
    }
    for value in [json!(-1), json!(0), json!(0.0009), json!([]), json!("x"), json!(true)] {
        let config = json!({ "retryThrottling": with(throttling(), "tokenRatio", value) });
        refused(&config, "retryThrottling.tokenRatio", TOKEN_RATIO);
    }
}

// === errors ===

#[test]
fn every_mistake_is_reported_with_its_place_its_value_and_its_rule() {
    let config = json!({ "methodConfig": [
        { "name": [{}, { "service": "" }], "timeout": "1" },
        { "name": [{ "method": "C" }], "retryPolicy": with(retry(), "maxAttempts", json!(1)),
          "hedgingPolicy": { "nonFatalStatusCodes": [14, "FOO"] } },
    ], "retryThrottling": { "maxTokens": 1001 } });
    let errors = parse(&config).unwrap_err();
    let expected = [
        "methodConfig[0].name[1]: must be a name that is nowhere else in the config, \
         not {\"service\":\"\"}",
        "methodConfig[0].timeout: must be a duration of 0 or more such as \"0.1s\", not \"1\"",
        "methodConfig[1].name[0].service: must be the service of the method that is named, \
         not absent",
        "methodConfig[1].hedgingPolicy: must be absent beside a retryPolicy, \
         not {\"nonFatalStatusCodes\":[14,\"FOO\"]}",
        "methodConfig[1].retryPolicy.maxAttempts: must be an integer of at least 2, not 1",
        "methodConfig[1].hedgingPolicy.maxAttempts: must be an integer of at least 2, not absent",
        "methodConfig[1].hedgingPolicy.nonFatalStatusCodes[1]: must be a status code: 0 to 16, \
         or a name such as \"UNAVAILABLE\", not \"FOO\"",
        "retryThrottling.maxTokens: must be a number of at least 0.001 and at most 1000, not 1001",
        "retryThrottling.tokenRatio: must be a number of at least 0.001, not absent",
    ];
    assert_eq!(errors.to_string().lines().collect::<Vec<_>>(), expected);
    assert_eq!(errors.as_slice().len(), expected.len());
    let attempts = Error {
        path: "methodConfig[1].retryPolicy.maxAttempts".into(),
        value: "1".into(),
        rule: ATTEMPTS,
    };
    assert_eq!(errors.as_slice()[4], attempts);
}

#[test]
fn a_long_value_is_cut_and_stays_on_its_line() {
    let config = entry("timeout", &json!("ü\n".repeat(1000)));
    let errors = parse(&config).unwrap_err();
    assert_eq!(errors.as_slice()[0].value.chars().count(), 81);
    assert!(errors.as_slice()[0].value.ends_with('…'));
    assert_eq!(errors.to_string().lines().count(), 1);
}
