//! Servers that queue, and servers that do not.

use super::*;

/// What it takes to answer a call.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) takes: Takes,
    /// When each worker is free; none where there are as many as there are calls.
    pub(super) workers: BinaryHeap<Reverse<Duration>>,
    /// Stands still so long each 5 s.
    pub(super) pause: Duration,
}

/// How long a call takes by itself.
#[derive(Clone, Copy)]
pub(super) enum Takes {
    /// So many milliseconds, a fifth more or less.
    About(f64),
    /// One, and from this second on the other.
    Step(f64, f64, f64),
    /// From one to the other within so many seconds.
    Ramp(f64, f64, f64),
    /// Seven of ten one, and three the other.
    Bimodal(f64, f64),
    /// So many on average, and any number by chance.
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

    /// When a call ends that begins now.
    pub(super) fn begin(&mut self, now: Duration, rng: &mut SmallRng) -> Duration {
        let takes = self.takes.draw(now, rng);
        let Some(Reverse(free)) = self.workers.pop() else { return self.after(now, takes) };
        let done = self.after(free.max(now), takes);
        self.workers.push(Reverse(done));
        done
    }

    /// `work` from `start`, but for the pauses.
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
