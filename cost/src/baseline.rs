//! The instruction counts that a change is compared with.

use crate::{Name, Side};
use cinchona::core::BoxError;
use std::{collections::BTreeMap, fmt::Write, fs};

/// How much more or less is still the same.
const MOST: f64 = 0.03;
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/baseline.txt");

/// Counts by the side and the name of their rows.
#[derive(Debug)]
pub(crate) struct Baseline(BTreeMap<String, f64>);

// === impl Baseline ===

impl Baseline {
    pub(crate) fn read() -> Result<Self, BoxError> {
        let text = fs::read_to_string(FILE).map_err(|error| format!("{FILE}: {error}"))?;
        Self::parse(&text)
    }

    /// Rows that were not counted stay as they are.
    pub(crate) fn write(counts: &BTreeMap<Name, f64>) -> Result<(), BoxError> {
        let mut all = Self::read().unwrap_or(Self(BTreeMap::new()));
        all.0.extend(counts.iter().map(|(name, count)| (key(*name), *count)));
        let mut text = String::new();
        for (name, count) in &all.0 {
            writeln!(text, "{count:.0}\t{name}")?;
        }
        Ok(fs::write(FILE, text)?)
    }

    /// What is no longer so, a line each. A gain is one as well: it is to be kept.
    pub(crate) fn differences(&self, counts: &BTreeMap<Name, f64>) -> Vec<String> {
        let difference = |(name, count): (&Name, &f64)| {
            let key = key(*name);
            let Some(before) = self.0.get(&key) else {
                return Some(format!("{key}: not in the baseline; `--write` puts it there"));
            };
            let change = count / before - 1.0;
            (change.abs() > MOST).then(|| {
                format!(
                    "{key}: {before:.0} instructions before, {count:.0} now ({:+.1} %)",
                    change * 100.0
                )
            })
        };
        counts.iter().filter_map(difference).collect()
    }

    fn parse(text: &str) -> Result<Self, BoxError> {
        let row = |line: &str| {
            let (count, name) = line.split_once('\t').ok_or_else(|| format!("{FILE}: {line}"))?;
            Ok((name.to_owned(), count.parse()?))
        };
        Ok(Self(text.lines().map(row).collect::<Result<_, BoxError>>()?))
    }
}

fn key((side, name): Name) -> String {
    match side {
        Side::Client => format!("client {name}"),
        Side::Server => format!("server {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_by_more_than_three_percent_either_way_is_named() {
        let baseline = Baseline::parse("1000\tclient a\n1000\tclient b\n1000\tserver a\n").unwrap();
        let counts = [
            ((Side::Client, "a"), 1031.0),
            ((Side::Client, "b"), 1029.0),
            ((Side::Server, "a"), 969.0),
            ((Side::Server, "new"), 1.0),
        ];
        let differences = baseline.differences(&counts.into());
        let about: Vec<_> = differences.iter().map(|line| line.split(':').next()).collect();
        assert_eq!(about, [Some("client a"), Some("server a"), Some("server new")]);
    }
}
