//! The instruction counts that a change is compared with.

use crate::{Name, Side, tools};
use cinchona::core::BoxError;
use std::{collections::BTreeMap, fmt::Write, fs};

/// How much more or less is still the same.
const MOST: f64 = 0.03;
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/baseline.txt");

/// Counts by the side and the name of their rows, and the tools that they were made with.
#[derive(Debug, Default)]
pub(crate) struct Baseline {
    tools: String,
    counts: BTreeMap<String, f64>,
}

// === impl Baseline ===

impl Baseline {
    pub(crate) fn read() -> Result<Self, BoxError> {
        let text = fs::read_to_string(FILE).map_err(|error| format!("{FILE}: {error}"))?;
        Self::parse(&text)
    }

    /// Rows that were not counted stay as they are, if they were made with the same tools.
    pub(crate) fn write(counts: &BTreeMap<Name, f64>) -> Result<(), BoxError> {
        let tools = tools::versions();
        let before = Self::read().ok().filter(|before| before.tools == tools);
        let mut all = before.unwrap_or_default().counts;
        all.extend(counts.iter().map(|(name, count)| (key(*name), *count)));
        let mut text = format!("{tools}\n");
        for (name, count) in &all {
            writeln!(text, "{count:.0}\t{name}")?;
        }
        Ok(fs::write(FILE, text)?)
    }

    /// What is no longer so, a line each. Counts of other tools are not compared.
    pub(crate) fn compare(&self, counts: &BTreeMap<Name, f64>) -> Vec<String> {
        let tools = tools::versions();
        if self.tools == tools {
            return self.differences(counts);
        }
        println!("not compared: the baseline was made with {}, here are {tools}", self.tools);
        Vec::new()
    }

    /// A gain is a difference as well: it is to be kept.
    fn differences(&self, counts: &BTreeMap<Name, f64>) -> Vec<String> {
        let difference = |(name, count): (&Name, &f64)| {
            let key = key(*name);
            let Some(before) = self.counts.get(&key) else {
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
        let (tools, rows) = text.split_once('\n').ok_or_else(|| format!("{FILE}: it is empty"))?;
        let counts = rows.lines().map(row).collect::<Result<_, BoxError>>()?;
        Ok(Self { tools: tools.to_owned(), counts })
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
        let baseline =
            Baseline::parse("tools\n1000\tclient a\n1000\tclient b\n1000\tserver a\n").unwrap();
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
