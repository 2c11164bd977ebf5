//! Which crates serve with what another decides: the tests that need a host are theirs.

/// The modules of `policy`, and who serves with each.
const SERVING: [(&str, &[&str]); 11] = [
    ("breaker", &["breaker"]),
    ("client_throttle", &["shed"]),
    ("cluster", &["cluster"]),
    ("concurrency", &["shed"]),
    ("connect", &["balance"]),
    ("dedup", &["idempotency"]),
    ("load", &["balance"]),
    ("outlier", &["balance"]),
    ("pick", &["balance"]),
    ("retry", &["retry"]),
    ("utilization", &["balance"]),
];

/// Who may serve with what is in none of them: a word, a clock.
pub(crate) const ALL: [&str; 6] = ["retry", "breaker", "shed", "idempotency", "cluster", "balance"];

/// Their tests beside the unit tests that need no other program.
pub(crate) const QUICK: [&str; 1] = ["conformance"];

/// What only a network shows, whose tests are in retry's `conformance`.
const BY_NETWORK: [&str; 2] = ["crates/core/src/verdict", "crates/retry/src/"];

/// The crates that serve with the module that `file` is, or is a part of.
pub(crate) fn with(file: &str) -> &'static [&'static str] {
    if BY_NETWORK.iter().any(|part| file.starts_with(part)) {
        return &["retry"];
    }
    let Some(within) = file.strip_prefix("crates/policy/src/") else { return &[] };
    let module = within.split(['/', '.']).next().unwrap_or_default();
    let serving = SERVING.iter().find(|(name, _)| *name == module);
    serving.map_or(&ALL, |(_, crates)| crates)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::Path};

    #[test]
    fn a_part_of_a_decision_is_served_by_the_crates_of_the_decision_and_a_word_by_all() {
        assert_eq!(with("crates/policy/src/retry.rs"), ["retry"]);
        assert_eq!(with("crates/policy/src/retry/budget/buckets.rs"), ["retry"]);
        assert_eq!(with("crates/policy/src/code.rs"), ALL);
        assert_eq!(with("crates/core/src/verdict/status.rs"), ["retry"]);
        assert_eq!(with("crates/retry/src/plan.rs"), ["retry"]);
        assert_eq!(with("crates/core/src/deadline.rs"), [""; 0]);
    }

    /// A decision that was renamed, or a crate that serves with another one, would be left out
    /// without a word.
    #[test]
    fn each_decision_is_there_and_is_named_by_the_crates_that_serve_with_it_alone() {
        let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates");
        let lib = fs::read_to_string(crates.join("policy/src/lib.rs")).unwrap();
        let table = lib.split("| what is decided |").nth(1).unwrap();
        let table = table.split("| word |").next().unwrap();
        let decisions =
            table.lines().filter_map(|line| line.strip_prefix("//! | [`")?.split('`').next());
        let known: Vec<&str> = SERVING.iter().map(|(name, _)| *name).collect();
        assert_eq!(decisions.collect::<Vec<_>>(), known);
        for (module, serving) in SERVING {
            for name in ALL {
                let names = text(&crates.join(name).join("src"));
                let names = names.split("cinchona_policy::").skip(1);
                let mut items = names.filter_map(|after| after.split(';').next());
                let named = items.any(|item| item.contains(&format!("{module}::")));
                assert_eq!(named, serving.contains(&name), "{name} and {module}");
            }
        }
    }

    fn text(directory: &Path) -> String {
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let text = |path: std::path::PathBuf| match path.is_dir() {
            true => text(&path),
            false => fs::read_to_string(path).unwrap_or_default(),
        };
        entries.map(text).collect()
    }
}
