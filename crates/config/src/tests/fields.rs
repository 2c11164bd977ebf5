//! The law of the crate: each field of a config takes effect, is reported, or refuses the config.

use super::*;
use cinchona_balance::Options;

/// A config with every field of `service_config.proto` and C-core's beside them, each with a value
/// that is not its default; for a policy of load balancing, one config each.
fn full() -> Vec<Value> {
    let balancing = |policy: Value| json!({ "loadBalancingConfig": [policy] });
    let ejection = |first: &str| {
        let counts = json!({ "enforcementPercentage": 8, "minimumHosts": 9, "requestVolume": 10 });
        with(counts, first, json!(7))
    };
    vec![
        json!({
            "methodConfig": [{
                "name": [{ "service": "a.B" }, { "service": "a.C", "method": "D" }],
                "waitForReady": true,
                "timeout": "1s",
                "maxRequestMessageBytes": 1,
                "maxResponseMessageBytes": 2,
                "retryPolicy": with(retry(), "perAttemptRecvTimeout", json!("1s")),
            }, { "name": [{}], "hedgingPolicy": hedging() }],
            "retryThrottling": throttling(),
            "healthCheckConfig": { "serviceName": "a.B" },
            "connectionScaling": { "maxConnectionsPerSubchannel": 2 },
        }),
        json!({ "loadBalancingPolicy": "round_robin" }),
        balancing(json!({ "pick_first": { "shuffleAddressList": true } })),
        balancing(json!({ "least_request_experimental": { "choiceCount": 3 } })),
        balancing(json!({ "weighted_round_robin": {
            "enableOobLoadReport": true,
            "oobReportingPeriod": "1s",
            "blackoutPeriod": "2s",
            "weightExpirationPeriod": "3s",
            "weightUpdatePeriod": "4s",
            "errorUtilizationPenalty": 5,
        } })),
        balancing(json!({ "outlier_detection_experimental": {
            "interval": "1s",
            "baseEjectionTime": "2s",
            "maxEjectionTime": "3s",
            "maxEjectionPercent": 4,
            "panicThreshold": 5,
            "successRateEjection": ejection("stdevFactor"),
            "failurePercentageEjection": ejection("threshold"),
            "childPolicy": [{ "round_robin": {} }],
        } })),
    ]
}

/// The pointers (RFC 6901) of every object in `value`, and of every field.
fn walk(value: &Value, at: &str, objects: &mut Vec<String>, fields: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            objects.push(at.to_owned());
            for (key, value) in object {
                let at = format!("{at}/{key}");
                fields.push(at.clone());
                walk(value, &at, objects, fields);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                walk(item, &format!("{at}/{index}"), objects, fields);
            }
        }
        _ => {}
    }
}

/// `/a/0/b` as `a[0].b`.
pub(super) fn path(pointer: &str) -> String {
    let parts = pointer.split('/').skip(1);
    let parts = parts.map(|part| match part.parse::<usize>() {
        Ok(index) => format!("[{index}]"),
        Err(_) => format!(".{part}"),
    });
    parts.collect::<String>().trim_start_matches('.').to_owned()
}

fn paths(warnings: &[Warning]) -> Vec<&str> {
    warnings.iter().map(|warning| &*warning.path).collect()
}

/// The config without its warnings.
fn said(config: &ServiceConfig) -> ServiceConfig {
    ServiceConfig { warnings: Vec::new(), ..config.clone() }
}

// catalogue: S-A11
#[test]
fn every_known_field_takes_effect_or_is_reported() {
    for json in full() {
        let whole = parse(&json).unwrap();
        let mut fields = Vec::new();
        walk(&json, "", &mut Vec::new(), &mut fields);
        for field in fields {
            let (parent, key) = field.rsplit_once('/').unwrap();
            let mut less = json.clone();
            less.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key);
            let acts = parse(&less).map_or(true, |less| said(&less) != said(&whole));
            let place = path(&field);
            let is_named = |path: &&str| {
                path.starts_with(&place)
                    || (key == "oobReportingPeriod" && path.ends_with("Report"))
            };
            let is_named = paths(whole.warnings()).iter().any(is_named);
            assert!(acts || is_named, "{place}: {:?}", whole.warnings());
        }
    }
}

#[test]
fn the_balancing_settings_of_a_config_are_in_the_options_of_the_balancer() {
    for json in full().split_off(3) {
        let config = parse(&json).unwrap();
        let Options { picker, utilization, outlier, .. } = config.balance(Options::default());
        assert_eq!(Some(picker), config.picker, "{json}");
        assert_eq!(utilization, config.utilization.unwrap_or_default(), "{json}");
        assert_eq!(outlier, config.outlier_detection.unwrap_or_default(), "{json}");
    }
}

// catalogue: S-A11
#[test]
fn an_unknown_field_is_reported_at_any_place_and_changes_nothing() {
    for json in full() {
        let whole = parse(&json).unwrap();
        let mut objects = Vec::new();
        walk(&json, "", &mut objects, &mut Vec::new());
        // A policy of load balancing is named by the one key of an object.
        let is_entry = |pointer: &String| {
            let policy = pointer.rsplit('/').next().unwrap().parse::<usize>().is_ok();
            policy && (pointer.contains("loadBalancing") || pointer.contains("childPolicy"))
        };
        for pointer in objects.into_iter().filter(|pointer| !is_entry(pointer)) {
            let mut more = json.clone();
            more.pointer_mut(&pointer).unwrap()["maxAtempts"] = json!(7);
            let place = path(&format!("{pointer}/maxAtempts"));
            let config = parse(&more).unwrap();
            assert_eq!(said(&config), said(&whole), "{place}");
            let found = config.warnings().iter().filter(|warning| warning.path == place);
            let [warning] = &found.collect::<Vec<_>>()[..] else { panic!("{place}") };
            assert!(warning.text.starts_with("is unknown, and ignored as in gRPC"), "{warning}");
            assert_eq!(config.warnings().len(), whole.warnings().len() + 1, "{place}");
            more.pointer_mut(&pointer).unwrap()["maxAtempts"] = Value::Null;
            assert_eq!(parse(&more), Ok(whole.clone()), "null is absent");
        }
    }
}
