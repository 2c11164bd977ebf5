//! Servers that queue, and servers that do not.

use super::*;

/// The work of answering a call.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) takes: Takes,
    /// When each worker is free; none if there are as many as calls.
    pub(super) workers: BinaryHeap<Reverse<Duration>>,
    /// The length of the pause each 5 s.
    pub(super) pause: Duration,
}

/// The service time of a call.
#[derive(Clone, Copy)]
pub(super) enum Takes {
    /// This many milliseconds, ±20 %.
    About(f64),
    /// The first, and from this second on the other.
    Step(f64, f64, f64),
    /// From the first to the second within so many seconds.
    Ramp(f64, f64, f64),
    /// The first for seven of ten calls, and the second for three.
    Bimodal(f64, f64),
    /// This mean, exponentially distributed.
    Exponential(f64),
}

const PAUSES: Duration = Duration::from_secs(5);

// === impl Server ===

impl Server {
    pub(super) fn of(takes: Takes) -> Self {
        Self { takes, workers: BinaryHeap::new(), pause: Duration::ZERO }
    }

    pub(super) fn with_workers(mut self, workers: usize) -> Self {
        self.workers = std::iter::repeat_n(Reverse(Duration::ZERO), workers).collect();
        self
    }

    pub(super) fn with_pauses(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// When a call that begins now ends.
    pub(super) fn begin(&mut self, now: Duration, rng: &mut SmallRng) -> Duration {
        let takes = self.takes.draw(now, rng);
        let Some(Reverse(free)) = self.workers.pop() else { return self.after(now, takes) };
        let done = self.after(free.max(now), takes);
        self.workers.push(Reverse(done));
        done
    }

    /// The end of `work` from `start`, with the pauses.
    fn after(&self, start: Duration, work: Duration) -> Duration {
        let mut pause = PAUSES * (start.as_secs_f64() / PAUSES.as_secs_f64()) as u32;
        let mut done = start + work;
        while !self.pause.is_zero() && pause < done {
            if !pause.is_zero() && pause + self.pause > start {
                done += self.pause - start.saturating_sub(pause);
            }
            pause += PAUSES;
        }
        done
    }
}

// === impl Takes ===

impl Takes {
    fn draw(self, now: Duration, rng: &mut SmallRng) -> Duration {
        let (chance, second): (f64, f64) = (rng.random(), now.as_secs_f64());
        let about = |millis: f64| millis * (0.8 + 0.4 * chance);
        let millis = match self {
            Self::About(millis) => about(millis),
            Self::Step(before, after, at) => about(if second < at { before } else { after }),
            Self::Ramp(from, to, within) => about(from + (to - from) * (second / within).min(1.0)),
            Self::Bimodal(often, else_) => {
                if chance < 0.7 {
                    often
                } else {
                    else_
                }
            }
            Self::Exponential(mean) => -mean * (1.0 - chance).ln(),
        };
        Duration::from_secs_f64(millis / 1000.0)
    }
}
