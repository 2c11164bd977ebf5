//! What the Grafana dashboard asks for, and whether a page has it.

use std::collections::{BTreeMap, BTreeSet};

/// What a dashboard asks for: metrics, and the labels that it wants of each.
pub(crate) fn asked() -> BTreeMap<String, BTreeSet<String>> {
    const GRAFANA: &str = include_str!("../../../observe/grafana.json");
    let dashboard: serde_json::Value = serde_json::from_str(GRAFANA).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let mut asked = BTreeMap::<String, BTreeSet<String>>::new();
    for target in targets {
        let query = target["expr"].as_str().unwrap();
        let (rest, labels) = without_labels(query);
        let words = rest.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        for name in words.filter(|word| word.contains('_') && *word != "histogram_quantile") {
            if !matches!(name, "group_left" | "__rate_interval") {
                asked.entry(name.to_owned()).or_default().extend(labels.clone());
            }
        }
    }
    asked
}

/// A query without what stands in `{}` and after `by` and `ignoring`, and the labels of these.
fn without_labels(query: &str) -> (String, BTreeSet<String>) {
    let (mut rest, mut labels) = (String::new(), BTreeSet::new());
    let mut parts = query;
    while let Some(at) = ["{", "by (", "ignoring("].iter().filter_map(|s| parts.find(s)).min() {
        let begin = at + parts[at..].find(['{', '(']).unwrap() + 1;
        let end = begin + parts[begin..].find(['}', ')']).unwrap();
        let named = parts[begin..end].split(',').map(|label| label.split(['=', '!']).next());
        labels.extend(named.flatten().map(|label| label.trim().to_owned()));
        rest += &parts[..at];
        parts = &parts[end + 1..];
    }
    (rest + parts, labels)
}

/// Those that `text` has not got, in Prometheus's format.
pub(crate) fn missing(asked: &BTreeMap<String, BTreeSet<String>>, text: &str) -> Vec<String> {
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let has = |name: &str, labels: &BTreeSet<String>| {
        let of_it = |line: &&&str| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
        };
        lines.iter().find(of_it).is_some_and(|line| {
            labels.iter().all(|label| {
                let is_there = ["{", ","].iter().any(|b| line.contains(&format!("{b}{label}=\"")));
                // The bounds of buckets, where what they are of is asked for as well.
                is_there || label == "le"
            })
        })
    };
    asked
        .iter()
        .filter(|(name, of)| !has(name, of))
        .map(|(name, of)| format!("{name}{of:?}"))
        .collect()
}
