//! Keeps the catalogue, the tests and `CONFORMANCE.md` together.

use std::{collections::BTreeMap, fmt::Write, fs, path::Path};

/// A case of the catalogue: its id, its title, and why it has no test, if it has none.
type Case = (String, String, Option<String>);

const SOURCES: [&str; 24] = [
    "balance/src",
    "breaker/src",
    "cinchona/src",
    "cinchona/tests",
    "cluster/src",
    "core/src",
    "dashboard/src",
    "drain/src",
    "fallback/src",
    "fault/src",
    "idempotency/src",
    "observe/src",
    "otlp/src",
    "plumbing/src",
    "policy/src",
    "redb/src",
    "redis/src",
    "shed/src",
    "retry/src",
    "retry/tests",
    "config/src",
    "deadline/src",
    "calculator/tests",
    "outside/tests",
];

const HEAD: &str = "\
# Conformance

The cases of the test suites of gRPC's C++, Go, Java, JavaScript and .NET clients that bear on
retries, hedging, throttling, pushback, deadlines and service config (`CC`, `CU`, `GO`, `JV`, `JS`,
`DN`), defects found in those clients (`D`), cases that no suite has (`X`), and the laws behind
public bug reports about clients like this one (`S`): the tests here that cover each, or why none
does.

Written by `UPDATE=1 cargo test -p cinchona-retry --test conformance table`.

| case | what it is | test, or why not |
|---|---|---|
";

fn cases(catalogue: &str) -> Vec<Case> {
    let lines = catalogue.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let case = |line: &str| {
        let mut parts = line.split(" | ").map(str::trim);
        let mut part = || parts.next().map(str::to_owned);
        (part().unwrap(), part().expect(line), part())
    };
    lines.map(case).collect()
}

/// The tests that name each case, as `file::test`.
fn annotated(crates: &Path) -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::<String, Vec<String>>::new();
    let mut folders: Vec<_> = SOURCES.map(|source| crates.join(source)).into();
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.retain(|file| file.extension().is_some_and(|extension| extension == "rs"));
    files.sort();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let place = file.strip_prefix(crates).unwrap().to_string_lossy().replace('\\', "/");
        let mut ids = Vec::new();
        for line in text.lines().map(str::trim) {
            if let Some(named) = line.strip_prefix("// catalogue: ") {
                ids.extend(named.split(',').map(|id| id.trim().to_owned()));
            } else if let Some((_, name)) = line.split_once("fn ")
                && let Some((name, _)) = name.split_once('(')
            {
                for id in ids.drain(..) {
                    found.entry(id).or_default().push(format!("{place}::{name}"));
                }
            }
        }
    }
    found
}

fn table(cases: &[Case], tests: &BTreeMap<String, Vec<String>>) -> String {
    let mut text = HEAD.to_owned();
    for (id, title, reason) in cases {
        let tests = tests.get(id).map(|tests| {
            let links = tests.iter().map(|test| format!("`{test}`"));
            links.collect::<Vec<_>>().join("<br>")
        });
        let last = tests.or_else(|| reason.clone()).unwrap_or_default();
        let _ = writeln!(text, "| {id} | {title} | {last} |");
    }
    text
}

#[test]
fn every_case_has_a_test_or_a_reason_and_the_table_says_so() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cases = cases(include_str!("catalogue.txt"));
    let tests = annotated(root.parent().unwrap());
    for (id, _, reason) in &cases {
        assert!(tests.contains_key(id) != reason.is_some(), "{id}: either a test or a reason");
    }
    for (id, tests) in &tests {
        assert!(cases.iter().any(|(known, ..)| known == id), "{tests:?}: no case is called {id}");
    }
    let (file, expected) = (root.join("CONFORMANCE.md"), table(&cases, &tests));
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&file, &expected).unwrap();
    }
    let written = fs::read_to_string(&file).unwrap_or_default();
    assert!(written == expected, "CONFORMANCE.md is not up to date: run this with UPDATE=1");
}
