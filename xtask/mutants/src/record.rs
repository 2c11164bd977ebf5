//! What became of each mutant, a line each: a run that is stopped goes on where it was.

use crate::{mutant::Mutant, test::Outcome};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::Path,
};

/// A file of lines: an outcome, a tab, a mutant.
#[derive(Debug)]
pub(crate) struct Record {
    file: File,
    outcomes: BTreeMap<String, Outcome>,
}

impl Record {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        let lines = fs::read_to_string(path).unwrap_or_default();
        let line = |line: &str| {
            let (word, name) = line.split_once('\t')?;
            let outcome = Outcome::ALL.into_iter().find(|outcome| outcome.word() == word)?;
            Some((name.to_owned(), outcome))
        };
        let outcomes = lines.lines().filter_map(line).collect();
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        Ok(Self { file, outcomes })
    }

    /// Those that need not be run again.
    pub(crate) fn known(&self) -> BTreeSet<String> {
        let known = self.outcomes.iter().filter(|(_, outcome)| **outcome != Outcome::Survived);
        known.map(|(name, _)| name.clone()).collect()
    }

    pub(crate) fn add(&mut self, mutant: &Mutant, outcome: Outcome) -> io::Result<()> {
        println!("{}\t{}", outcome.word(), mutant.name);
        self.outcomes.insert(mutant.name.clone(), outcome);
        writeln!(self.file, "{}\t{}", outcome.word(), mutant.name)
    }

    /// How many of each, file by file.
    pub(crate) fn print(&self, name: &str) {
        let mut files: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
        for (mutant, outcome) in &self.outcomes {
            let file = mutant.split(':').next().unwrap_or(name);
            *files.entry(file).or_default().entry(outcome.word()).or_default() += 1;
        }
        for (file, counts) in files {
            println!("{file}: {counts:?}");
        }
    }
}
