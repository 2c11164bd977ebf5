//! The parts of a config without an effect in the client to which it is applied.

use crate::{Client, MethodEntry, Name, Policy, ServiceConfig, Warning, nearest};
use cinchona_core::Methods;
use cinchona_plumbing::is_of_the_server;
use std::{
    collections::{BTreeMap, BTreeSet},
    ptr,
};

/// How many methods a warning names.
const SHOWN: usize = 5;

pub(crate) fn of(config: &ServiceConfig, client: Client<'_>) -> Vec<Warning> {
    let methods = client.retry.methods();
    let mut warnings = Vec::new();
    for entry in &config.methods {
        warnings.extend(cut(entry, client.attempts));
        if client.limits.is_none() {
            warnings.extend(sizes(entry));
        }
        warnings.extend(not_twice(entry, config, methods));
    }
    warnings.extend(nothing_known(config, methods));
    warnings.extend(strangers(config, methods));
    warnings.extend(unbalanced(config));
    warnings
}

/// Attempts beyond the client's limit.
fn cut(entry: &MethodEntry, limit: u32) -> Option<Warning> {
    let (kind, attempts) = match entry.config.policy.as_ref()? {
        Policy::Retry(retry) => ("retryPolicy", retry.max_attempts),
        Policy::Hedging(hedging) => ("hedgingPolicy", hedging.max_attempts),
    };
    let path = format!("methodConfig[{}].{kind}.maxAttempts", entry.index);
    let text = format!("is cut to {limit}, the most that this client makes");
    (attempts > limit).then(|| Warning::new(&path, text))
}

fn sizes(entry: &MethodEntry) -> impl Iterator<Item = Warning> {
    let config = &entry.config;
    let fields = [
        ("maxRequestMessageBytes", config.max_request_message_bytes),
        ("maxResponseMessageBytes", config.max_response_message_bytes),
    ];
    let set = fields.into_iter().filter(|(_, bytes)| bytes.is_some());
    set.map(|(field, _)| {
        let path = format!("methodConfig[{}].{field}", entry.index);
        Warning::new(&path, "is not honoured: this client was given no MessageLimitsLayer")
    })
}

/// Methods that the entry would retry or hedge and that may not be executed twice.
fn not_twice(entry: &MethodEntry, config: &ServiceConfig, methods: &Methods) -> Option<Warning> {
    let kind = match entry.config.policy.as_ref()? {
        Policy::Retry(_) => "retryPolicy",
        Policy::Hedging(_) => "hedgingPolicy",
    };
    let is_meant =
        |path: &&str| config.method(path).is_some_and(|own| ptr::eq(own, &raw const entry.config));
    let paths: BTreeSet<&str> = methods.unsafe_paths().filter(is_meant).collect();
    if paths.is_empty() {
        return None;
    }
    let shown: Vec<_> = paths.iter().copied().take(SHOWN).collect();
    let more = match paths.len() - shown.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let text = format!(
        "does not act after a failure that leaves open whether {}{more} was executed, as nothing \
         says that it may be executed twice: put `option idempotency_level` into the .proto, send \
         an idempotency-key, or tell `Methods`",
        shown.join(", ")
    );
    Some(Warning::new(&format!("methodConfig[{}].{kind}", entry.index), text))
}

/// The safety of no method is known, and the config would repeat some.
fn nothing_known(config: &ServiceConfig, methods: &Methods) -> Option<Warning> {
    let is_known = methods.paths().next().is_some() || methods.safety("").allows_repeating();
    let repeats = config.methods.iter().any(|entry| entry.config.policy.is_some());
    let text = "retries and hedges only what provably was not processed, as nothing is known of \
        any method: use `Methods::from_file_descriptor_set`, or `Methods::all_idempotent` where \
        every method may be executed twice, as gRPC assumes";
    (repeats && !is_known).then(|| Warning::new("methodConfig", text))
}

/// Names that are in no descriptor; without descriptors, any name may exist.
fn strangers(config: &ServiceConfig, methods: &Methods) -> Vec<Warning> {
    let mut known: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (service, method) in methods.paths().filter_map(|path| path[1..].rsplit_once('/')) {
        known.entry(service).or_default().insert(method);
    }
    let mut warnings = Vec::new();
    for MethodEntry { index, names, .. } in &config.methods {
        for (number, name) in names.iter().enumerate() {
            if let Some(nearest) = nearest_to(name, &known) {
                let text = format!(
                    "names no method of the descriptor set: {} is unknown, the nearest that is \
                     known is {nearest}",
                    path(name)
                );
                warnings.push(Warning::new(&format!("methodConfig[{index}].name[{number}]"), text));
            }
        }
    }
    warnings
}

/// The known name nearest to an unknown one.
fn nearest_to(name: &Name, known: &BTreeMap<&str, BTreeSet<&str>>) -> Option<String> {
    let Name { service, method } = name;
    if service.is_empty() || is_of_the_server(&path(name)) {
        return None;
    }
    let own = known.get(&**service);
    if own.is_some_and(|own| method.is_empty() || own.contains(&**method)) {
        return None;
    }
    let service = match own {
        Some(_) => service,
        None => nearest::nearest(service, known.keys().copied())?,
    };
    let methods = known.get(service)?;
    let method = match method.as_str() {
        "" => "",
        method => nearest::nearest(method, methods.iter().copied())?,
    };
    Some(path(&Name { service: service.to_owned(), method: method.to_owned() }))
}

fn path(Name { service, method }: &Name) -> String {
    // A name without control characters, so that the warning stays on one line.
    format!("/{service}/{method}").escape_debug().to_string()
}

/// Settings of load balancing and health checks, if no balancer was made from the config.
fn unbalanced(config: &ServiceConfig) -> impl Iterator<Item = Warning> {
    let picks = config.picker.is_some();
    let parts = [
        ("loadBalancingConfig", picks || config.outlier_detection.is_some()),
        ("healthCheckConfig", config.health.is_some()),
    ];
    let is_left = !config.used.has_balanced();
    parts.into_iter().filter(move |(_, is_set)| *is_set && is_left).map(|(path, _)| {
        let text = "acts only in a balancer that is made with ServiceConfig::balance, which this \
            config was not asked for: one that runs keeps its options";
        Warning::new(path, text)
    })
}
