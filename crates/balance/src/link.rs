//! When an endpoint is connected to, and what state that leaves it in: gRPC's [connectivity
//! semantics](https://github.com/grpc/grpc/blob/master/doc/connectivity-semantics-and-api.md) and
//! [connection backoff](https://github.com/grpc/grpc/blob/master/doc/connection-backoff.md).

use cinchona_core::{Backoff, clock::later};
use rand::Rng;
use std::time::Duration;
use tokio::time::Instant;

/// The state of an endpoint's connection, as gRPC names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// No connection is wanted.
    #[default]
    Idle,
    /// One is being made, or the endpoint has not yet said that it is healthy.
    Connecting,
    /// The server has sent its SETTINGS, and is healthy if it is asked: calls can be sent.
    Ready,
    /// An attempt to connect has failed, and none has succeeded since; or the endpoint says that it
    /// is not healthy.
    TransientFailure,
}

/// The attempts to connect to one endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    backoff: Backoff,
    state: State,
    /// When the last attempt began.
    began: Instant,
    /// When it succeeded, if it has.
    settled: Option<Instant>,
    /// Attempts in a row that have failed.
    failures: u32,
    /// Connections in a row that were of little use.
    brief: u32,
}

/// What a connection was good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Use {
    /// Whether a call was answered on it.
    pub(crate) has_answered: bool,
    /// How often something has come on it.
    pub(crate) reads: u64,
}

/// A connection that lasts as long is no failure.
const BRIEF: Duration = Duration::from_secs(1);

/// Nor is one on which as much has come: a server may end each after so many calls.
const USEFUL: u64 = 50;

// === impl Link ===

impl Link {
    pub(crate) const fn new(backoff: Backoff, now: Instant) -> Self {
        Self { backoff, state: State::Idle, began: now, settled: None, failures: 0, brief: 0 }
    }

    pub(crate) const fn state(&self) -> State {
        self.state
    }

    /// No connection is wanted any more.
    pub(crate) fn rests(&mut self) {
        self.state = State::Idle;
    }

    /// An attempt begins. What has failed stays so until one succeeds.
    pub(crate) fn begins(&mut self, now: Instant) {
        self.began = now;
        if self.state != State::TransientFailure {
            self.state = State::Connecting;
        }
    }

    /// It has failed: when the next may begin.
    pub(crate) fn fails(&mut self, rng: &mut impl Rng) -> Instant {
        self.state = State::TransientFailure;
        self.failures = self.failures.saturating_add(1);
        later(self.began, self.backoff.delay(self.failures, rng))
    }

    /// It has succeeded: the server has sent its SETTINGS.
    pub(crate) fn settles(&mut self, now: Instant) {
        self.state = State::Ready;
        self.settled = Some(now);
        self.failures = 0;
    }

    /// The connection is of no use any more: when the next attempt may begin. That is at once,
    /// unless connections end soon after one another. Then attempts are as far apart as after a
    /// first failure where they were of use, and else as after failures.
    pub(crate) fn loses(&mut self, of_use: Use, now: Instant, rng: &mut impl Rng) -> Instant {
        let is_early = self.settled.is_none_or(|settled| now < settled + BRIEF);
        let is_brief = is_early && of_use.reads < USEFUL;
        self.brief = if is_brief { self.brief.saturating_add(1) } else { 0 };
        self.state = State::Connecting;
        let failures = match self.brief {
            0 | 1 => return now,
            _ if of_use.has_answered => 1,
            brief => {
                self.state = State::TransientFailure;
                brief - 1
            }
        };
        later(self.began, self.backoff.delay(failures, rng)).max(now)
    }

    /// Something shows that the network is back: when the next attempt may begin.
    pub(crate) fn wakes(&mut self, now: Instant, rng: &mut impl Rng) -> Instant {
        self.failures = 0;
        self.brief = 0;
        later(self.began, self.backoff.delay(1, rng)).max(now)
    }

    /// Whether a second connection may be made, since the first is silent; that is an attempt.
    pub(crate) fn may_probe(&mut self, now: Instant) -> bool {
        let may = now >= self.began + BRIEF;
        if may {
            self.began = now;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cinchona_core::{Jitter, Rng as Chance};
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);
    const NONE: Use = Use { has_answered: false, reads: 2 };

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
        assert_eq!(link.loses(NONE, lost, &mut rng), lost, "the first is replaced at once");
        assert_eq!(link.state(), State::Connecting);
        link.begins(lost);
        assert_eq!(link.fails(&mut rng), lost + SECOND, "the backoff has begun again");
    }

    // catalogue: S-E19
    #[tokio::test(start_paused = true)]
    async fn a_server_that_only_ends_connections_is_paced_like_one_that_fails() {
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
        let much = Use { has_answered: true, reads: 1000 };
        let next = link.loses(much, now, &mut rng);
        assert_eq!(next, now, "one that has answered much is replaced at once");
        for _ in 0..10 {
            link.begins(now);
            link.settles(now);
            let next = link.loses(Use { has_answered: true, reads: 3 }, now, &mut rng);
            assert_eq!(link.state(), State::Connecting);
            assert!(next <= now + SECOND, "one that has answered little, by the first backoff");
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
                // At once after what was lost, but not twice.
                for three in attempts.windows(3) {
                    assert!(three[2] - three[0] >= SECOND, "{three:?}");
                }
            });
        }
    }
}
