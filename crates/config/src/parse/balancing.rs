//! Load balancing and outlier detection (gRFC A24, A50, A58).

use super::{
    duration,
    fields::{At, OBJECT, Report, number, uint32},
};
use cinchona_balance::{FailurePercentage, OutlierDetection, Picker, SuccessRate, Utilization};
use serde_json::Value;
use std::time::Duration;

/// How endpoints are picked, and which are ejected; `None` if the config does not set it.
#[derive(Default)]
pub(super) struct Balancing {
    pub(super) picker: Option<Picker>,
    pub(super) utilization: Option<Utilization>,
    pub(super) outlier_detection: Option<OutlierDetection>,
    pub(super) panic_threshold: Option<u32>,
    pub(super) shuffle_address_list: Option<bool>,
}

const FROM_0S: &str = "a duration of 0 or more such as \"10s\"";
const PERCENT: &str = "an integer from 0 to 100";
const COUNT: &str = "an integer from 0 to 4294967295";

/// The least `weightUpdatePeriod`, to which a shorter one is raised (gRFC A58).
const LEAST_UPDATE_PERIOD: Duration = Duration::from_millis(100);

const KNOWN: &str = "a list with a policy that is known: pick_first, round_robin, \
    weighted_round_robin, least_request_experimental or outlier_detection_experimental";

/// A shorter `interval` would keep a core busy; gRFC A50 has no minimum.
const LEAST_INTERVAL: Duration = Duration::from_millis(10);

pub(super) fn balancing(root: &At<'_>, report: &mut Report) -> Balancing {
    let (list, name) = (root.field("loadBalancingConfig"), root.field("loadBalancingPolicy"));
    if list.is_absent() {
        return Balancing { picker: by_name(&name, report), ..Balancing::default() };
    }
    if !name.is_absent() {
        report.warn(&name, "is not used beside a loadBalancingConfig, as in gRPC");
    }
    first_known(&list, report)
}

/// The first policy of the list that is known (gRFC A24).
fn first_known(list: &At<'_>, report: &mut Report) -> Balancing {
    let mut skipped = Vec::new();
    for entry in list.items(report) {
        let Some(policies) = entry.require(report, OBJECT, Value::as_object) else { continue };
        let mut names = policies.keys();
        let (Some(name), None) = (names.next(), names.next()) else {
            report.refuse(&entry, "an object with one policy");
            continue;
        };
        let config = entry.field(name);
        let Some(known) = policy(name, &config, report) else {
            skipped.push(config);
            continue;
        };
        for at in skipped {
            report.warn(&at, format!("is not supported, and skipped: {name} is used"));
        }
        return known;
    }
    report.refuse(list, KNOWN);
    Balancing::default()
}

fn policy(name: &str, config: &At<'_>, report: &mut Report) -> Option<Balancing> {
    if name == "outlier_detection_experimental" {
        return Some(with_outlier_detection(config, report));
    }
    let picker = picker(name)?;
    let _ = config.read(report, OBJECT, Value::as_object);
    let mut known = Balancing { picker: Some(picker), ..Balancing::default() };
    match picker {
        Picker::PickFirst => known.shuffle_address_list = pick_first(config, report),
        Picker::WeightedRoundRobin => known.utilization = Some(utilization(config, report)),
        Picker::LeastRequest => least_request(config, report),
        _ => config.knows(report, &[]),
    }
    Some(known)
}

fn with_outlier_detection(config: &At<'_>, report: &mut Report) -> Balancing {
    let outlier_detection = outlier_detection(config, report);
    let panic_threshold = config.field("panicThreshold").read(report, PERCENT, percent);
    let child = config.field("childPolicy");
    if child.is_absent() {
        report.refuse(&child, "a list of policies");
        return Balancing { outlier_detection, ..Balancing::default() };
    }
    let inner = first_known(&child, report);
    if inner.picker == Some(Picker::PickFirst) {
        let text = "has no effect around pick_first, which uses one endpoint: none is ejected";
        report.warn(config, text);
        return inner;
    }
    if inner.outlier_detection.is_some() {
        report.warn(&child, "has another outlier detection, which is not used");
    }
    Balancing { outlier_detection, panic_threshold, ..inner }
}

/// gRFC A62.
fn pick_first(at: &At<'_>, report: &mut Report) -> Option<bool> {
    at.knows(report, &["shuffleAddressList"]);
    at.field("shuffleAddressList").read(report, "true or false", Value::as_bool)
}

/// gRFC A48.
fn least_request(at: &At<'_>, report: &mut Report) {
    at.knows(report, &["choiceCount"]);
    let choices = at.field("choiceCount");
    let at_least_2 = |value: &Value| uint32(value).filter(|choices| *choices >= 2);
    match choices.read(report, "an integer of at least 2", at_least_2) {
        None | Some(2) => {}
        Some(_) => report.warn(&choices, "is not honoured: the better of 2 endpoints is picked"),
    }
}

fn by_name(at: &At<'_>, report: &mut Report) -> Option<Picker> {
    const NAMES: &str = "\"pick_first\", \"round_robin\", \"weighted_round_robin\" or \
        \"least_request_experimental\"";
    let known = |value: &Value| picker(&value.as_str()?.to_ascii_lowercase());
    at.read(report, NAMES, known)
}

fn picker(name: &str) -> Option<Picker> {
    match name {
        "pick_first" => Some(Picker::PickFirst),
        "round_robin" => Some(Picker::RoundRobin),
        // The second is its name before it was released.
        "weighted_round_robin" | "weighted_round_robin_experimental" => {
            Some(Picker::WeightedRoundRobin)
        }
        "least_request_experimental" => Some(Picker::LeastRequest),
        _ => None,
    }
}

fn utilization(at: &At<'_>, report: &mut Report) -> Utilization {
    const PENALTY: &str = "a number of at least 0";
    const FIELDS: [&str; 6] = [
        "enableOobLoadReport",
        "oobReportingPeriod",
        "blackoutPeriod",
        "weightExpirationPeriod",
        "weightUpdatePeriod",
        "errorUtilizationPenalty",
    ];
    at.knows(report, &FIELDS);
    let out_of_band = at.field("enableOobLoadReport");
    if out_of_band.read(report, "true or false", Value::as_bool) == Some(true) {
        let text = "is not honoured: the balancer reads the reports that come with answers";
        report.warn(&out_of_band, text);
    }
    let mut time = |key| at.field(key).read(report, FROM_0S, duration::parse);
    let _ = time("oobReportingPeriod");
    let (blackout, expiration) = (time("blackoutPeriod"), time("weightExpirationPeriod"));
    let update = time("weightUpdatePeriod");
    if update.is_some_and(|period| period < LEAST_UPDATE_PERIOD) {
        report.warn(&at.field("weightUpdatePeriod"), "is raised to 0.1s (gRFC A58)");
    }
    let update = update.map(|period| period.max(LEAST_UPDATE_PERIOD));
    let penalty = |value: &Value| number(value).filter(|number| *number >= 0.0);
    let penalty = at.field("errorUtilizationPenalty").read(report, PENALTY, penalty);
    let default = Utilization::default();
    Utilization {
        blackout_period: blackout.unwrap_or(default.blackout_period),
        weight_expiration_period: expiration.unwrap_or(default.weight_expiration_period),
        weight_update_period: update.unwrap_or(default.weight_update_period),
        error_utilization_penalty: penalty.unwrap_or(default.error_utilization_penalty),
    }
}

fn outlier_detection(at: &At<'_>, report: &mut Report) -> Option<OutlierDetection> {
    const FIELDS: [&str; 8] = [
        "interval",
        "baseEjectionTime",
        "maxEjectionTime",
        "maxEjectionPercent",
        "successRateEjection",
        "failurePercentageEjection",
        "panicThreshold",
        "childPolicy",
    ];
    at.read(report, OBJECT, Value::as_object)?;
    at.knows(report, &FIELDS);
    let default = OutlierDetection::default();
    let above_0s = |value: &Value| duration::parse(value).filter(|time| !time.is_zero());
    let interval =
        at.field("interval").read(report, "a duration above 0 such as \"10s\"", above_0s);
    if interval.is_some_and(|interval| interval < LEAST_INTERVAL) {
        report.warn(&at.field("interval"), "is raised to 0.01s: endpoints are compared no oftener");
    }
    let mut time = |key| at.field(key).read(report, FROM_0S, duration::parse);
    let (base, max) = (time("baseEjectionTime"), time("maxEjectionTime"));
    let percent = at.field("maxEjectionPercent").read(report, PERCENT, percent);
    let success_rate = success_rate(&at.field("successRateEjection"), report);
    let failure_percentage = failure_percentage(&at.field("failurePercentageEjection"), report);
    Some(OutlierDetection {
        interval: interval.map_or(default.interval, |interval| interval.max(LEAST_INTERVAL)),
        base_ejection_time: base.unwrap_or(default.base_ejection_time),
        max_ejection_time: max.unwrap_or(default.max_ejection_time),
        max_ejection_percent: percent.unwrap_or(default.max_ejection_percent),
        success_rate,
        failure_percentage,
        consecutive_failures: None,
    })
}

fn success_rate(at: &At<'_>, report: &mut Report) -> Option<SuccessRate> {
    const FIELDS: [&str; 4] =
        ["stdevFactor", "enforcementPercentage", "minimumHosts", "requestVolume"];
    at.read(report, OBJECT, Value::as_object)?;
    at.knows(report, &FIELDS);
    let default = SuccessRate::default();
    let mut count =
        |key, rule, read: fn(&Value) -> Option<u32>| at.field(key).read(report, rule, read);
    let stdev_factor = count("stdevFactor", COUNT, uint32);
    let enforcement = count("enforcementPercentage", PERCENT, percent);
    let (hosts, volume) =
        (count("minimumHosts", COUNT, uint32), count("requestVolume", COUNT, uint32));
    Some(SuccessRate {
        stdev_factor: stdev_factor.unwrap_or(default.stdev_factor),
        enforcement_percentage: enforcement.unwrap_or(default.enforcement_percentage),
        minimum_hosts: hosts.unwrap_or(default.minimum_hosts),
        request_volume: volume.unwrap_or(default.request_volume),
    })
}

fn failure_percentage(at: &At<'_>, report: &mut Report) -> Option<FailurePercentage> {
    const FIELDS: [&str; 4] =
        ["threshold", "enforcementPercentage", "minimumHosts", "requestVolume"];
    at.read(report, OBJECT, Value::as_object)?;
    at.knows(report, &FIELDS);
    let default = FailurePercentage::default();
    let mut count =
        |key, rule, read: fn(&Value) -> Option<u32>| at.field(key).read(report, rule, read);
    let threshold = count("threshold", PERCENT, percent);
    let enforcement = count("enforcementPercentage", PERCENT, percent);
    let (hosts, volume) =
        (count("minimumHosts", COUNT, uint32), count("requestVolume", COUNT, uint32));
    Some(FailurePercentage {
        threshold: threshold.unwrap_or(default.threshold),
        enforcement_percentage: enforcement.unwrap_or(default.enforcement_percentage),
        minimum_hosts: hosts.unwrap_or(default.minimum_hosts),
        request_volume: volume.unwrap_or(default.request_volume),
    })
}

fn percent(value: &Value) -> Option<u32> {
    uint32(value).filter(|percent| *percent <= 100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ServiceConfig;

    fn mistakes(json: &str) -> Vec<String> {
        let errors = ServiceConfig::parse(json).unwrap_err();
        errors.as_slice().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_first_policy_that_is_known_is_taken() {
        for (json, expected) in [
            (r#"{}"#, None),
            (r#"{"loadBalancingPolicy": "round_robin"}"#, Some(Picker::RoundRobin)),
            (
                r#"{"loadBalancingConfig": [{"xds": {}}, {"round_robin": {}}]}"#,
                Some(Picker::RoundRobin),
            ),
            (
                r#"{"loadBalancingPolicy": "round_robin",
                    "loadBalancingConfig": [{"pick_first": {}}]}"#,
                Some(Picker::PickFirst),
            ),
            (
                r#"{"loadBalancingConfig": [{"weighted_round_robin": {}}]}"#,
                Some(Picker::WeightedRoundRobin),
            ),
            (
                r#"{"loadBalancingConfig": [{"weighted_round_robin_experimental": {}}]}"#,
                Some(Picker::WeightedRoundRobin),
            ),
            (
                r#"{"loadBalancingConfig": [{"least_request_experimental": {"choiceCount": 2}}]}"#,
                Some(Picker::LeastRequest),
            ),
        ] {
            assert_eq!(ServiceConfig::parse(json).unwrap().picker, expected, "{json}");
        }
    }

    fn weighted(fields: &str) -> String {
        format!(r#"{{"loadBalancingConfig": [{{"weighted_round_robin": {{ {fields} }} }}]}}"#)
    }

    #[test]
    fn weights_by_utilization_have_grpcs_fields_and_defaults() {
        let default = Utilization::default();
        let (half, ten) = (Duration::from_millis(500), Duration::from_secs(10));
        let all = Utilization {
            blackout_period: Duration::ZERO,
            weight_expiration_period: ten,
            weight_update_period: half,
            error_utilization_penalty: 0.5,
        };
        let least = Duration::from_millis(100);
        for (fields, expected) in [
            ("", default),
            (
                r#""blackoutPeriod": "0s", "weightExpirationPeriod": "10s",
                    "weightUpdatePeriod": "0.5s", "errorUtilizationPenalty": 0.5"#,
                all,
            ),
            (
                r#""weightUpdatePeriod": "0.05s""#,
                Utilization { weight_update_period: least, ..default },
            ),
            (
                r#""errorUtilizationPenalty": "0""#,
                Utilization { error_utilization_penalty: 0.0, ..default },
            ),
            (r#""enableOobLoadReport": false, "oobReportingPeriod": "5s""#, default),
            (r#""enableOobLoadReport": null, "unknown": 1"#, default),
        ] {
            let config = ServiceConfig::parse(&weighted(fields)).unwrap();
            assert_eq!(config.utilization, Some(expected), "{fields}");
            let options = config.balance(Default::default());
            assert_eq!(options.utilization, expected);
            assert_eq!(options.picker, Picker::WeightedRoundRobin);
        }
        let inner = r#"{"loadBalancingConfig": [{"outlier_detection_experimental": {
            "childPolicy": [{"weighted_round_robin": {"blackoutPeriod": "0s"}}] }}]}"#;
        let config = ServiceConfig::parse(inner).unwrap();
        assert_eq!(config.utilization.unwrap().blackout_period, Duration::ZERO);
        assert!(config.outlier_detection.is_some());
        for json in [
            r#"{"loadBalancingConfig": [{"round_robin": {}}]}"#,
            r#"{"loadBalancingPolicy": "weighted_round_robin"}"#,
        ] {
            let config = ServiceConfig::parse(json).unwrap();
            assert_eq!(config.utilization, None, "what the options say stays: {json}");
            let options = cinchona_balance::Options { utilization: all, ..Default::default() };
            assert_eq!(config.balance(options).utilization, all);
        }
    }

    #[test]
    fn every_mistake_in_weights_by_utilization_is_reported_with_its_place() {
        let json = weighted(
            r#""blackoutPeriod": "-1s", "weightExpirationPeriod": 3,
            "weightUpdatePeriod": "soon", "errorUtilizationPenalty": -0.1,
            "enableOobLoadReport": 1, "oobReportingPeriod": "10""#,
        );
        let found = mistakes(&json);
        for field in [
            "blackoutPeriod",
            "weightExpirationPeriod",
            "weightUpdatePeriod",
            "errorUtilizationPenalty",
            "enableOobLoadReport",
            "oobReportingPeriod",
        ] {
            let place = format!("loadBalancingConfig[0].weighted_round_robin.{field}: ");
            assert_eq!(
                found.iter().filter(|found| found.starts_with(&place)).count(),
                1,
                "{place}"
            );
        }
        assert_eq!(found.len(), 6);
        for wrong in [r#""NaN""#, r#""Infinity""#, "true", "[]"] {
            let json = weighted(&format!(r#""errorUtilizationPenalty": {wrong}"#));
            assert_eq!(mistakes(&json).len(), 1, "{wrong}");
        }
        assert_eq!(mistakes(r#"{"loadBalancingConfig": [{"weighted_round_robin": 3}]}"#).len(), 1);
    }

    #[test]
    fn outlier_detection_has_grpcs_fields_and_defaults() {
        let json = r#"{"loadBalancingConfig": [{"outlier_detection_experimental": {
            "interval": "1s", "maxEjectionPercent": 50,
            "successRateEjection": {}, "failurePercentageEjection": {"threshold": 40},
            "childPolicy": [{"round_robin": {}}] }}],
            "healthCheckConfig": {"serviceName": "bank"}}"#;
        let config = ServiceConfig::parse(json).unwrap();
        let expected = OutlierDetection {
            interval: Duration::from_secs(1),
            max_ejection_percent: 50,
            success_rate: Some(SuccessRate::default()),
            failure_percentage: Some(FailurePercentage {
                threshold: 40,
                ..FailurePercentage::default()
            }),
            ..OutlierDetection::default()
        };
        assert_eq!(config.outlier_detection, Some(expected.clone()));
        let options = config.balance(Default::default());
        assert_eq!((options.picker, options.outlier), (Picker::RoundRobin, expected));
        assert_eq!(options.health.as_deref(), Some("bank"));
    }

    // catalogue: S-B12, S-A11
    #[test]
    fn a_panic_threshold_and_shuffling_are_set_by_a_config() {
        let json = r#"{"loadBalancingConfig": [{"outlier_detection_experimental": {
            "maxEjectionPercent": 100, "panicThreshold": 30,
            "childPolicy": [{"round_robin": {}}] }}]}"#;
        let options = ServiceConfig::parse(json).unwrap().balance(Default::default());
        assert_eq!((options.panic_threshold, options.outlier.max_ejection_percent), (30, 100));
        let json = r#"{"loadBalancingConfig": [{"pick_first": {"shuffleAddressList": true}}]}"#;
        let config = ServiceConfig::parse(json).unwrap();
        assert!(config.warnings().is_empty());
        assert!(config.balance(Default::default()).shuffle_address_list);
        let none = ServiceConfig::parse("{}").unwrap();
        let ours = cinchona_balance::Options {
            panic_threshold: 50,
            shuffle_address_list: true,
            ..Default::default()
        };
        let options = none.balance(ours);
        assert!(options.shuffle_address_list && options.panic_threshold == 50);
        let json = r#"{"loadBalancingConfig": [{"outlier_detection_experimental": {
            "panicThreshold": 101, "childPolicy": [{"round_robin": {}}] }}]}"#;
        assert_eq!(mistakes(json).len(), 1);
    }

    #[test]
    fn outlier_detection_around_pick_first_ejects_nothing_and_is_a_warning() {
        let json = r#"{"loadBalancingConfig": [{"outlier_detection_experimental": {
            "failurePercentageEjection": {}, "childPolicy": [{"pick_first": {}}] }}]}"#;
        let config = ServiceConfig::parse(json).unwrap();
        assert_eq!((config.picker, &config.outlier_detection), (Some(Picker::PickFirst), &None));
        let path = "loadBalancingConfig[0].outlier_detection_experimental";
        assert_eq!(config.warnings()[0].path, path);
    }

    // catalogue: CU-config-health-and-balancing
    #[test]
    fn every_mistake_is_reported_with_its_place() {
        let json = r#"{"loadBalancingConfig": [{"outlier_detection_experimental": {
            "interval": "0s", "baseEjectionTime": "-1s", "maxEjectionTime": 3,
            "maxEjectionPercent": 101,
            "successRateEjection": {"enforcementPercentage": 101, "stdevFactor": -1},
            "failurePercentageEjection": {"threshold": 101, "requestVolume": 1.5},
            "childPolicy": [{"pick_last": {}}] }}]}"#;
        let at = "loadBalancingConfig[0].outlier_detection_experimental";
        let found = mistakes(json);
        for field in [
            "interval",
            "baseEjectionTime",
            "maxEjectionTime",
            "maxEjectionPercent",
            "successRateEjection.enforcementPercentage",
            "successRateEjection.stdevFactor",
            "failurePercentageEjection.threshold",
            "failurePercentageEjection.requestVolume",
            "childPolicy",
        ] {
            let place = format!("{at}.{field}: ");
            assert_eq!(
                found.iter().filter(|found| found.starts_with(&place)).count(),
                1,
                "{place}"
            );
        }
        assert_eq!(found.len(), 9);
        for json in [
            r#"{"loadBalancingConfig": []}"#,
            r#"{"loadBalancingConfig": [{"unknown": {}}]}"#,
            r#"{"loadBalancingConfig": [{"round_robin": {}, "pick_first": {}}]}"#,
            r#"{"loadBalancingConfig": [{"outlier_detection_experimental": {}}]}"#,
            r#"{"loadBalancingConfig": [{"least_request_experimental": {"choiceCount": 1}}]}"#,
            r#"{"loadBalancingConfig": [{"pick_first": {"shuffleAddressList": 1}}]}"#,
            r#"{"loadBalancingPolicy": "best"}"#,
        ] {
            assert!(!mistakes(json).is_empty(), "{json}");
        }
    }
}
