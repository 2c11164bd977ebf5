//! The instructions and allocations that a change is compared with.

use crate::{Name, Side, table::Table, tools};
use cinchona::core::BoxError;
use std::{collections::BTreeMap, fmt::Write, fs};

/// How much more or less is still the same. Of allocations two are: a queue that grows at another
/// moment is one more or less.
const MOST: f64 = 0.03;
const MOST_ALLOCATIONS: f64 = 2.0;
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/baseline.txt");

/// Counts by what is counted, the side and the name of their rows, and the tools that they were made with.
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
    pub(crate) fn write(table: &Table) -> Result<(), BoxError> {
        let tools = tools::versions();
        let before = Self::read().ok().filter(|before| before.tools == tools);
        let mut all = before.unwrap_or_default().counts;
        all.extend(counts(table));
        let mut text = format!("{tools}\n");
        for (name, count) in &all {
            writeln!(text, "{count:.1}\t{name}")?;
        }
        Ok(fs::write(FILE, text)?)
    }

    /// What is no longer so, a line each. Counts of other tools are not compared.
    pub(crate) fn compare(&self, table: &Table) -> Vec<String> {
        let tools = tools::versions();
        if self.tools == tools {
            return self.differences(counts(table));
        }
        println!("not compared: the baseline was made with {}, here are {tools}", self.tools);
        Vec::new()
    }

    /// A gain is a difference as well: it is to be kept.
    fn differences(&self, counts: impl Iterator<Item = (String, f64)>) -> Vec<String> {
        let difference = |(key, count): (String, f64)| {
            let Some(before) = self.counts.get(&key) else {
                return Some(format!("{key}: not in the baseline; `--write` puts it there"));
            };
            let change = count / before - 1.0;
            let is_same = change.abs() <= MOST || (count - before).abs() <= MOST_ALLOCATIONS;
            let change = change * 100.0;
            (!is_same)
                .then(|| format!("{key}: {before:.1} before, {count:.1} now ({change:+.1} %)"))
        };
        counts.filter_map(difference).collect()
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

fn counts(table: &Table) -> impl Iterator<Item = (String, f64)> {
    let of = |what, counts: &BTreeMap<Name, f64>| {
        let named = move |(name, count): (&Name, &f64)| (key(what, *name), *count);
        counts.iter().map(named).collect::<Vec<_>>()
    };
    let instructions = of("instructions", &table.instructions);
    instructions.into_iter().chain(of("allocations", &table.allocations))
}

fn key(what: &str, (side, name): Name) -> String {
    match side {
        Side::Client => format!("{what} client {name}"),
        Side::Server => format!("{what} server {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_by_more_than_three_percent_either_way_is_named() {
        let baseline = Baseline::parse("tools\n1000\ta\n1000\tb\n1000\tc\n39\td\n39\te\n").unwrap();
        let counts = [("a", 1031.0), ("b", 1029.0), ("c", 969.0), ("d", 41.5), ("e", 41.0)];
        let counts = counts.into_iter().chain([("new", 1.0)]);
        let differences = baseline.differences(counts.map(|(key, count)| (key.to_owned(), count)));
        let about: Vec<_> = differences.iter().map(|line| line.split(':').next()).collect();
        assert_eq!(about, [Some("a"), Some("c"), Some("d"), Some("new")]);
    }
}
