//! From JSON to the types, field by field; a mistake is noted, and reading goes on.

mod balancing;
mod duration;
mod fields;
mod twice;

use crate::{
    Error, HedgingPolicy, MethodConfig, MethodEntry, Name, Policy, RetryPolicy, RetryThrottling,
    ServiceConfig, Warning, error::Errors, warned::Warned,
};
use cinchona_plumbing::code;
use fields::{At, OBJECT, Report, number, thousandths, uint32};
use serde_json::Value;
use std::{collections::HashSet, time::Duration};
use tonic::Code;

const ABOVE_0S: &str = "a duration above 0 such as \"0.1s\"";
const FROM_0S: &str = "a duration of 0 or more such as \"0.1s\"";

/// The most that a tonic client receives by default (`max_decoding_message_size`): 4 MiB.
const TONIC_MOST: u32 = 4 << 20;

// === impl ServiceConfig ===

impl ServiceConfig {
    /// Reads the JSON form of a service config.
    ///
    /// # Errors
    /// Every mistake of a JSON text, or the place where it is not JSON.
    pub fn parse(json: &str) -> Result<Self, Errors> {
        service_config(json).map_err(Errors)
    }
}

fn service_config(json: &str) -> Result<ServiceConfig, Vec<Error>> {
    let value: Value = serde_json::from_str(json).map_err(|error| vec![not_json(&error)])?;
    let (root, mut report) = (At::root(&value), Report::default());
    let _ = root.require(&mut report, OBJECT, Value::as_object);
    root.knows(&mut report, &FIELDS);
    let mut names = HashSet::new();
    let mut methods = Vec::new();
    for (index, entry) in root.field("methodConfig").items(&mut report).iter().enumerate() {
        methods.extend(method_entry((index, entry), &mut report, &mut names));
    }
    let retry_throttling = retry_throttling(&root.field("retryThrottling"), &mut report);
    let balancing = balancing::balancing(&root, &mut report);
    let health = health(&root.field("healthCheckConfig"), &mut report);
    connection_scaling(&root.field("connectionScaling"), &mut report);
    let mut warnings = report.end()?;
    let twice = twice::twice(json).into_iter();
    warnings
        .extend(twice.map(|path| Warning::new(&path, "stands here twice: the last one counts")));
    Ok(ServiceConfig {
        methods,
        retry_throttling,
        picker: balancing.picker,
        utilization: balancing.utilization,
        outlier_detection: balancing.outlier_detection,
        panic_threshold: balancing.panic_threshold,
        shuffle_address_list: balancing.shuffle_address_list,
        health,
        warnings,
        used: Warned::default(),
    })
}

const FIELDS: [&str; 6] = [
    "loadBalancingPolicy",
    "loadBalancingConfig",
    "methodConfig",
    "retryThrottling",
    "healthCheckConfig",
    "connectionScaling",
];

fn not_json(error: &serde_json::Error) -> Error {
    let value = format!("a text with this mistake: {error}");
    Error { path: String::new(), value, rule: "JSON" }
}

/// `None` where the entry has no name, or a mistake.
fn method_entry(
    (index, at): (usize, &At<'_>),
    report: &mut Report,
    seen: &mut HashSet<Name>,
) -> Option<MethodEntry> {
    at.require(report, OBJECT, Value::as_object)?;
    let all = at.field("name").items(report);
    let names: Vec<_> = all.iter().filter_map(|at| unique_name(at, report, seen)).collect();
    let config = method_config(at, report);
    if all.is_empty() {
        report.warn(at, "is for no method, as it has no name: skipped as in gRPC");
    }
    (!names.is_empty()).then_some(MethodEntry { index, names, config })
}

fn unique_name(at: &At<'_>, report: &mut Report, seen: &mut HashSet<Name>) -> Option<Name> {
    at.require(report, OBJECT, Value::as_object)?;
    at.knows(report, &["service", "method"]);
    let mut text = |key| {
        let field = at.field(key);
        let text = field.read(report, "a string", |value| value.as_str().map(String::from));
        // A value that is not a string is already a mistake, and is not compared with other names.
        if field.is_absent() { Some(String::new()) } else { text }
    };
    let (service, method) = (text("service"), text("method"));
    let name = Name { service: service?, method: method? };
    if name.service.is_empty() && !name.method.is_empty() {
        report.refuse(&at.field("service"), "the service of the method that is named");
        return None;
    }
    if !seen.insert(name.clone()) {
        report.refuse(at, "a name that is nowhere else in the config");
        return None;
    }
    Some(name)
}

fn method_config(at: &At<'_>, report: &mut Report) -> MethodConfig {
    const FIELDS: [&str; 7] = [
        "name",
        "waitForReady",
        "timeout",
        "maxRequestMessageBytes",
        "maxResponseMessageBytes",
        "retryPolicy",
        "hedgingPolicy",
    ];
    at.knows(report, &FIELDS);
    MethodConfig {
        timeout: at.field("timeout").read(report, FROM_0S, duration::parse),
        wait_for_ready: at.field("waitForReady").read(report, "true or false", Value::as_bool),
        max_request_message_bytes: message_bytes(&at.field("maxRequestMessageBytes"), report),
        max_response_message_bytes: response_bytes(&at.field("maxResponseMessageBytes"), report),
        policy: policy(at, report),
    }
}

fn message_bytes(at: &At<'_>, report: &mut Report) -> Option<u32> {
    at.read(report, "an integer from 0 to 4294967295", uint32)
}

fn response_bytes(at: &At<'_>, report: &mut Report) -> Option<u32> {
    let bytes = message_bytes(at, report)?;
    if bytes > TONIC_MOST {
        let text = format!(
            "acts above {TONIC_MOST} only in a client that was made with \
             max_decoding_message_size: without it tonic receives no larger message"
        );
        report.warn(at, text);
    }
    Some(bytes)
}

fn policy(at: &At<'_>, report: &mut Report) -> Option<Policy> {
    let (retry, hedging) = (at.field("retryPolicy"), at.field("hedgingPolicy"));
    if !retry.is_absent() && !hedging.is_absent() {
        report.refuse(&hedging, "absent beside a retryPolicy");
    }
    let retry = retry_policy(&retry, report).map(Policy::Retry);
    let hedging = hedging_policy(&hedging, report).map(Policy::Hedging);
    retry.or(hedging)
}

fn retry_policy(at: &At<'_>, report: &mut Report) -> Option<RetryPolicy> {
    const FIELDS: [&str; 6] = [
        "maxAttempts",
        "initialBackoff",
        "maxBackoff",
        "backoffMultiplier",
        "retryableStatusCodes",
        "perAttemptRecvTimeout",
    ];
    at.read(report, OBJECT, Value::as_object)?;
    at.knows(report, &FIELDS);
    let max_attempts = max_attempts(at, report);
    let initial_backoff = at.field("initialBackoff").require(report, ABOVE_0S, above_0s);
    let max_backoff = at.field("maxBackoff").require(report, ABOVE_0S, above_0s);
    let multiplier = |value: &Value| number(value).filter(|number| *number > 0.0);
    let backoff_multiplier =
        at.field("backoffMultiplier").require(report, "a number above 0", multiplier);
    let recv_timeout = at.field("perAttemptRecvTimeout");
    let per_attempt_recv_timeout = recv_timeout.read(report, ABOVE_0S, above_0s);
    if per_attempt_recv_timeout.is_some() {
        report
            .warn(&recv_timeout, "is not honoured: put an AttemptTimeoutLayer inside the retries");
    }
    let codes = at.field("retryableStatusCodes");
    // As in C-core: a policy that retries on silence may list no codes.
    if codes.is_absent_or_empty() && recv_timeout.is_absent() {
        report.refuse(&codes, "a list of at least one status code");
    }
    let retryable_status_codes = failures(&codes, report);
    Some(RetryPolicy {
        max_attempts: max_attempts?,
        initial_backoff: initial_backoff?,
        max_backoff: max_backoff?,
        backoff_multiplier: backoff_multiplier?,
        retryable_status_codes,
        per_attempt_recv_timeout,
    })
}

fn hedging_policy(at: &At<'_>, report: &mut Report) -> Option<HedgingPolicy> {
    at.read(report, OBJECT, Value::as_object)?;
    at.knows(report, &["maxAttempts", "hedgingDelay", "nonFatalStatusCodes"]);
    let max_attempts = max_attempts(at, report);
    let hedging_delay = at.field("hedgingDelay").read(report, FROM_0S, duration::parse);
    let non_fatal_status_codes = failures(&at.field("nonFatalStatusCodes"), report);
    Some(HedgingPolicy {
        max_attempts: max_attempts?,
        hedging_delay: hedging_delay.unwrap_or_default(),
        non_fatal_status_codes,
    })
}

fn retry_throttling(at: &At<'_>, report: &mut Report) -> Option<RetryThrottling> {
    const MAX_TOKENS: &str = "a number of at least 0.001 and at most 1000";
    at.read(report, OBJECT, Value::as_object)?;
    at.knows(report, &["maxTokens", "tokenRatio"]);
    let max_tokens = |value: &Value| number(value).filter(|tokens| *tokens <= 1000.0);
    let max_tokens = |value: &Value| max_tokens(value).and_then(thousandths);
    let max_tokens = at.field("maxTokens").require(report, MAX_TOKENS, max_tokens);
    let token_ratio = |value: &Value| number(value).and_then(thousandths);
    let token_ratio =
        at.field("tokenRatio").require(report, "a number of at least 0.001", token_ratio);
    Some(RetryThrottling { max_tokens: max_tokens?, token_ratio: token_ratio? })
}

fn health(at: &At<'_>, report: &mut Report) -> Option<String> {
    at.read(report, OBJECT, Value::as_object)?;
    at.knows(report, &["serviceName"]);
    let service = at.field("serviceName");
    service.read(report, "a string", |value| value.as_str().map(String::from))
}

/// gRFC A105.
fn connection_scaling(at: &At<'_>, report: &mut Report) {
    at.knows(report, &["maxConnectionsPerSubchannel"]);
    let most = at.field("maxConnectionsPerSubchannel");
    if at.read(report, OBJECT, Value::as_object).is_some() && !most.is_absent() {
        report.warn(&most, "is not honoured: the balancer has one connection to each endpoint");
    }
}

fn max_attempts(at: &At<'_>, report: &mut Report) -> Option<u32> {
    let at = at.field("maxAttempts");
    // The field is a uint32; only a larger value needs an error that says so.
    let exceeds = |number: f64| number > f64::from(u32::MAX) && number.fract() == 0.0;
    let rule = match at.value().and_then(number) {
        Some(number) if exceeds(number) => "an integer of at most 4294967295",
        _ => "an integer of at least 2",
    };
    at.require(report, rule, |value| uint32(value).filter(|attempts| *attempts >= 2))
}

/// The codes after which another attempt is made, or the other attempts continue.
fn failures(at: &At<'_>, report: &mut Report) -> Vec<Code> {
    const CODE: &str = "a status code: 0 to 16, or a name such as \"UNAVAILABLE\"";
    let mut codes = Vec::new();
    for at in at.items(report) {
        let code = at.require(report, CODE, status_code);
        if code == Some(Code::Ok) {
            report.warn(&at, "has no effect: OK is no failure");
        }
        codes.extend(code);
    }
    codes
}

fn status_code(value: &Value) -> Option<Code> {
    match value {
        // An enum in proto3 JSON is its name or its integer, but not its integer in a string.
        Value::String(name) => code::from_name(name).filter(|_| !name.contains('-')),
        _ => uint32(value).and_then(|number| code::all().nth(usize::try_from(number).ok()?)),
    }
}

fn above_0s(value: &Value) -> Option<Duration> {
    duration::parse(value).filter(|duration| !duration.is_zero())
}
