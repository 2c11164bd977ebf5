//! The warnings and their texts.

use super::*;
use crate::{Client, MessageLimitsLayer};
use cinchona_core::Methods;
use cinchona_deadline::CallDeadlineLayer;
use cinchona_retry::RetryLayer;
use cinchona_testkit::Logs;
use prost::Message;
use prost_types::{
    FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto, MethodOptions,
    ServiceDescriptorProto, method_options::IdempotencyLevel,
};

/// `money.Bank` with `Balance`, which is safe, and `Withdraw` and `Deposit`; `money.Mint`.
fn bank() -> Methods {
    let method = |name: &str| {
        let level = (name == "Balance").then_some(IdempotencyLevel::NoSideEffects.into());
        let options = MethodOptions { idempotency_level: level, ..Default::default() };
        let (name, options) = (Some(name.to_owned()), Some(options));
        MethodDescriptorProto { name, options, ..Default::default() }
    };
    let service = |name: &str, methods: &[&str]| ServiceDescriptorProto {
        name: Some(name.to_owned()),
        method: methods.iter().map(|name| method(name)).collect(),
        ..Default::default()
    };
    let file = FileDescriptorProto {
        package: Some("money".into()),
        service: vec![
            service("Bank", &["Balance", "Withdraw", "Deposit"]),
            service("Mint", &["Balance"]),
        ],
        ..Default::default()
    };
    let encoded = FileDescriptorSet { file: vec![file] }.encode_to_vec();
    Methods::from_file_descriptor_set(&encoded).unwrap()
}

fn layers(methods: Methods) -> (CallDeadlineLayer, RetryLayer) {
    (CallDeadlineLayer::new(), RetryLayer::new(Default::default(), methods))
}

/// The warnings of `json` in a client that knows `methods`.
fn found(json: &Value, methods: Methods) -> Vec<String> {
    let (deadline, retry) = layers(methods);
    let limits = MessageLimitsLayer::new();
    let client = Client::new(&deadline, &retry).with_limits(&limits);
    let warnings = parse(json).unwrap().apply_to(client).unwrap();
    warnings.iter().map(ToString::to_string).collect()
}

fn retries(names: Value) -> Value {
    json!({ "methodConfig": [{ "name": names, "retryPolicy": retry() }] })
}

#[test]
fn each_field_without_an_effect_is_reported_by_its_path_and_the_remedy() {
    let retried = |key, value| entry("retryPolicy", &with(retry(), key, value));
    let balancing = |policies| json!({ "loadBalancingConfig": policies });
    let weighted =
        |key: &str, value: Value| balancing(json!([{ "weighted_round_robin": { key: value } }]));
    for (json, expected) in [
        (
            entry("timeuot", &json!("1s")),
            "methodConfig[0].timeuot: is unknown, and ignored as in \
          gRPC; timeout is the field that is known",
        ),
        (
            entry("retry_policy", &json!({})),
            "methodConfig[0].retry_policy: is unknown, and ignored \
          as in gRPC; retryPolicy is the field that is known",
        ),
        (json!({ "serviceConfig": {} }), "serviceConfig: is unknown, and ignored as in gRPC"),
        (json!({ "a\n.b": {} }), "\"a\\n.b\": is unknown, and ignored as in gRPC"),
        (
            retried("perAttemptRecvTimeout", json!("1s")),
            "methodConfig[0].retryPolicy\
          .perAttemptRecvTimeout: is not honoured: put an AttemptTimeoutLayer inside the retries",
        ),
        (
            retried("retryableStatusCodes", json!([14, "ok"])),
            "methodConfig[0].retryPolicy\
          .retryableStatusCodes[1]: has no effect: OK is no failure",
        ),
        (
            retried("maxAttempts", json!(9)),
            "methodConfig[0].retryPolicy.maxAttempts: is cut to 5, \
          the most that this client makes",
        ),
        (
            entry("maxResponseMessageBytes", &json!(4194305)),
            "methodConfig[0]\
          .maxResponseMessageBytes: acts above 4194304 only in a client that was made with \
          max_decoding_message_size: without it tonic receives no larger message",
        ),
        (
            json!({ "methodConfig": [{ "timeout": "1s" }] }),
            "methodConfig[0]: is for no method, as \
          it has no name: skipped as in gRPC",
        ),
        (
            json!({ "connectionScaling": { "maxConnectionsPerSubchannel": 3 } }),
            "connectionScaling\
          .maxConnectionsPerSubchannel: is not honoured: the balancer has one connection to each \
          endpoint",
        ),
        (
            balancing(json!([{ "grpclb": {} }, { "round_robin": {} }])),
            "loadBalancingConfig[0]\
          .grpclb: is not supported, and skipped: round_robin is used",
        ),
        (
            balancing(json!([{ "least_request_experimental": { "choiceCount": 5 } }])),
            "loadBalancingConfig[0].least_request_experimental.choiceCount: is not honoured: the \
          better of 2 endpoints is picked",
        ),
        (
            weighted("enableOobLoadReport", json!(true)),
            "loadBalancingConfig[0]\
          .weighted_round_robin.enableOobLoadReport: is not honoured: the balancer reads the \
          reports that come with answers",
        ),
        (
            weighted("weightUpdatePeriod", json!("0.01s")),
            "loadBalancingConfig[0]\
          .weighted_round_robin.weightUpdatePeriod: is raised to 0.1s (gRFC A58)",
        ),
    ] {
        let (deadline, retry) = layers(Methods::all_idempotent());
        let config = parse(&json).unwrap();
        config.balance(Default::default());
        let limits = MessageLimitsLayer::new();
        let client = Client::new(&deadline, &retry).with_limits(&limits);
        let warnings = config.apply_to(client).unwrap();
        assert_eq!(warnings.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
    }
    let quick = json!({ "interval": "0.001s", "childPolicy": [{ "round_robin": {} }] });
    let quick = parse(&balancing(json!([{ "outlier_detection_experimental": quick }]))).unwrap();
    assert_eq!(quick.outlier_detection.as_ref().unwrap().interval, Duration::from_millis(10));
    assert!(quick.warnings()[0].text.starts_with("is raised to 0.01s"));
    let mut both = balancing(json!([{ "round_robin": {} }]));
    both["loadBalancingPolicy"] = json!("pick_first");
    assert_eq!(parse(&both).unwrap().warnings()[0].path, "loadBalancingPolicy");
    for policy in ["round_robin", "pick_first", "weighted_round_robin"] {
        let config = parse(&balancing(json!([{ policy: {} }, { "xds": 3 }]))).unwrap();
        assert_eq!(config.warnings(), [], "what follows the first known is for others: {policy}");
    }
}

#[test]
fn a_key_that_occurs_twice_is_reported() {
    let config = r#"{ "methodConfig": [{ "name": [{}], "timeout": "1s", "timeout": "2s" }] }"#;
    let config = ServiceConfig::parse(config).unwrap();
    assert_eq!(entry_of(&config).timeout, Some(Duration::from_secs(2)));
    let expected = "methodConfig[0].timeout: stands here twice: the last one counts";
    assert_eq!(config.warnings()[0].to_string(), expected);
}

#[test]
fn a_name_that_is_in_no_descriptor_is_named_with_the_nearest() {
    let known = json!([
        { "service": "money.Bank" },
        { "service": "money.Mint", "method": "Balance" },
        {},
        { "service": "grpc.health.v1.Health", "method": "Check" },
    ]);
    for (name, unknown, nearest) in [
        (json!({ "service": "money.Bnak" }), "/money.Bnak/", "/money.Bank/"),
        (json!({ "service": "Bank" }), "/Bank/", "/money.Bank/"),
        (json!({ "service": "/money.Bank" }), "//money.Bank/", "/money.Bank/"),
        (
            json!({ "service": "money.Bank", "method": "balance" }),
            "/money.Bank/balance",
            "/money.Bank/Balance",
        ),
        (
            json!({ "service": "money.Mind", "method": "Withdraw" }),
            "/money.Mind/Withdraw",
            "/money.Mint/Balance",
        ),
        (json!({ "service": "a\nb" }), "/a\\nb/", "/money.Bank/"),
    ] {
        let mut names = known.clone();
        names.as_array_mut().unwrap().push(name);
        let json = json!({ "methodConfig": [{}, { "name": names, "timeout": "1s" }] });
        let expected = format!(
            "methodConfig[1].name[4]: names no method of the descriptor set: {unknown} is unknown, \
             the nearest that is known is {nearest}"
        );
        assert_eq!(found(&json, bank())[1..], [expected]);
        assert_eq!(found(&json, Methods::unknown()).len(), 1, "any name may exist");
        assert_eq!(found(&json, Methods::all_idempotent()).len(), 1, "any name may exist");
    }
}

// catalogue: S-D3
#[test]
fn methods_that_are_listed_and_may_not_be_executed_twice_are_named() {
    let expected = |methods| {
        format!(
            "methodConfig[0].retryPolicy: does not act after a failure that leaves open whether \
             {methods} was executed, as nothing says that it may be executed twice: put `option \
             idempotency_level` into the .proto, send an idempotency-key, or tell `Methods`"
        )
    };
    let both = expected("/money.Bank/Deposit, /money.Bank/Withdraw");
    let one = expected("/money.Bank/Withdraw");
    assert_eq!(found(&retries(json!([{ "service": "money.Bank" }])), bank()), [both]);
    let withdraw = json!([{ "service": "money.Bank", "method": "Withdraw" }]);
    assert_eq!(found(&retries(withdraw), bank()), [one]);
    for safe in [
        json!([{ "service": "money.Bank", "method": "Balance" }, { "service": "money.Mint" }]),
        json!([{ "service": "grpc.health.v1.Health" }]),
    ] {
        assert_eq!(found(&retries(safe), bank()), [""; 0]);
    }
    // An entry of their own, without retries.
    let mut json = retries(json!([{}, { "service": "money.Bank", "method": "Withdraw" }]));
    let own = json!({ "name": [{ "service": "money.Bank" }], "timeout": "1s" });
    json["methodConfig"].as_array_mut().unwrap().push(own);
    assert_eq!(found(&json, bank()), [expected("/money.Bank/Withdraw")]);
    assert_eq!(found(&json, Methods::all_idempotent()), [""; 0]);
}

#[test]
fn one_warning_reports_that_no_method_is_known() {
    let expected = ["methodConfig: retries and hedges only what provably was not processed, as \
        nothing is known of any method: use `Methods::from_file_descriptor_set`, or \
        `Methods::all_idempotent` where every method may be executed twice, as gRPC assumes"];
    let mut json = retries(json!([{ "service": "money.Bank" }]));
    let hedged = json!({ "name": [{}], "hedgingPolicy": hedging() });
    json["methodConfig"].as_array_mut().unwrap().push(hedged);
    assert_eq!(found(&json, Methods::unknown()), expected);
    assert_eq!(found(&json, Methods::all_idempotent()), [""; 0]);
    let plain = json!({ "methodConfig": [{ "name": [{}], "timeout": "1s" }] });
    assert_eq!(found(&plain, Methods::unknown()), [""; 0]);
}

#[test]
fn sizes_are_reported_where_no_layer_enforces_them() {
    let mut json = entry("maxRequestMessageBytes", &json!(1));
    json["methodConfig"][0]["maxResponseMessageBytes"] = json!(2);
    let (deadline, retry) = layers(Methods::all_idempotent());
    let found = parse(&json).unwrap().apply(&deadline, &retry).unwrap();
    let paths: Vec<_> = found.iter().map(|warning| &*warning.path).collect();
    let expected =
        ["methodConfig[0].maxRequestMessageBytes", "methodConfig[0].maxResponseMessageBytes"];
    assert_eq!(paths, expected);
    assert!(found[0].text.starts_with("is not honoured: "), "{}", found[0]);
}

#[test]
fn balancing_settings_are_reported_unless_a_balancer_was_made_from_them() {
    let json = json!({
        "loadBalancingConfig": [{ "round_robin": {} }],
        "healthCheckConfig": { "serviceName": "money.Bank" },
    });
    let (deadline, retry) = layers(Methods::all_idempotent());
    let config = parse(&json).unwrap();
    let found = config.apply(&deadline, &retry).unwrap();
    let paths: Vec<_> = found.iter().map(|warning| &*warning.path).collect();
    assert_eq!(paths, ["loadBalancingConfig", "healthCheckConfig"]);
    let options = config.clone().balance(Default::default());
    assert_eq!(options.health.as_deref(), Some("money.Bank"));
    assert_eq!(config.apply(&deadline, &retry).unwrap(), []);
}

#[test]
fn each_warning_is_logged_once_for_a_text_that_is_applied() {
    let logs = Logs::of("cinchona_config");
    let json = with(retries(json!([{ "service": "money.Bnak" }])), "channelz", json!(7));
    let config = parse(&json).unwrap();
    assert_eq!(logs.events().len(), 0, "parsing logs nothing");
    let (deadline, retry) = layers(bank());
    for _ in 0..3 {
        assert_eq!(config.clone().apply(&deadline, &retry).unwrap().len(), 2);
    }
    let events = logs.events();
    assert_eq!(events.len(), 2, "{events:?}");
    assert!(events.iter().all(|event| event.level == tracing::Level::WARN));
    let first = "service config: channelz: is unknown, and ignored as in gRPC";
    assert_eq!(events[0].message, first);
    let (_, other) = layers(Methods::unknown());
    config.apply(&deadline, &other).unwrap();
    assert_eq!(logs.events().len(), 3, "what is new in another client");
    parse(&json).unwrap().apply(&deadline, &retry).unwrap();
    assert_eq!(logs.events().len(), 5, "a text that was read anew");
}

#[test]
fn a_config_that_is_refused_changes_and_logs_nothing() {
    let logs = Logs::of("cinchona_config");
    let (deadline, retry) = layers(Methods::all_idempotent());
    let json = json!({ "retryThrottling": throttling(), "methodConfig": [
        { "name": [{}], "hedgingPolicy": hedging() }], "x": 1 });
    for spoil in [
        |config: &mut ServiceConfig| config.retry_throttling.as_mut().unwrap().max_tokens = 0,
        |config: &mut ServiceConfig| config.retry_throttling.as_mut().unwrap().token_ratio = 0,
        |config: &mut ServiceConfig| {
            let again = config.methods[0].clone();
            config.methods.push(again);
        },
    ] {
        let mut config = parse(&json).unwrap();
        spoil(&mut config);
        let refused = config.apply(&deadline, &retry).unwrap_err();
        assert!(!refused.field().is_empty());
        assert_eq!((retry.counters().throttle_max_tokens, logs.events().len()), (None, 0));
    }
}
