//! When one endpoint is connected to, and its resulting state.

use super::state::State;
use crate::{Backoff, clock::later};
use rand::Rng;
use std::time::Duration;
use tokio::time::Instant;

/// The attempts to connect to one endpoint.
#[derive(Clone, Debug)]
pub struct Link {
    backoff: Backoff,
    state: State,
    /// When the last attempt began.
    began: Instant,
    /// When it succeeded, if it has.
    settled: Option<Instant>,
    /// Attempts in a row that have failed.
    failures: u32,
    /// Short-lived connections in a row.
    brief: u32,
    /// Second connections in a row, without an answer in between.
    probes: u32,
}

/// A connection that lasts this long is no failure.
const BRIEF: Duration = Duration::from_secs(1);

/// Nor is one on which this many calls were answered: a server may end each after so many.
pub const USEFUL: u64 = 20;

/// The time between attempts if a server ends connections after a few calls.
const PACE: Duration = Duration::from_millis(100);

// === impl Link ===

impl Link {
    /// None was made yet.
    pub const fn new(backoff: Backoff, now: Instant) -> Self {
        Self {
            backoff,
            state: State::Idle,
            began: now,
            settled: None,
            failures: 0,
            brief: 0,
            probes: 0,
        }
    }

    /// The state that it results in.
    pub const fn state(&self) -> State {
        self.state
    }

    /// No connection is wanted any more.
    pub fn rests(&mut self) {
        self.state = State::Idle;
    }

    /// An attempt begins. The failed state remains until one succeeds.
    pub fn begins(&mut self, now: Instant) {
        self.began = now;
        if self.state != State::TransientFailure {
            self.state = State::Connecting;
        }
    }

    /// It has failed: returns when the next may begin.
    pub fn fails(&mut self, rng: &mut impl Rng) -> Instant {
        self.state = State::TransientFailure;
        self.failures = self.failures.saturating_add(1);
        later(self.began, self.backoff.delay(self.failures, rng))
    }

    /// It has succeeded: the server has sent its SETTINGS.
    pub fn settles(&mut self, now: Instant) {
        self.state = State::Ready;
        self.settled = Some(now);
        self.failures = 0;
    }

    /// The connection has failed after so many answered calls: returns when the next attempt may
    /// begin. That is immediately, unless connections end soon after one another. Then attempts are
    /// 100 ms apart if calls were answered, and otherwise by the backoff.
    pub fn loses(&mut self, answered: u64, now: Instant, rng: &mut impl Rng) -> Instant {
        let is_early = self.settled.is_none_or(|settled| now < settled + BRIEF);
        let is_brief = is_early && answered < USEFUL;
        self.brief = if is_brief { self.brief.saturating_add(1) } else { 0 };
        self.state = State::Connecting;
        let wait = match self.brief {
            0 | 1 => return now,
            _ if answered > 0 => self.backoff.delay(1, rng).min(PACE),
            brief => {
                self.state = State::TransientFailure;
                self.backoff.delay(brief - 1, rng)
            }
        };
        later(self.began, wait).max(now)
    }

    /// A sign that the network is back: returns when the next attempt may begin.
    pub fn wakes(&mut self, now: Instant, rng: &mut impl Rng) -> Instant {
        self.failures = 0;
        self.brief = 0;
        later(self.began, self.backoff.delay(1, rng)).max(now)
    }

    /// Whether a second connection may be made because the first is silent, after so many answered
    /// calls on it; that counts as an attempt. A server that answers nothing is connected to by the
    /// backoff.
    pub fn may_probe(&mut self, answered: u64, now: Instant, rng: &mut impl Rng) -> bool {
        if answered > 0 {
            self.probes = 0;
        }
        let wait = match self.probes {
            0 => BRIEF,
            probes => self.backoff.delay(probes, rng).max(BRIEF),
        };
        if now < later(self.began, wait) {
            return false;
        }
        self.probes = self.probes.saturating_add(1);
        self.began = now;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Jitter, Rng as Chance};
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);
    const NONE: u64 = 0;

    fn link() -> (Link, Instant, impl Rng) {
        let now = Instant::now();
        let backoff = Backoff::new(SECOND, 1.6, 120 * SECOND).unwrap().with_jitter(Jitter::None);
        (Link::new(backoff, now), now, Chance::seeded(1).draw())
    }

    // catalogue: S-B3
    #[tokio::test(start_paused = true)]
    async fn what_has_failed_stays_so_until_settings_arrive() {
        let (mut link, now, mut rng) = link();
        assert_eq!(link.state(), State::Idle);
        link.begins(now);
        assert_eq!(link.state(), State::Connecting);
        assert_eq!(link.fails(&mut rng), now + SECOND);
        link.begins(now + SECOND);
        assert_eq!(link.state(), State::TransientFailure);
        assert_eq!(link.fails(&mut rng), now + 26 * SECOND / 10);
        link.begins(now + 3 * SECOND);
        link.settles(now + 4 * SECOND);
        assert_eq!(link.state(), State::Ready);
        let lost = now + 4 * SECOND + SECOND / 2;
        assert_eq!(link.loses(NONE, lost, &mut rng), lost, "the first is replaced immediately");
        assert_eq!(link.state(), State::Connecting);
        link.begins(lost);
        assert_eq!(link.fails(&mut rng), lost + SECOND, "the backoff has begun again");
    }

    // catalogue: S-E19
    #[tokio::test(start_paused = true)]
    async fn a_server_that_only_ends_connections_gets_the_backoff_of_one_that_fails() {
        let (mut link, mut now, mut rng) = link();
        let begun = now;
        for _ in 0..10 {
            link.begins(now);
            link.settles(now);
            now = link.loses(NONE, now, &mut rng);
        }
        assert!(now > begun + 60 * SECOND, "{:?}", now - begun);
        assert_eq!(link.state(), State::TransientFailure);
        link.begins(now);
        link.settles(now);
        let next = link.loses(USEFUL, now, &mut rng);
        assert_eq!(next, now, "one that has answered much is replaced immediately");
        for _ in 0..10 {
            link.begins(now);
            link.settles(now);
            let next = link.loses(3, now, &mut rng);
            assert_eq!(link.state(), State::Connecting);
            assert!(next <= now + PACE, "one that has answered little, a little later");
            now = next;
        }
    }

    proptest! {
        #[test]
        fn attempts_never_come_faster_than_the_backoff(seed: u64, steps in 1..60) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let (mut link, begun, _) = link();
                let mut rng = Chance::seeded(seed).draw();
                let (mut now, mut attempts) = (begun, Vec::new());
                for _ in 0..steps {
                    link.begins(now);
                    attempts.push(now);
                    now += SECOND.mul_f64(rng.random_range(0.0..3.0));
                    let next = match rng.random_range(0..4) {
                        0 => { link.settles(now); link.loses(NONE, now, &mut rng) }
                        1 => { link.fails(&mut rng); link.wakes(now, &mut rng) }
                        _ => link.fails(&mut rng),
                    };
                    now = next.max(now);
                }
                // Immediately after a loss, but not twice.
                for three in attempts.windows(3) {
                    assert!(three[2] - three[0] >= SECOND, "{three:?}");
                }
            });
        }
    }
}
