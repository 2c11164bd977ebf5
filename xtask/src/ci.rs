//! `cargo xtask ci`: everything that a change must pass, cheapest first.
#![expect(clippy::disallowed_types, reason = "xtask has no runtime whose clock a test could pause")]

use crate::{
    command::{cargo_command, run as run_command},
    manifest::Manifest,
    tidy,
};
use std::{
    fs, io,
    path::Path,
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
    Cargo { args: Vec<String>, env: Option<(&'static str, &'static str)> },
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
    let mut times = Vec::new();
    let mut code = 0;
    for step in steps(&features) {
        println!("== {}", step.name);
        let began = Instant::now();
        code = step.run(root);
        times.push((began.elapsed(), step.name));
        if code != 0 {
            break;
        }
    }
    report(&times, code);
    code
}

const FACADE: &str = "crates/cinchona/Cargo.toml";

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

fn steps(features: &[String]) -> Vec<Step> {
    let mut steps = vec![
        Step::cargo("fmt --all --check"),
        Step { name: "cargo xtask tidy".into(), check: Check::Tidy },
        Step::cargo("clippy --workspace --all-targets --all-features -- -D warnings"),
        Step::cargo("doc --workspace --no-deps --all-features").with("RUSTDOCFLAGS", "-D warnings"),
    ];
    steps.extend(features.iter().map(|feature| {
        Step::cargo(&format!("check -p cinchona --no-default-features --features {feature}"))
    }));
    // Workspaces of their own, which nothing else builds.
    steps.push(Step::cargo("check --manifest-path peers/Cargo.toml"));
    steps.push(Step::cargo("check --manifest-path fuzz/Cargo.toml --target-dir target"));
    steps.push(Step::cargo("test --workspace"));
    // One after another: they measure. What needs a package of npm is left out where there is none.
    let has_grpc_js = Path::new("target/node/node_modules/@grpc/grpc-js").exists();
    let skipped = if has_grpc_js { "" } else { " --skip grpc_js" };
    let ignored = format!("test --test endpoints -- --ignored --test-threads 1{skipped}");
    steps.push(Step::cargo(&ignored));
    steps.push(Step {
        name: "cargo xtask demo --virtual".into(),
        ..Step::cargo("run --quiet -p lab -- --virtual")
    });
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

// === impl Step ===

impl Step {
    fn cargo(args: &str) -> Self {
        let words = args.split_whitespace().map(String::from).collect();
        Self { name: format!("cargo {args}"), check: Check::Cargo { args: words, env: None } }
    }

    fn with(mut self, key: &'static str, value: &'static str) -> Self {
        self.name = format!("{key}='{value}' {}", self.name);
        if let Check::Cargo { env, .. } = &mut self.check {
            *env = Some((key, value));
        }
        self
    }

    fn run(&self, root: &Path) -> u8 {
        match &self.check {
            Check::Tidy => tidy::run(root),
            Check::Cargo { args, env } => run_command(cargo_command().args(args).envs(*env)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_facade_feature_is_checked_alone() {
        let text =
            "[features]\ndefault = ['a']\nfull = [\n  'a',\n  'b',\n]\na = []\nb = ['dep:b']\n";
        let features = single_features(&Manifest::parse(text));
        assert_eq!(features, ["a", "b"]);
        let names: Vec<_> = steps(&features).into_iter().map(|step| step.name).collect();
        assert!(
            names.contains(&"cargo check -p cinchona --no-default-features --features b".into())
        );
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
