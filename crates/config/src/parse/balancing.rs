//! Load balancing and outlier detection (gRFC A24, A50, A58).

use super::{
    duration,
    fields::{At, OBJECT, Report, number, uint32},
};
use cinchona_balance::{FailurePercentage, OutlierDetection, Picker, SuccessRate, Utilization};
use serde_json::Value;
use std::time::Duration;

/// How endpoints are picked, and which are taken out; `None` where the config does not say.
#[derive(Default)]
pub(super) struct Balancing {
    pub(super) picker: Option<Picker>,
    pub(super) utilization: Option<Utilization>,
    pub(super) outlier_detection: Option<OutlierDetection>,
}

const FROM_0S: &str = "a duration of 0 or more such as \"10s\"";
const PERCENT: &str = "an integer from 0 to 100";
const COUNT: &str = "an integer from 0 to 4294967295";

/// What a `weightUpdatePeriod` that is shorter is raised to (gRFC A58).
const LEAST_UPDATE_PERIOD: Duration = Duration::from_millis(100);

pub(super) fn balancing(root: &At<'_>, report: &mut Report) -> Balancing {
    let list = root.field("loadBalancingConfig");
    if list.is_absent() {
        let picker = by_name(&root.field("loadBalancingPolicy"), report);
        return Balancing { picker, ..Balancing::default() };
    }
    policy(&list, report)
}

/// The first policy of the list that is known (gRFC A24).
fn policy(list: &At<'_>, report: &mut Report) -> Balancing {
    for entry in list.items(report) {
        let Some(policies) = entry.require(report, OBJECT, Value::as_object) else { continue };
        if policies.len() != 1 {
            report.refuse(&entry, "an object with one policy");
            continue;
        }
        for name in policies.keys() {
            let config = entry.field(name);
            if let Some(picker) = picker(name) {
                let _ = config.read(report, OBJECT, Value::as_object);
                let is_weighted = picker == Picker::WeightedRoundRobin;
                let utilization = is_weighted.then(|| utilization(&config, report));
                return Balancing { picker: Some(picker), utilization, outlier_detection: None };
            }
            if name == "outlier_detection_experimental" {
                let outlier_detection = outlier_detection(&config, report);
                let child = config.field("childPolicy");
                if child.is_absent() {
                    report.refuse(&child, "a list of policies");
                    return Balancing { outlier_detection, ..Balancing::default() };
                }
                let inner = policy(&child, report);
                if inner.picker == Some(Picker::PickFirst) {
                    report.refuse(&child, "a policy that picks among several endpoints");
                }
                return Balancing { outlier_detection, ..inner };
            }
        }
    }
    report.refuse(list, "a list with a policy that is known: pick_first, round_robin, ...");
    Balancing::default()
}

fn by_name(at: &At<'_>, report: &mut Report) -> Option<Picker> {
    const NAMES: &str = "\"pick_first\", \"round_robin\" or \"weighted_round_robin\"";
    let known = |value: &Value| picker(&value.as_str()?.to_ascii_lowercase());
    at.read(report, NAMES, known)
}

fn picker(name: &str) -> Option<Picker> {
    match name {
        "pick_first" => Some(Picker::PickFirst),
        "round_robin" => Some(Picker::RoundRobin),
        "weighted_round_robin" => Some(Picker::WeightedRoundRobin),
        _ => None,
    }
}

fn utilization(at: &At<'_>, report: &mut Report) -> Utilization {
    const FALSE: &str = "false, as reports out of band are not supported";
    const PENALTY: &str = "a number of at least 0";
    let _ = at
        .field("enableOobLoadReport")
        .read(report, FALSE, |value| value.as_bool().filter(|is_enabled| !is_enabled));
    let mut time = |key| at.field(key).read(report, FROM_0S, duration::parse);
    let _ = time("oobReportingPeriod");
    let (blackout, expiration) = (time("blackoutPeriod"), time("weightExpirationPeriod"));
    let update = time("weightUpdatePeriod").map(|period| period.max(LEAST_UPDATE_PERIOD));
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
    at.read(report, OBJECT, Value::as_object)?;
    let default = OutlierDetection::default();
    let above_0s = |value: &Value| duration::parse(value).filter(|time| !time.is_zero());
    let interval =
        at.field("interval").read(report, "a duration above 0 such as \"10s\"", above_0s);
    let mut time = |key| at.field(key).read(report, FROM_0S, duration::parse);
    let (base, max) = (time("baseEjectionTime"), time("maxEjectionTime"));
    let percent = at.field("maxEjectionPercent").read(report, PERCENT, percent);
    let success_rate = success_rate(&at.field("successRateEjection"), report);
    let failure_percentage = failure_percentage(&at.field("failurePercentageEjection"), report);
    Some(OutlierDetection {
        interval: interval.unwrap_or(default.interval),
        base_ejection_time: base.unwrap_or(default.base_ejection_time),
        max_ejection_time: max.unwrap_or(default.max_ejection_time),
        max_ejection_percent: percent.unwrap_or(default.max_ejection_percent),
        success_rate,
        failure_percentage,
        consecutive_failures: None,
    })
}

fn success_rate(at: &At<'_>, report: &mut Report) -> Option<SuccessRate> {
    at.read(report, OBJECT, Value::as_object)?;
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
    at.read(report, OBJECT, Value::as_object)?;
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
    fn every_mistake_in_weights_by_utilization_is_told_with_its_place() {
        let json = weighted(
            r#""blackoutPeriod": "-1s", "weightExpirationPeriod": 3,
            "weightUpdatePeriod": "soon", "errorUtilizationPenalty": -0.1,
            "enableOobLoadReport": true, "oobReportingPeriod": "10""#,
        );
        let told = mistakes(&json);
        for field in [
            "blackoutPeriod",
            "weightExpirationPeriod",
            "weightUpdatePeriod",
            "errorUtilizationPenalty",
            "enableOobLoadReport",
            "oobReportingPeriod",
        ] {
            let place = format!("loadBalancingConfig[0].weighted_round_robin.{field}: ");
            assert_eq!(told.iter().filter(|told| told.starts_with(&place)).count(), 1, "{place}");
        }
        assert_eq!(told.len(), 6);
        let expected = "loadBalancingConfig[0].weighted_round_robin.enableOobLoadReport: must be \
            false, as reports out of band are not supported, not true";
        assert!(told.iter().any(|told| told == expected), "{told:?}");
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

    // catalogue: CU-config-health-and-balancing
    #[test]
    fn every_mistake_is_told_with_its_place() {
        let json = r#"{"loadBalancingConfig": [{"outlier_detection_experimental": {
            "interval": "0s", "baseEjectionTime": "-1s", "maxEjectionTime": 3,
            "maxEjectionPercent": 101,
            "successRateEjection": {"enforcementPercentage": 101, "stdevFactor": -1},
            "failurePercentageEjection": {"threshold": 101, "requestVolume": 1.5},
            "childPolicy": [{"pick_first": {}}] }}]}"#;
        let at = "loadBalancingConfig[0].outlier_detection_experimental";
        let told = mistakes(json);
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
            assert_eq!(told.iter().filter(|told| told.starts_with(&place)).count(), 1, "{place}");
        }
        assert_eq!(told.len(), 9);
        for json in [
            r#"{"loadBalancingConfig": []}"#,
            r#"{"loadBalancingConfig": [{"unknown": {}}]}"#,
            r#"{"loadBalancingConfig": [{"round_robin": {}, "pick_first": {}}]}"#,
            r#"{"loadBalancingConfig": [{"outlier_detection_experimental": {}}]}"#,
            r#"{"loadBalancingPolicy": "best"}"#,
        ] {
            assert!(!mistakes(json).is_empty(), "{json}");
        }
    }
}
