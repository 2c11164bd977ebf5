//! `cargo xtask tidy`: the house rules that a program can check, each violation on a line.
//!
//! It reads the files that git tracks, or would track; without git it walks the workspace.
//! It sees tokens, not types: what a macro makes, or a helper function does, it does not know.

mod circles;
mod decisions;
mod edges;
mod lexer;
mod phases;
mod rules;
mod rust;
mod uses;
mod violation;

use crate::manifest::Manifest;
use rust::{RustFile, is_file_of, place};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
    process::{Command, Stdio},
};
use violation::Violation;

/// The text files of the workspace, by their paths from its root.
type Files = BTreeMap<String, String>;

/// Prints each violation; 1 if there is any.
pub(crate) fn run(root: &Path) -> u8 {
    let violations = match read(root) {
        Ok(files) => check(&files),
        Err(error) => {
            eprintln!("cannot read the workspace: {error}");
            return 1;
        }
    };
    for violation in &violations {
        println!("{violation}");
    }
    u8::from(!violations.is_empty())
}

fn check(files: &Files) -> Vec<Violation> {
    let sources = files.iter().filter(|(path, _)| is_ours(path));
    let mut sources: Vec<_> = sources.map(|(path, text)| RustFile::new(path, text)).collect();
    let only_in_tests: BTreeSet<_> = sources.iter().flat_map(RustFile::test_modules).collect();
    for source in &mut sources {
        source.is_test |= only_in_tests.iter().any(|module| is_file_of(source.path, module));
    }
    let is_manifest =
        |path: &str| path.split('/').next_back() == Some("Cargo.toml") && !is_beside(path);
    let manifests = files.iter().filter(|(path, _)| is_manifest(path));

    let mut violations = Vec::new();
    violations.extend(files.iter().flat_map(|(path, text)| machine_paths(path, text)));
    violations.extend(sources.iter().flat_map(RustFile::violations));
    violations.extend(public_types(&sources));
    violations.extend(phases::check(&sources));
    violations.extend(circles::check(&sources));
    violations.extend(decisions::check(files.keys(), &sources));
    violations
        .extend(manifests.flat_map(|(path, text)| edges::check(path, &Manifest::parse(text))));
    violations.sort();
    violations
}

fn is_ours(path: &str) -> bool {
    let is_in_a_room = path.starts_with("crates/") || path.starts_with("xtask/");
    path.ends_with(".rs") && is_in_a_room && !is_beside(path)
}

/// What compares us with others is no part of the house.
fn is_beside(path: &str) -> bool {
    path.starts_with("xtask/peers/") || path.starts_with("xtask/cost/")
}

/// A path from the root of the file system means something on one machine only.
fn machine_paths<'a>(path: &'a str, text: &'a str) -> impl Iterator<Item = Violation> + 'a {
    // Joined here, so that this file does not break its own rule.
    const HOMES: [&str; 2] = [concat!("/", "root/"), concat!("/", "home/")];
    let starts = |before: &str| {
        !before.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '~' | '}'))
    };
    text.lines().enumerate().flat_map(move |(number, line)| {
        let found = HOMES
            .into_iter()
            .filter(move |home| line.match_indices(home).any(|(at, _)| starts(&line[..at])));
        found.map(move |home| Violation {
            path: path.to_owned(),
            line: number + 1,
            what: format!("a path under `{home}`"),
            rule: "no file names a path of one machine",
        })
    })
}

const MOST_PUBLIC_TYPES: usize = 12;

/// Crates that may have more, and why it is so: see `crates/README.md`.
const ROOMIER: [(&str, usize); 9] = [
    // 25 with those of `policy` that it exports again.
    ("core", 20),
    ("cinchona", 14),
    ("cluster", 14),
    ("fault", 15),
    ("retry", 14),
    ("idempotency", 15),
    ("balance", 16),
    ("shed", 16),
    ("config", 17),
];

fn public_types(sources: &[RustFile<'_>]) -> Vec<Violation> {
    let mut crates: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for source in sources {
        let Some((library, "src")) = place(source.path) else { continue };
        if !matches!(library, "testkit" | "calculator" | "plumbing" | "policy") {
            let types = source.public_types().into_iter().filter(|name| !is_phase(name));
            crates.entry(library).or_default().extend(types);
        }
    }
    let most = |library: &str| {
        let own = ROOMIER.into_iter().find(|(name, _)| *name == library);
        own.map_or(MOST_PUBLIC_TYPES, |(_, most)| most)
    };
    crates.retain(|library, types| types.len() > most(library));
    let violation = |(library, types): (&str, Vec<&str>)| Violation {
        path: format!("crates/{library}/src/lib.rs"),
        line: 1,
        what: format!("{} public types ({})", types.len(), types.join(", ")),
        rule: "at most 12 a crate, or as many as ROOMIER allows it",
    };
    crates.into_iter().map(violation).collect()
}

/// The settings and the counters of a layer, which every layer has.
fn is_phase(name: &str) -> bool {
    name.ends_with("Settings") || name.ends_with("Counters")
}

fn read(root: &Path) -> io::Result<Files> {
    let paths = match git_files(root) {
        Some(paths) => paths,
        None => walk(root)?,
    };
    let mut files = Files::new();
    for path in paths {
        match fs::read_to_string(root.join(&path)) {
            Ok(text) => _ = files.insert(path, text),
            // Not text, or deleted and not committed yet, or a link to a directory.
            Err(error) if is_no_text(&error) => {}
            Err(error) => return Err(io::Error::new(error.kind(), format!("{path}: {error}"))),
        }
    }
    Ok(files)
}

fn is_no_text(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, IsADirectory, NotFound};
    matches!(error.kind(), InvalidData | IsADirectory | NotFound)
}

/// What git tracks or would track; none without git, or outside a repository.
fn git_files(root: &Path) -> Option<BTreeSet<String>> {
    let mut command = Command::new("git");
    command.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let output = command.current_dir(root).stderr(Stdio::null()).output().ok()?;
    let names = String::from_utf8_lossy(&output.stdout);
    let files: BTreeSet<_> =
        names.split('\0').filter(|name| !name.is_empty()).map(String::from).collect();
    // An unpacked archive below some other repository's ignored directory has no files at all.
    (output.status.success() && files.contains("Cargo.toml")).then_some(files)
}

fn walk(root: &Path) -> io::Result<BTreeSet<String>> {
    let mut files = BTreeSet::new();
    let mut directories = vec![String::new()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(root.join(&directory))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path =
                if directory.is_empty() { name.clone() } else { format!("{directory}/{name}") };
            match entry.file_type()? {
                kind if kind.is_dir() && (name == "target" || name == ".git") => {}
                kind if kind.is_dir() => directories.push(path),
                _ => _ = files.insert(path),
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests;
