//! The faults that the server injects, and how they are changed while it runs.

use cinchona::{
    core::{BoxError, Invalid, Secret},
    fault::{FaultSettings, Faults, Rule, Rules, When},
};
use clap::{Args, ValueEnum};
use humantime::parse_duration;
use std::{fs, path::PathBuf, time::Duration};

/// The faults of the command line.
#[derive(Debug, Args)]
#[command(next_help_heading = "Faults to inject")]
pub(crate) struct Injected {
    /// The share of requests, 0 to 1, that are answered with UNAVAILABLE "simulated failure".
    #[arg(long, value_name = "RATE", default_value_t = 0.0)]
    failure_rate: f64,

    /// The share of requests, 0 to 1, that are delayed by --slow-delay.
    #[arg(long, value_name = "RATE", default_value_t = 0.0)]
    slow_rate: f64,

    /// How long a slow request is delayed, such as 250ms or 3s.
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = parse_duration)]
    slow_delay: Duration,

    /// Whether a failure comes before the service has executed the request, or after.
    #[arg(long, value_enum, default_value = "before")]
    fail_when: FailWhen,

    /// The same seed gives the same faults.
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// A rule, such as "method=/calculator.Calculator/Add first=2 status=UNAVAILABLE:busy" or
    /// "rate=10% delay=lognormal:20ms:1s"; may be given more than once. Opens
    /// cinchona.fault.v1.FaultControl.
    #[arg(long = "fault", value_name = "RULE")]
    rules: Vec<Rule>,

    /// A file with a rule on each line, read again whenever it changes; in place of --fault. Opens
    /// cinchona.fault.v1.FaultControl.
    #[arg(long, value_name = "FILE", conflicts_with = "rules")]
    faults_file: Option<PathBuf>,

    /// Only callers that send this token (authorization: Bearer TOKEN) may list and change the
    /// rules by gRPC, and change them on the dashboard, from any machine. Without a token, only
    /// callers on this machine may, and not through a proxy. Opens
    /// cinchona.fault.v1.FaultControl.
    #[arg(long, value_name = "TOKEN", env = "CALCULATOR_FAULT_TOKEN", hide_env_values = true)]
    fault_token: Option<Secret>,

    /// A file that holds the token, so that no list of processes shows it.
    #[arg(long, value_name = "FILE", conflicts_with = "fault_token")]
    fault_token_file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FailWhen {
    Before,
    After,
}

/// How often the file is looked at.
const LOOK: Duration = Duration::from_millis(500);

impl Injected {
    /// The settings of the layer; `fails` where it is to fail every request.
    pub(crate) fn settings(&self, fails: bool) -> Result<FaultSettings, Invalid> {
        FaultSettings::new(Faults {
            failure_rate: if fails { 1.0 } else { self.failure_rate },
            slow_rate: self.slow_rate,
            slow_delay: self.slow_delay,
            when: match self.fail_when {
                FailWhen::Before => When::Before,
                FailWhen::After => When::After,
            },
            seed: self.seed,
            ..Faults::default()
        })
    }

    /// Whether it is asked for that they are changed by gRPC.
    pub(crate) const fn has_control(&self) -> bool {
        let Self { rules, faults_file, fault_token, fault_token_file, .. } = self;
        !rules.is_empty()
            || faults_file.is_some()
            || fault_token.is_some()
            || fault_token_file.is_some()
    }

    /// The rules, and the token that changes them.
    ///
    /// # Errors
    /// When the file with the token cannot be read, or has none.
    pub(crate) fn rules(&self) -> Result<(Rules, Option<Secret>), BoxError> {
        let Self { rules, fault_token, fault_token_file, seed, .. } = self;
        let rules = rules.iter().enumerate().fold(Rules::new(*seed), |all, (n, rule)| {
            all.with(&format!("fault-{}", n + 1), rule.clone())
        });
        let Some(file) = fault_token_file else { return Ok((rules, fault_token.clone())) };
        let wrong = |error: BoxError| format!("--fault-token-file {}: {error}", file.display());
        let text = fs::read_to_string(file).map_err(|error| wrong(error.into()))?;
        let token = Secret::new(text.trim()).map_err(|error| wrong(error.into()))?;
        Ok((rules, Some(token)))
    }

    /// Reads the file, if there is one, whenever it changes, for ever.
    pub(crate) async fn follow(&self, rules: &Rules) {
        match &self.faults_file {
            Some(file) => drop(rules.follow(file, LOOK).await),
            None => std::future::pending().await,
        }
    }
}
