//! Decisions are in a crate of their own, and none of them names another.
//!
//! *Rule:* a module that `policy` exports is a decision, but for those of its words. What has moved
//! there is not beside a service again.

use super::{
    rust::{RustFile, is_file_of},
    uses::Uses,
    violation::Violation,
};
use std::collections::BTreeSet;

const ROOT: &str = "crates/policy/src/";
/// What decisions share.
const WORDS: [&str; 2] = ["clock", "shard"];

/// The modules that were decisions of the crates that serve.
const MOVED: [(&str, &[&str]); 6] = [
    ("balance", &["ejections", "first", "link", "load", "outlier", "utilization"]),
    ("breaker", &["limits", "pass", "policy", "shard", "state", "suspects", "usual", "window"]),
    ("cluster", &["members", "partition", "permission", "phi", "suspicion", "view"]),
    ("idempotency", &["memory/records", "memory/shard", "outcome"]),
    ("retry", &["budget", "codes", "hedge", "policy", "race", "step", "stop", "throttle"]),
    ("shed", &["adaptive", "gradient", "limit", "limiter", "measured", "waiting"]),
];

pub(super) fn check<'a>(
    paths: impl Iterator<Item = &'a String>,
    sources: &[RustFile<'_>],
) -> Vec<Violation> {
    let decisions = decisions(sources);
    let own = sources.iter().filter(|source| !source.is_test && source.path.starts_with(ROOT));
    let named = own.flat_map(|source| names_another(source, &decisions));
    named.chain(paths.filter_map(|path| beside_a_service(path))).collect()
}

/// The modules that the crate exports, by its root.
fn decisions<'a>(sources: &[RustFile<'a>]) -> BTreeSet<&'a str> {
    let lib = sources.iter().find(|source| source.path.strip_prefix(ROOT) == Some("lib.rs"));
    let lib = lib.map_or("", |lib| lib.text);
    let exported = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    exported.filter(|module| !WORDS.contains(module)).collect()
}

fn names_another(source: &RustFile<'_>, decisions: &BTreeSet<&str>) -> Vec<Violation> {
    let within = source.path[ROOT.len()..].trim_end_matches(".rs");
    let module = within.split('/').next().unwrap_or_default();
    if !decisions.contains(module) {
        return Vec::new();
    }
    let is_root = within == module;
    let other = |path: &[&str]| {
        let name = *path.get(1)?;
        let from_root = path[0] == "crate" || is_root && path[0] == "super";
        (from_root && name != module && decisions.contains(name)).then(|| name.to_owned())
    };
    let uses = Uses::new(source);
    let named = uses.named(|_| false).filter_map(|(path, line)| {
        let what = format!("{module} names {}", other(&path)?);
        Some(Violation {
            path: source.path.to_owned(),
            line,
            what,
            rule: "a decision names no other",
        })
    });
    named.collect()
}

fn beside_a_service(path: &str) -> Option<Violation> {
    let is_it = |(library, modules): &(&str, &[&str])| {
        let module = |module: &&str| is_file_of(path, &format!("crates/{library}/src/{module}"));
        modules.iter().any(module)
    };
    MOVED.iter().any(is_it).then(|| Violation {
        path: path.to_owned(),
        line: 1,
        what: "a decision beside a service".to_owned(),
        rule: "decisions are in `crates/policy`, which knows no host",
    })
}
