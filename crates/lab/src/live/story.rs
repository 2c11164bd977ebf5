//! Faults that come and go by themselves, one after the other.

use super::{load::USUAL, site::Site};
use cinchona::core::BoxError;
use std::time::Duration;
use tokio::time::sleep;

/// A step of the story.
struct Step {
    said: &'static str,
    rules: &'static [(&'static str, &'static str)],
    /// The number of calls per second.
    rps: u32,
    /// The index of the server that is down.
    down: Option<usize>,
}

const QUIET: Step = Step { said: "all is well", rules: &[], rps: USUAL, down: None };

const STEPS: [Step; 10] = [
    QUIET,
    Step {
        said: "server-1 fails every call: its breaker opens, and the others take over",
        rules: &[("server-1/story", "status=UNAVAILABLE ttl=60s")],
        ..QUIET
    },
    QUIET,
    Step {
        said: "server-2 is slow: calls avoid it, and hedges overtake it",
        rules: &[("server-2/story", "delay=lognormal:150ms:600ms ttl=60s")],
        ..QUIET
    },
    QUIET,
    Step {
        said: "server-3 loses replies: what it has executed already, it answers again",
        rules: &[("server-3/story", "rate=0.3 status=UNAVAILABLE when=after ttl=60s")],
        ..QUIET
    },
    Step {
        said: "more calls than the servers can do: they turn away what is too much",
        rules: &[("story", "delay=100ms ttl=60s")],
        rps: 500,
        down: None,
    },
    QUIET,
    Step {
        said: "server-3 crashes: the others notice, and no call goes there",
        down: Some(2),
        ..QUIET
    },
    Step { said: "server-3 is back", ..QUIET },
];

/// Plays the steps over and over; each lasts `each`.
pub(super) async fn play(site: &Site, each: Duration) -> Result<(), BoxError> {
    let mut down: Option<usize> = None;
    for step in STEPS.iter().cycle() {
        site.feed.push(format!("story: {}", step.said));
        if down != step.down {
            if let Some(back) = down {
                site.servers[back].restart().await?;
            }
            if let Some(gone) = step.down {
                site.servers[gone].crash();
            }
            down = step.down;
        }
        site.set(step.rules)?;
        site.load.set(step.rps);
        sleep(each).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{super::site::RULE, *};
    use cinchona::fault::{Rule, Rules};

    #[test]
    fn every_rule_of_the_story_is_one_and_is_cleared_by_its_name() {
        let rules = Rules::new(1);
        for (id, rule) in STEPS.iter().flat_map(|step| step.rules) {
            assert!(id.ends_with(RULE), "{id}");
            rules.set(id, rule.parse::<Rule>().unwrap()).unwrap();
        }
        assert_eq!(rules.list().len(), 4);
    }

    #[test]
    fn who_is_down_comes_back_before_the_story_begins_again() {
        assert!(STEPS.iter().any(|step| step.down.is_some()));
        assert!(STEPS.last().is_some_and(|step| step.down.is_none()));
    }
}
