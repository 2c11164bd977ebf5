//! `cargo xtask mutants`: the code that decides, changed in one place at a time, each time with the
//! tests that should notice. Which files, and which tests: `.cargo/mutants.toml`.

use crate::command::{cargo_command, run as run_command};

/// The crates that decide.
const CRATES: [&str; 6] = ["core", "retry", "breaker", "shed", "idempotency", "cluster"];

/// Runs the mutants of the crates in `args`, or of all, or a shard of them (`--shard 2/8`: the
/// eighth that comes third). What survived is in `target/mutants/<crate>/mutants.out`.
pub(crate) fn run(args: &[&str]) -> u8 {
    let Some((crates, shard)) = read(args) else {
        eprintln!("usage: cargo xtask mutants [{}]... [--shard K/N]", CRATES.join("|"));
        return 2;
    };
    // Each to its end, whatever survives in another.
    let codes = crates.iter().map(|name| {
        println!("== {name}");
        run_command(cargo_command().args(command(name, shard)))
    });
    codes.max().unwrap_or(0)
}

type Chosen<'a> = (Vec<&'a str>, Option<&'a str>);

fn read<'a>(args: &[&'a str]) -> Option<Chosen<'a>> {
    let (names, shard) = match args {
        [names @ .., "--shard", shard] => (names, Some(*shard)),
        names => (names, None),
    };
    let is_known = names.iter().all(|name| CRATES.contains(name));
    is_known.then(|| (if names.is_empty() { CRATES.to_vec() } else { names.to_vec() }, shard))
}

fn command(name: &str, shard: Option<&str>) -> Vec<String> {
    let words = format!("mutants --package cinchona-{name} --output target/mutants/{name}");
    let shard = shard.map(|shard| format!("--shard {shard}")).unwrap_or_default();
    words.split(' ').chain(shard.split_whitespace()).map(String::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::root;
    use std::fs;

    #[test]
    fn the_crates_of_the_command_are_taken_or_all_of_them() {
        assert_eq!(read(&[]), Some((CRATES.to_vec(), None)));
        assert_eq!(read(&["shed", "core"]), Some((vec!["shed", "core"], None)));
        assert_eq!(read(&["--shard", "0/8"]), Some((CRATES.to_vec(), Some("0/8"))));
        assert_eq!(read(&["core", "--shard", "1/2"]), Some((vec!["core"], Some("1/2"))));
        assert_eq!([read(&["cores"]), read(&["--shard"]), read(&["--help"])], [None, None, None]);
    }

    #[test]
    fn a_crate_has_a_command_and_a_directory_of_its_own() {
        let words = "mutants --package cinchona-shed --output target/mutants/shed";
        assert_eq!(command("shed", None).join(" "), words);
        assert_eq!(command("shed", Some("1/2")).join(" "), format!("{words} --shard 1/2"));
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
