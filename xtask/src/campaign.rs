//! `cargo xtask campaign`: what takes long is one command, with a seed, and has a short form.

use crate::command::{cargo_command, run as run_command};

/// Tests of a package, by a part of their names, and what they are given.
struct Part {
    package: &'static str,
    tests: &'static str,
    /// What each variable is in the short form, and in the long one.
    given: &'static [(&'static str, &'static str, &'static str)],
}

const CRASH: [Part; 2] = [
    Part { package: "outside", tests: "crash", given: &[("CINCHONA_KILLS", "100", "2000")] },
    Part {
        package: "cinchona-redis",
        tests: "groups",
        given: &[("CINCHONA_FAILOVERS", "2", "200")],
    },
];

/// The kernel's network, and a model of every split of up to seven nodes.
const PARTITION: [Part; 2] = [
    Part {
        package: "outside",
        tests: "partition",
        given: &[("CINCHONA_LOSS_SECONDS", "10", "600")],
    },
    Part { package: "cinchona-cluster", tests: "split", given: &[] },
];

const CHURN: [Part; 1] = [Part {
    package: "cinchona-cluster",
    tests: "churn",
    given: &[("CINCHONA_CHURN", "5", "600")],
}];

const ENDPOINTS: [Part; 1] = [Part {
    package: "cinchona-balance",
    tests: "campaign",
    given: &[("CINCHONA_SEEDS", "16", "200"), ("CINCHONA_SECONDS", "600", "7200")],
}];

/// How a campaign is run.
#[derive(Debug, PartialEq, Eq)]
struct Form<'a> {
    is_long: bool,
    seed: &'a str,
}

/// Runs one: its exit code.
pub(crate) fn run(name: &str, args: &[&str]) -> u8 {
    let Some(form) = Form::parse(args) else {
        eprintln!("cargo xtask campaign {name} [--long] [--seed N]");
        return 2;
    };
    let parts: &[Part] = match name {
        "crash" => &CRASH,
        "partition" => &PARTITION,
        "churn" => &CHURN,
        "endpoints" => &ENDPOINTS,
        "soak" => return soak(&form),
        "storm" => return storm(&form),
        _ => {
            eprintln!("no campaign {name}: crash, partition, churn, endpoints, soak or storm");
            return 2;
        }
    };
    println!("campaign {name}, {form:?}");
    let codes = parts.iter().map(|part| part.run(&form));
    codes.max().unwrap_or_default()
}

fn soak(form: &Form<'_>) -> u8 {
    let duration = if form.is_long { "30m" } else { "1m" };
    xtask(&["soak", "--duration", duration, "--seed", form.seed])
}

fn storm(form: &Form<'_>) -> u8 {
    let [clients, capacity] = if form.is_long { ["20000", "4000"] } else { ["1000", "200"] };
    let size = ["--clients", clients, "--capacity", capacity];
    xtask(&[&["sim", "storm"], &size[..], &["--seed", form.seed]].concat())
}

fn xtask(args: &[&str]) -> u8 {
    run_command(cargo_command().args(["xtask"]).args(args))
}

// === impl Form ===

impl<'a> Form<'a> {
    fn parse(args: &[&'a str]) -> Option<Self> {
        let mut form = Self { is_long: false, seed: "1" };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match *arg {
                "--long" => form.is_long = true,
                "--seed" => {
                    form.seed = args.next().filter(|seed| seed.parse::<u64>().is_ok())?;
                }
                _ => return None,
            }
        }
        Some(form)
    }
}

// === impl Part ===

impl Part {
    fn run(&self, form: &Form<'_>) -> u8 {
        let mut command = cargo_command();
        // The programs beside the tests are those of now.
        if self.package == "outside" {
            let code = run_command(cargo_command().args(["build", "-p", "calculator", "--bins"]));
            if code != 0 {
                return code;
            }
        }
        command.args(["test", "-p", self.package, "--tests", "--", "--nocapture", self.tests]);
        command.args(["--include-ignored", "--test-threads", "1"]);
        for (name, short, long) in self.given {
            command.env(name, if form.is_long { long } else { short });
        }
        run_command(command.env("CINCHONA_SEED", form.seed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_campaign_has_a_short_form_a_long_one_and_a_seed() {
        assert_eq!(Form::parse(&[]), Some(Form { is_long: false, seed: "1" }));
        let long = Form::parse(&["--seed", "7", "--long"]);
        assert_eq!(long, Some(Form { is_long: true, seed: "7" }));
        for wrong in [&["--seed"][..], &["--seed", "x"], &["--short"]] {
            assert_eq!(Form::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn an_unknown_campaign_is_refused() {
        assert_eq!(run("crush", &[]), 2);
    }
}
