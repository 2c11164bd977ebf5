//! `cargo xtask ci`: everything that a change must pass, cheapest first.
#![expect(clippy::disallowed_types, reason = "xtask has no runtime whose clock a test could pause")]

use crate::{
    command::{cargo_command, run as run_command, run_lines},
    left_out::{self, LeftOut},
    manifest::Manifest,
    street, tidy,
};
use std::{
    collections::BTreeMap,
    fs, io,
    ops::AddAssign,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

/// One check, and the command that repeats it by hand.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    name: String,
    check: Check,
}

#[derive(Debug, PartialEq, Eq)]
enum Check {
    Tidy,
    Cargo {
        args: Vec<String>,
        env: Option<(&'static str, &'static str)>,
    },
    /// As `Cargo`, and counts the tests.
    Tests {
        args: Vec<String>,
    },
    /// The program of the lab.
    Lab {
        args: &'static [&'static str],
    },
}

/// An ignored test that is left out here as well.
#[derive(Debug, PartialEq, Eq)]
struct Skipped<'a> {
    name: &'a str,
    why: &'static str,
}

/// What became of tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
}

/// Runs the steps in order up to the first that fails, and returns its exit code.
pub(crate) fn run(root: &Path) -> u8 {
    let features = match facade_features(root) {
        Ok(features) => features,
        Err(error) => {
            eprintln!("cannot read {FACADE}: {error}");
            return 1;
        }
    };
    let left_out = match left_out::all(root) {
        Ok(left_out) => left_out,
        Err(error) => {
            eprintln!("cannot read the sources: {error}");
            return 1;
        }
    };
    let (mut times, mut counts) = (Vec::new(), Vec::new());
    let mut code = 0;
    let skipped: Vec<_> = left_out.iter().filter_map(|test| Skipped::of(test, root)).collect();
    for step in steps(&features, &skipped) {
        println!("== {}", step.name);
        let began = Instant::now();
        let mut counted = Counts::default();
        code = step.run(root, &mut counted);
        if matches!(step.check, Check::Tests { .. }) {
            counts.push((counted, step.name.clone()));
        }
        times.push((began.elapsed(), step.name));
        if code != 0 {
            break;
        }
    }
    report(&times, code);
    report_tests(&counts, &skipped);
    code
}

const FACADE: &str = "crates/cinchona/Cargo.toml";

/// The features with code of their own in the facade.
const WITH_CODE: [&str; 2] = ["client", "server"];

/// The features of the facade that each stand for one thing.
pub(crate) fn facade_features(root: &Path) -> io::Result<Vec<String>> {
    let text = fs::read_to_string(root.join(FACADE))?;
    Ok(single_features(&Manifest::parse(&text)))
}

/// The features that each stand for one thing, unlike the sets `default` and `full`.
fn single_features(manifest: &Manifest<'_>) -> Vec<String> {
    let features = manifest.entries.iter().filter(|entry| entry.section == "features");
    let names = features.map(|entry| entry.key.as_str());
    names.filter(|name| !matches!(*name, "" | "default" | "full")).map(String::from).collect()
}

fn steps(features: &[String], skipped: &[Skipped<'_>]) -> Vec<Step> {
    let mut steps = vec![
        Step::cargo("fmt --all --check"),
        Step { name: "cargo xtask tidy".into(), check: Check::Tidy },
        Step::cargo("clippy --workspace --all-targets --all-features -- -D warnings"),
        Step::cargo("doc --workspace --no-deps --all-features").with("RUSTDOCFLAGS", "-D warnings"),
    ];
    // The others bring a crate and no code: `cargo xtask release --dry-run` builds each alone.
    let with_code = features.iter().filter(|feature| WITH_CODE.contains(&feature.as_str()));
    steps.extend(with_code.map(|feature| {
        Step::cargo(&format!("check -p cinchona --no-default-features --features {feature}"))
    }));
    // Workspaces of their own, which nothing else builds. What runs them takes long, and has jobs
    // of its own: `cargo xtask street`, `cargo xtask bench cost --check`, `cargo xtask fuzz`.
    let apart = |what: &str, package: &str| {
        format!("{what} --manifest-path {package}/Cargo.toml --locked --target-dir target")
    };
    let check = |package| Step::cargo(&apart("check --all-targets", package));
    steps.extend(["xtask/cost", "xtask/peers", "fuzz"].map(check));
    steps.push(Step::tests(&apart("test", "xtask/mutants")));
    steps.push(Step::tests("test --workspace"));
    // What takes long to compile, with the features of all others, so that nothing is built again.
    let long = "test --workspace --features outside/combinations --test combinations --bench rest";
    steps.push(Step::tests(long));
    // One after another: they measure. The same packages and features, so nothing is built again.
    let skipped: String = skipped.iter().map(|test| format!(" --skip {}", test.name)).collect();
    let ignored = "test --workspace --tests -- --ignored --test-threads 1";
    steps.push(Step::tests(&format!("{ignored}{skipped}")));
    // As the tests have built it: for the lab alone, all that it depends on would be built again.
    let lab = |name: &str, args| Step { name: name.into(), check: Check::Lab { args } };
    steps.push(lab("cargo xtask demo --virtual", &["--virtual"]));
    steps.push(lab("cargo xtask campaign storm", &["storm"]));
    steps
}

fn report(times: &[(Duration, String)], code: u8) {
    println!("== {}", if code == 0 { "all passed" } else { "failed at the last of these" });
    for (time, name) in times {
        println!("{:8.1} s  {name}", time.as_secs_f64());
    }
    let total: Duration = times.iter().map(|(time, _)| *time).sum();
    println!("{:8.1} s  in all", total.as_secs_f64());
}

/// How many tests of each kind ran.
fn report_tests(counts: &[(Counts, String)], skipped: &[Skipped<'_>]) {
    for (counts, name) in counts {
        let Counts { passed, failed, ignored } = counts;
        println!("{passed:>6} passed, {failed} failed, {ignored} ignored: {name}");
    }
    let mut kinds = BTreeMap::<&str, usize>::new();
    skipped.iter().for_each(|test| *kinds.entry(test.why).or_default() += 1);
    kinds.iter().for_each(|(why, count)| println!("{count:>6} left out: {why}"));
}

// === impl Skipped ===

impl<'a> Skipped<'a> {
    fn of(test: &'a LeftOut, root: &Path) -> Option<Self> {
        let minutes = test.takes_minutes().then_some("takes minutes");
        let why = minutes.or_else(|| test.lacks(root))?;
        Some(Self { name: &test.test, why })
    }
}

// === impl Counts ===

impl Counts {
    /// What libtest says at the end of each of its programs.
    fn parse(line: &str) -> Self {
        let Some(line) = line.trim().strip_prefix("test result: ") else { return Self::default() };
        let count = |what: &str| {
            let before = line.split_once(what).map_or("", |(before, _)| before);
            before.split_whitespace().next_back().and_then(|count| count.parse().ok()).unwrap_or(0)
        };
        Self { passed: count(" passed"), failed: count(" failed"), ignored: count(" ignored") }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

// === impl Step ===

impl Step {
    fn cargo(args: &str) -> Self {
        let words = args.split_whitespace().map(String::from).collect();
        Self { name: format!("cargo {args}"), check: Check::Cargo { args: words, env: None } }
    }

    fn tests(args: &str) -> Self {
        let words = args.split_whitespace().map(String::from).collect();
        Self { name: format!("cargo {args}"), check: Check::Tests { args: words } }
    }

    fn with(mut self, key: &'static str, value: &'static str) -> Self {
        self.name = format!("{key}='{value}' {}", self.name);
        if let Check::Cargo { env, .. } = &mut self.check {
            *env = Some((key, value));
        }
        self
    }

    fn run(&self, root: &Path, counts: &mut Counts) -> u8 {
        match &self.check {
            Check::Tidy => tidy::run(root),
            Check::Lab { args } => {
                let program = street::target().join("debug/calculator-demo");
                run_command(Command::new(program).args(*args).current_dir(root))
            }
            Check::Tests { args } => {
                run_lines(cargo_command().args(args), |line| *counts += Counts::parse(line))
            }
            Check::Cargo { args, env } => run_command(cargo_command().args(args).envs(*env)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_facade_feature_with_code_is_checked_alone() {
        let text = "[features]\ndefault = ['a']\nfull = [\n  'a',\n  'server',\n]\na = []\n\
                    server = ['dep:b']\n";
        let features = single_features(&Manifest::parse(text));
        assert_eq!(features, ["a", "server"]);
        let names: Vec<_> = steps(&features, &[]).into_iter().map(|step| step.name).collect();
        assert!(
            names.contains(
                &"cargo check -p cinchona --no-default-features --features server".into()
            )
        );
    }

    #[test]
    fn tests_are_counted_by_what_libtest_says() {
        let mut counts = Counts::default();
        for line in [
            "running 9 tests",
            "test result: ok. 5 passed; 0 failed; 2 ignored; 0 measured; 3 filtered out",
            "test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out",
        ] {
            counts += Counts::parse(line);
        }
        assert_eq!(counts, Counts { passed: 6, failed: 1, ignored: 2 });
    }

    #[test]
    fn what_takes_minutes_is_left_out_by_name() {
        let of = |test: &str, needs: &str| LeftOut { test: test.into(), needs: needs.into() };
        let left_out = [of("long", "minutes, and node"), of("short", "an hour of rain")];
        let root = crate::command::root();
        let skipped: Vec<_> = left_out.iter().filter_map(|test| Skipped::of(test, &root)).collect();
        let mut steps = steps(&[], &skipped).into_iter();
        let ignored = steps.find(|step| step.name.contains("--ignored")).unwrap();
        assert!(ignored.name.ends_with("--test-threads 1 --skip long"), "{}", ignored.name);
    }

    #[test]
    fn the_facade_has_features_to_check() {
        assert!(!facade_features(&crate::command::root()).unwrap().is_empty());
    }

    #[test]
    fn a_step_with_a_variable_shows_it_and_sets_it() {
        let step = Step::cargo("doc").with("RUSTDOCFLAGS", "-D warnings");
        assert_eq!(step.name, "RUSTDOCFLAGS='-D warnings' cargo doc");
        let env = Some(("RUSTDOCFLAGS", "-D warnings"));
        assert_eq!(step.check, Check::Cargo { args: vec!["doc".into()], env });
    }
}
