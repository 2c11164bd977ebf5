//! Load balancing, outlier detection and health checks (gRFC A24, A50, A17).

use super::{
    duration,
    fields::{At, OBJECT, Report, uint32},
};
use cinchona_balance::{FailurePercentage, OutlierDetection, Picker, SuccessRate};
use serde_json::Value;

const FROM_0S: &str = "a duration of 0 or more such as \"10s\"";
const PERCENT: &str = "an integer from 0 to 100";
const COUNT: &str = "an integer from 0 to 4294967295";

/// How endpoints are picked, and which are taken out; `None` where the config does not say.
pub(super) fn balancing(
    root: &At<'_>,
    report: &mut Report,
) -> (Option<Picker>, Option<OutlierDetection>) {
    let list = root.field("loadBalancingConfig");
    if list.is_absent() {
        return (by_name(&root.field("loadBalancingPolicy"), report), None);
    }
    policy(&list, report)
}

/// The first policy of the list that is known (gRFC A24).
fn policy(list: &At<'_>, report: &mut Report) -> (Option<Picker>, Option<OutlierDetection>) {
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
                return (Some(picker), None);
            }
            if name == "outlier_detection_experimental" {
                let detection = outlier_detection(&config, report);
                let child = config.field("childPolicy");
                if child.is_absent() {
                    report.refuse(&child, "a list of policies");
                    return (None, detection);
                }
                let (picker, _) = policy(&child, report);
                if picker == Some(Picker::PickFirst) {
                    report.refuse(&child, "a policy that picks among several endpoints");
                }
                return (picker, detection);
            }
        }
    }
    report.refuse(list, "a list with a policy that is known: pick_first, round_robin, ...");
    (None, None)
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
    use crate::ServiceConfig;
    use cinchona_balance::{FailurePercentage, OutlierDetection, Picker, SuccessRate};
    use std::time::Duration;

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
