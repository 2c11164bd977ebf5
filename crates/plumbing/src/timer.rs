//! Timers of calls, which are usually stopped before they fire.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    runtime::Handle,
    time::{Instant, Sleep, sleep, sleep_until},
};

/// A timer that fires as long as others are created often.
#[derive(Debug, Default)]
struct Beat {
    is_running: AtomicBool,
    is_wanted: AtomicBool,
}

/// It runs until its task ends, also with the runtime.
struct Running(Arc<Beat>);

const PERIOD: Duration = Duration::from_millis(100);
/// One timer of so many asks for the beat, so that few calls seldom have one.
const EACH: u32 = 16;

thread_local! {
    static CREATED: Cell<u32> = const { Cell::new(0) };
    static BEAT: Arc<Beat> = Arc::default();
}

/// A timer of a call, which is usually stopped before it fires.
///
/// tokio wakes the thread that waits for events, by a system call, for each timer that is earlier
/// than all others; a call's timer usually is, as the one before was stopped. So a thread that
/// creates timers often keeps a periodic one of 100 ms, which is earlier than most. It ends when
/// the thread creates no more.
#[inline]
pub fn timer(end: Instant) -> Sleep {
    let created = CREATED.try_with(|created| created.replace(created.get().wrapping_add(1)));
    if created.is_ok_and(|created| created % EACH == EACH - 1) {
        _ = BEAT.try_with(keep_beating);
    }
    sleep_until(end)
}

#[cold]
fn keep_beating(beat: &Arc<Beat>) {
    beat.is_wanted.store(true, Relaxed);
    if beat.is_running.load(Relaxed) {
        return;
    }
    let Ok(runtime) = Handle::try_current() else { return };
    beat.is_running.store(true, Relaxed);
    let running = Running(beat.clone());
    runtime.spawn(async move {
        while running.0.is_wanted.swap(false, Relaxed) {
            sleep(PERIOD).await;
        }
    });
}

// === impl Running ===

impl Drop for Running {
    fn drop(&mut self) {
        self.0.is_running.store(false, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::runtime::{Builder, Runtime};

    fn runtime() -> Runtime {
        Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
    }

    /// Creates timers, and returns how many tasks there are then, and until when the last one ran.
    async fn tasks_of(timers: u32) -> (usize, Duration) {
        let began = Instant::now();
        for _ in 0..timers {
            drop(timer(began + Duration::from_secs(600)));
        }
        let tasks = || Handle::current().metrics().num_alive_tasks();
        let beating = tasks();
        while tasks() > 0 {
            sleep(Duration::from_millis(1)).await;
        }
        (beating, Instant::now() - began)
    }

    #[test]
    fn of_many_timers_a_beat_is_kept_and_ends_when_they_do() {
        runtime().block_on(async {
            assert_eq!(tasks_of(EACH - 1).await, (0, Duration::ZERO), "few");
            let (beating, took) = tasks_of(10 * EACH).await;
            assert_eq!(beating, 1);
            assert!((PERIOD..=2 * PERIOD).contains(&took), "{took:?}");
            let (beating, took) = tasks_of(EACH).await;
            assert_eq!(beating, 1, "again");
            assert!(took <= 2 * PERIOD, "{took:?}");
        });
    }

    #[test]
    fn a_beat_goes_on_while_timers_are_created() {
        runtime().block_on(async {
            for _ in 0..100 {
                (0..EACH).for_each(|_| drop(timer(Instant::now())));
                assert_eq!(Handle::current().metrics().num_alive_tasks(), 1);
                sleep(PERIOD / 3).await;
            }
        });
    }

    #[test]
    fn the_next_runtime_of_a_thread_has_its_own_beat() {
        for _ in 0..3 {
            let runtime = runtime();
            runtime.block_on(async {
                (0..EACH).for_each(|_| drop(timer(Instant::now())));
                assert_eq!(Handle::current().metrics().num_alive_tasks(), 1);
            });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_timer_fires_at_its_end_and_no_earlier() {
        let began = Instant::now();
        for millis in (1..2000).step_by(7) {
            let end = began + Duration::from_millis(millis);
            timer(end).await;
            assert_eq!(Instant::now(), end);
        }
    }
}
