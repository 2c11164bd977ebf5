//! The values of `--breaker` and `--fallback`.

use crate::{methods, pb};
use cinchona::{
    breaker::{BreakerLayer, BreakerPolicy, BreakerSettings, Window},
    core::{Invalid, Mode, Switch},
    fallback::{Cache, FallbackSettings},
};
use humantime::parse_duration;
use prost::Message;
use std::{str::FromStr, time::Duration};

/// When the breaker of a server opens.
#[derive(Clone, Debug)]
pub(crate) struct Breaker {
    policy: BreakerPolicy,
    per_method: bool,
    shadow: bool,
}

/// The second answers of a call that has failed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fallback {
    cached: Option<Duration>,
    value: Option<f64>,
    /// An address.
    pub(crate) alternate: Option<String>,
}

// === impl Breaker ===

impl Breaker {
    pub(crate) fn layer(&self) -> BreakerLayer {
        let settings = BreakerSettings::new(self.policy);
        let settings = if self.per_method { settings.per_method() } else { settings };
        let mode = if self.shadow { Mode::Shadow } else { Mode::Enforce };
        settings.with_switch(Switch::new(mode)).layer()
    }
}

impl FromStr for Breaker {
    type Err = String;

    /// `outage:20:1500ms,rate:0.5,slow:2s:0.8,window:10s,open:5s,per-method,shadow`, each of them
    /// optional; `default` for none; `consecutive:3` in place of `outage`.
    fn from_str(said: &str) -> Result<Self, String> {
        let mut policy = BreakerPolicy::default();
        let (mut per_method, mut shadow) = (false, false);
        for part in said.split(',') {
            let invalid = |invalid: Invalid| invalid.to_string();
            policy = match part.split_once(':') {
                None if part == "default" => policy,
                None if part == "per-method" => {
                    per_method = true;
                    policy
                }
                None if part == "shadow" => {
                    shadow = true;
                    policy
                }
                Some(("consecutive", failures)) => {
                    let failures = Some(number(part, failures)?);
                    policy.with_consecutive_failures(failures).map_err(invalid)?
                }
                Some(("outage", outage)) => {
                    let Some((failures, lasting)) = outage.split_once(':') else {
                        return Err(format!("{part:?} is not outage:N:TIME"));
                    };
                    let (failures, lasting) = (number(part, failures)?, time(part, lasting)?);
                    policy.with_outage(failures, lasting).map_err(invalid)?
                }
                Some(("rate", rate)) => {
                    policy.with_failure_rate(number(part, rate)?).map_err(invalid)?
                }
                Some(("slow", slow)) => {
                    let Some((after, rate)) = slow.split_once(':') else {
                        return Err(format!("{part:?} is not slow:TIME:RATE"));
                    };
                    let (after, rate) = (time(part, after)?, number(part, rate)?);
                    policy.with_slow_calls(after, rate).map_err(invalid)?
                }
                Some(("window", window)) => {
                    let calls = window.parse().map(Window::Count);
                    let window = calls.or_else(|_| time(part, window).map(Window::Time))?;
                    policy.with_window(window).map_err(invalid)?
                }
                Some(("open", first)) => {
                    let first = time(part, first)?;
                    let longest = first.max(Duration::from_secs(5));
                    policy.with_open_for(first, longest).map_err(invalid)?
                }
                _ => {
                    return Err(format!(
                        "{part:?} is none of default, consecutive:N, outage:N:TIME, rate:RATE, \
                         slow:TIME:RATE, window:TIME or window:CALLS, open:TIME, per-method and \
                         shadow"
                    ));
                }
            };
        }
        Ok(Self { policy, per_method, shadow })
    }
}

// === impl Fallback ===

impl Fallback {
    /// Without the alternate.
    pub(crate) fn settings(&self) -> Result<FallbackSettings, Invalid> {
        let mut settings = FallbackSettings::new(methods());
        if let Some(max_age) = self.cached {
            settings = settings.with_cache(Cache { max_age, ..Cache::default() })?;
        }
        if let Some(value) = self.value {
            for method in ["Add", "Subtract", "Multiply", "Divide"] {
                let answer = pb::Result { value }.encode_to_vec();
                settings = settings.with_default("calculator.Calculator", method, answer)?;
            }
        }
        Ok(settings)
    }
}

impl FromStr for Fallback {
    type Err = String;

    /// `alternate:HOST:PORT,cached:5m,default:0`, each of them optional.
    fn from_str(said: &str) -> Result<Self, String> {
        let mut fallback = Self::default();
        for part in said.split(',') {
            match part.split_once(':') {
                None if part == "cached" => fallback.cached = Some(Cache::default().max_age),
                Some(("cached", age)) => fallback.cached = Some(time(part, age)?),
                Some(("default", value)) => fallback.value = Some(number(part, value)?),
                Some(("alternate", address)) => fallback.alternate = Some(address.to_owned()),
                _ => {
                    return Err(format!(
                        "{part:?} is none of cached, cached:TIME, default:NUMBER and \
                         alternate:HOST:PORT"
                    ));
                }
            }
        }
        Ok(fallback)
    }
}

fn number<T: FromStr>(part: &str, number: &str) -> Result<T, String> {
    number.parse().map_err(|_| format!("{part:?}: {number:?} is no number that fits"))
}

fn time(part: &str, time: &str) -> Result<Duration, String> {
    parse_duration(time).map_err(|error| format!("{part:?}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_breaker_is_what_was_said() {
        let said: Breaker = "rate:0.5,window:100,open:1s,per-method,shadow".parse().unwrap();
        let expected = BreakerPolicy::default()
            .with_failure_rate(0.5)
            .and_then(|policy| policy.with_window(Window::Count(100)))
            .and_then(|policy| policy.with_open_for(SECOND, 5 * SECOND))
            .unwrap();
        assert_eq!((said.policy, said.per_method, said.shadow), (expected, true, true));
        let three = BreakerPolicy::default().with_consecutive_failures(Some(3)).unwrap();
        let long = BreakerPolicy::default().with_outage(50, 3 * SECOND).unwrap();
        for (said, policy) in [
            ("default", BreakerPolicy::default()),
            ("consecutive:3", three),
            ("outage:50:3s", long),
        ] {
            assert_eq!(said.parse::<Breaker>().unwrap().policy, policy, "{said}");
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_wrong_is_named() {
        for (said, error) in [
            ("", "\"\" is none of default"),
            ("consecutive:0", "consecutive_failures: 0 is not allowed"),
            ("outage:5", "\"outage:5\" is not outage:N:TIME"),
            ("outage:0:1s", "outage_failures: 0 is not allowed"),
            ("rate:2", "failure_rate: 2 is not allowed"),
            ("slow:2s", "\"slow:2s\" is not slow:TIME:RATE"),
            ("window:1ms", "window: 1ms is not allowed"),
            ("open:x", "\"open:x\": "),
        ] {
            let refused = said.parse::<Breaker>().unwrap_err();
            assert!(refused.starts_with(error), "{said}: {refused}");
        }
        assert!("cached:x".parse::<Fallback>().unwrap_err().starts_with("\"cached:x\""));
        assert!("other".parse::<Fallback>().unwrap_err().contains("is none of cached"));
    }
}
