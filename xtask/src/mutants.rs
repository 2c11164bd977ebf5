//! `cargo xtask mutants`: the code that decides, changed in one place at a time, each time with the
//! tests that should notice. Which files: `.cargo/mutants.toml`; how: `xtask/mutants`.

use crate::command::{cargo_command, run as run_command};

/// The crates that decide.
const CRATES: [&str; 5] = ["core", "policy", "retry", "shed", "idempotency"];

/// Leaves out the tests that take long, and the mutants that need a build of their own.
const SHORT: &str = "--short";

/// Runs the mutants of the crates in `args`, or of all, that no earlier run has killed. What became
/// of each is in `target/mutants/<crate>.tsv`.
pub(crate) fn run(args: &[&str]) -> u8 {
    let Some(args) = read(args) else {
        eprintln!("usage: cargo xtask mutants [{SHORT}] [{}]...", CRATES.join("|"));
        return 2;
    };
    // A workspace of its own: a parser of Rust is nothing that its members need.
    let tool = "run --quiet --release --manifest-path xtask/mutants/Cargo.toml --target-dir";
    let tool = tool.split(' ').chain(["target/mutants/tool", "--"]);
    run_command(cargo_command().args(tool).args(args))
}

fn read<'a>(args: &[&'a str]) -> Option<Vec<&'a str>> {
    let (flags, crates): (Vec<_>, Vec<_>) = args.iter().partition(|arg| **arg == SHORT);
    let is_known = crates.iter().all(|name| CRATES.contains(name));
    let crates = if crates.is_empty() { CRATES.to_vec() } else { crates };
    is_known.then(|| [flags, crates].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::root;
    use std::fs;

    #[test]
    fn the_crates_of_the_command_are_taken_or_all_of_them() {
        assert_eq!(read(&[]), Some(CRATES.to_vec()));
        assert_eq!(read(&["shed", "core"]), Some(vec!["shed", "core"]));
        assert_eq!(read(&["shed", "--short"]), Some(vec!["--short", "shed"]));
        assert_eq!(read(&["--short"]), Some([&["--short"], &CRATES[..]].concat()));
        assert_eq!([read(&["cores"]), read(&["--shard"])], [None, None]);
    }

    /// A file that was renamed would be left out without a word.
    #[test]
    fn each_file_that_is_to_be_changed_exists_and_each_crate_has_some() {
        let text = fs::read_to_string(root().join(".cargo/mutants.toml")).unwrap();
        let quoted = |line: &str| Some(line.trim().strip_prefix('"')?.split('"').next()?.into());
        let globs: Vec<String> = text.lines().filter_map(quoted).collect();
        for name in CRATES {
            let of_crate = format!("crates/{name}/src/");
            assert!(globs.iter().any(|glob| glob.starts_with(&of_crate)), "{name}");
        }
        for glob in globs {
            let (before, rest) = glob.split_once('{').unwrap_or((&glob, "}"));
            let (names, after) = rest.split_once('}').unwrap();
            for name in names.split(',') {
                let path = format!("{before}{name}{after}").replace("/*.rs", "");
                assert!(root().join(&path).exists(), "{path}");
            }
        }
    }
}
