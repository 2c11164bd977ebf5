//! The rule of [`Adaptive`], step by step. Latencies and numbers in flight are logarithms (log2):
//! what is twice as slow is 1 more.

use super::*;
use proptest::prelude::*;

const MS: Duration = Duration::from_millis(1);
/// The latency of calls that do not queue: 2^14 µs.
const USUAL: f64 = 14.0;

fn adaptive() -> Adaptive {
    Adaptive { initial: 100, ..Adaptive::default() }
}

fn of(calls: u64, latency: f64, among: f64) -> Group {
    Group { calls, latency, among }
}

/// A window of 100 ms with as many in flight at its end as when its calls began.
fn window(few: Group, many: Group) -> Seen {
    let in_progress = many.among.exp2() as u32;
    Seen { few, many, lost: 0, took: 100 * MS, in_progress, met: false }
}

/// A window whose 100 calls all began with 64 in flight.
fn even(latency: f64) -> Seen {
    window(Group::default(), of(100, latency, 6.0))
}

fn met(seen: Seen) -> Seen {
    Seen { met: true, ..seen }
}

/// A finder that knows the usual latency, with its limit at 100 again.
fn taught() -> Finder {
    let mut finder = Finder::new(adaptive());
    finder.update(&even(USUAL));
    finder.limit = 100.0;
    finder
}

fn about(value: f64, expected: f64) -> bool {
    (value - expected).abs() < 1e-9
}

// === a window ===

#[test]
fn the_means_of_a_window_are_those_of_all_its_calls() {
    let seen = window(of(10, 10.0, 1.0), of(30, 14.0, 5.0));
    assert_eq!((seen.calls(), seen.latency(), seen.among()), (40, 13.0, 16.0));
    // 2^13 times 1024 ns.
    assert_eq!(seen.nanos(), 8_388_608);
    let none = window(Group::default(), Group::default());
    assert_eq!((none.calls(), none.latency(), none.among()), (0, 0.0, 1.0));
}

#[test]
fn the_slope_is_the_exponent_of_the_number_in_flight_in_the_latency() {
    // Four times as many, twice as slow.
    assert_eq!(window(of(5, 10.0, 2.0), of(5, 11.0, 4.0)).slope(), Some(0.5));
    assert_eq!(window(of(5, 11.0, 2.0), of(5, 11.0, 4.0)).slope(), Some(0.0));
    for [few, many] in [[4, 100], [100, 4]] {
        assert_eq!(window(of(few, 10.0, 2.0), of(many, 11.0, 4.0)).slope(), None, "too few calls");
    }
    assert_eq!(window(of(5, 10.0, 0.0), of(5, 10.5, 0.29)).slope(), None, "about the same number");
    assert!(window(of(5, 10.0, 0.0), of(5, 10.5, 0.3)).slope().is_some());
}

#[test]
fn where_calls_queue_those_among_fewer_show_the_latency_of_one_alone() {
    assert_eq!(window(of(50, 10.0, 2.0), of(50, 11.0, 4.0)).alone(), 10.0);
    assert_eq!(window(of(50, 10.0, 2.0), of(50, 10.9, 4.0)).alone(), 10.45);
    assert_eq!(even(USUAL).alone(), USUAL);
}

#[test]
fn the_throughput_is_the_calls_in_a_second() {
    let seen = window(of(24, 0.0, 0.0), of(40, 0.0, 0.0));
    assert!(about(Seen { took: 500 * MS, ..seen }.throughput(), 7.0), "128 a second");
    let none = window(Group::default(), Group::default());
    assert!(about(Seen { took: 1000 * MS, ..none }.throughput(), 0.0), "none is as one");
    assert!(Seen { took: Duration::ZERO, ..seen }.throughput().is_finite());
}

#[test]
fn the_weight_of_a_slope_is_the_variance_of_the_number_in_flight() {
    // 10 at -1.5 from the mean, and 30 at 0.5.
    assert_eq!(window(of(10, 0.0, 2.0), of(30, 0.0, 4.0)).weight(), 10.0 * 2.25 + 30.0 * 0.25);
}

#[test]
fn growth_is_much_from_a_twentieth_of_the_ended_and_significant_beyond_chance() {
    let grown = |from, to, calls| Grown { from, to, calls };
    assert_eq!([grown(10, 30, 1.0).more(), grown(30, 10, 1.0).more()], [20.0, -20.0]);
    let much = |it: Grown| (it.is_much(), it.is_significant());
    // A twentieth of 400 is 20, and two standard deviations are 40.
    assert_eq!(much(grown(5, 24, 400.0)), (false, false));
    assert_eq!(much(grown(5, 25, 400.0)), (true, false));
    assert_eq!(much(grown(5, 44, 400.0)), (true, false));
    assert_eq!(much(grown(5, 45, 400.0)), (true, true));
    // Of 10,000, 500 and 200.
    assert_eq!(much(grown(0, 499, 10_000.0)), (false, false));
    assert_eq!(much(grown(0, 500, 10_000.0)), (true, true));
}

// === slow calls ===

/// What is thought after each window: `?`, `P`iling or `I`ndependent.
fn thoughts(windows: impl IntoIterator<Item = (Seen, Grown)>) -> String {
    let mut slow = Slow { from: 10, ..Slow::default() };
    let thought = |(seen, grown): (Seen, Grown)| match slow.think(&seen, grown) {
        Thought::Unsure => '?',
        Thought::Piling => 'P',
        Thought::Independent => 'I',
    };
    windows.into_iter().map(thought).collect()
}

/// A window whose slope has this weight.
fn sloping(slope: f64, weight: u64) -> (Seen, Grown) {
    let seen = window(of(2 * weight, 15.0, 5.0), of(2 * weight, 15.0 + slope, 6.0));
    (seen, Grown { from: 10, to: 10, calls: 1.0 })
}

#[test]
fn slow_calls_are_slow_by_themselves_where_their_latency_does_not_rise_with_their_number() {
    let thought = |windows: &[(f64, u64)]| {
        thoughts(windows.iter().map(|(slope, weight)| sloping(*slope, *weight)))
    };
    assert_eq!(thought(&[(0.24, 40)]), "I");
    assert_eq!(thought(&[(0.25, 40)]), "?", "it rises");
    assert_eq!(thought(&[(1.0, 40)]), "?", "they queue");
    assert_eq!(thought(&[(0.0, 39)]), "?", "the number was about constant");
    // Older windows count 0.7 as much: 30, 51; 20, 34, 43.8; 20, 29.
    assert_eq!(thought(&[(0.0, 30), (0.0, 30)]), "?I");
    assert_eq!(thought(&[(0.0, 20), (0.0, 20), (0.0, 20)]), "??I");
    assert_eq!(thought(&[(0.0, 20), (0.0, 15)]), "??");
    // As do their slopes: 14 of 74, and 14 of 54.
    assert_eq!(thought(&[(1.0, 20), (0.0, 60)]), "?I");
    assert_eq!(thought(&[(1.0, 20), (0.0, 40)]), "??");
}

/// Windows without a slope, with so many in flight at their ends.
fn growing(in_flight: &[u32], calls: f64) -> String {
    let from = [&[10], in_flight].concat();
    let grown = from.into_iter().zip(in_flight);
    thoughts(grown.map(|(from, &to)| (even(15.0), Grown { from, to, calls })))
}

#[test]
fn calls_pile_up_where_their_number_has_grown_beyond_chance_for_three_windows() {
    // Of 300, chance gives 34.
    assert_eq!(growing(&[30, 40, 50], 100.0), "??P");
    assert_eq!(growing(&[20, 30, 44], 100.0), "???", "34 more");
    assert_eq!(growing(&[30, 60, 60], 100.0), "???", "not in the last of them");
    assert_eq!(growing(&[60], 100.0), "?");
}

#[test]
fn many_slow_calls_that_do_not_pile_up_are_slow_by_themselves() {
    assert_eq!(growing(&[10; 5], 80.0), "????I");
    assert_eq!(growing(&[10; 4], 200.0), "????", "five windows");
    assert_eq!(growing(&[10; 6], 79.0), "?????I", "400 calls");
    // 20 more of 400 are a twentieth.
    assert_eq!(growing(&[30, 30, 30, 30, 30], 80.0), "?????");
    assert_eq!(growing(&[29, 29, 29, 29, 29], 80.0), "????I");
}

// === a trial ===

/// Of a trial with 64 in flight before: what each window shows after it has settled. Each is a
/// change of the number in flight, the latency and the throughput.
fn judged(among: f64, latency: f64, throughput: f64) -> String {
    let mut trial = Trial { limit: 80.0, before: even(15.0), is_settling: true };
    let after = window(Group::default(), of(100, 15.0 + latency, 6.0 + among));
    let took = (100 * MS).div_f64(throughput.exp2());
    let seen = Seen { took, ..after };
    let mut judged = || match trial.judge(&seen) {
        Judgement::Later => "later".to_owned(),
        Judgement::Queue => "queue".to_owned(),
        Judgement::Independent(limit) => format!("independent, {limit}"),
    };
    assert_eq!(judged(), "later", "its calls may have begun before");
    judged()
}

#[test]
fn a_trial_finds_a_queue_where_fewer_calls_are_faster_and_as_many_end() {
    assert_eq!(judged(-1.0, -1.0, 0.0), "queue");
    assert_eq!(judged(-1.0, 0.0, -1.0), "independent, 80", "as slow, and half as many end");
    assert_eq!(judged(-1.0, 0.0, 0.0), "queue", "as slow, and as many: half of a queue is one");
    // Of the two estimates, the mean: 0.55, and 0.45.
    assert_eq!(judged(-1.0, -0.6, -0.5), "queue");
    assert_eq!(judged(-1.0, -0.4, -0.5), "independent, 80");
    assert_eq!(judged(-1.0, -0.5, -0.4), "queue");
    assert_eq!(judged(-1.0, -0.5, -0.6), "independent, 80");
    assert_eq!(judged(-2.0, -1.1, -1.0), "queue");
    assert_eq!(judged(-2.0, -0.9, -1.0), "independent, 80");
}

#[test]
fn a_trial_shows_nothing_where_the_number_in_flight_has_not_fallen() {
    assert_eq!(judged(-0.31, 0.0, -0.31), "independent, 80");
    assert_eq!(judged(-0.29, 0.0, -0.29), "queue");
    assert_eq!(judged(0.29, 0.0, 0.29), "queue");
}

// === the limit ===

#[test]
fn a_limit_that_refuses_nothing_grows_by_a_quarter_in_each_window_up_to_the_most() {
    let mut finder = Finder::new(adaptive());
    let limits: Vec<_> = (0..12).map(|_| finder.update(&even(USUAL))).collect();
    assert_eq!(limits, [125, 156, 195, 244, 305, 381, 476, 596, 745, 931, 1000, 1000]);
}

#[test]
fn calls_are_slow_beyond_the_tolerated_multiple_of_the_usual_latency() {
    for tolerance in [1.0, 2.0, 8.0_f64] {
        let settings = Adaptive { tolerance, ..adaptive() };
        let limit = |more: f64| {
            let mut finder = Finder::new(settings);
            finder.update(&even(USUAL));
            finder.update(&even(USUAL + more))
        };
        let tolerated = tolerance.log2();
        assert_eq!([limit(tolerated), limit(tolerated + 0.1)], [156, 125], "{tolerance}");
    }
}

#[test]
fn the_baseline_follows_faster_calls_a_fifth_of_the_way_and_slower_ones_not() {
    let mut finder = taught();
    finder.update(&even(9.0));
    assert_eq!(finder.baseline, Some(13.0));
    finder.update(&even(13.9));
    assert_eq!(finder.baseline, Some(13.0));
}

#[test]
fn the_first_baseline_is_the_latency_of_calls_that_do_not_queue() {
    let mut finder = Finder::new(adaptive());
    finder.update(&window(of(50, 13.0, 4.0), of(50, 14.0, 5.0)));
    assert_eq!(finder.baseline, Some(13.0));
}

#[test]
fn a_limit_that_is_reached_by_fast_calls_grows_by_its_root_and_ever_faster() {
    let mut finder = taught();
    // √100, √110·√2, √124.8·2, √147.2·2√2: each rounded down.
    let limits: Vec<_> = (0..4).map(|_| finder.update(&met(even(USUAL)))).collect();
    assert_eq!(limits, [110, 124, 147, 181]);
    // A window in which it is not reached, or calls are slow, ends that.
    finder.update(&even(USUAL));
    finder.limit = 100.0;
    assert_eq!(finder.update(&met(even(USUAL))), 110);
    finder.fast = 7;
    finder.update(&met(even(17.0)));
    assert_eq!(finder.fast, 0);
}

#[test]
fn a_limit_at_most_doubles_in_a_window() {
    let mut finder = taught();
    (finder.limit, finder.fast) = (16.0, 10);
    assert_eq!(finder.update(&met(even(USUAL))), 32);
}

#[test]
fn the_baseline_is_forgotten_slowly_while_the_limit_is_reached() {
    let mut finder = taught();
    for _ in 0..10 {
        finder.update(&met(even(USUAL)));
    }
    // The latest of them begins to follow what was forgotten only where calls are faster.
    assert!(about(finder.baseline.unwrap(), USUAL - 10.0 * 0.015), "{:?}", finder.baseline);
}

#[test]
fn a_limit_that_is_reached_by_slow_calls_is_lowered_on_trial_by_as_much_as_they_are_too_slow() {
    for (excess, lowered) in [(0.1, 70), (0.7, 61), (3.0, 50)] {
        let mut finder = taught();
        assert_eq!(finder.update(&met(even(USUAL + 1.0 + excess))), lowered, "{excess}");
        assert_eq!(finder.trial.unwrap().limit, 100.0);
    }
}

#[test]
fn after_a_trial_a_queue_is_tried_lower_and_what_is_slow_by_itself_gets_its_limit_back() {
    let slow = met(even(17.0));
    // Half as many, as fast as before for each, so that half as many end.
    let fewer = |latency, calls| met(window(Group::default(), of(calls, latency, 5.0)));
    let mut finder = taught();
    assert_eq!(finder.update(&slow), 50);
    assert_eq!(finder.update(&slow), 50, "it settles");
    assert_eq!(finder.update(&fewer(17.0, 50)), 100);
    // Between what was usual, less three times what is forgotten, and what is.
    assert!(about(finder.baseline.unwrap(), f64::midpoint(USUAL - 3.0 * 0.015, 17.0)));
    assert!(finder.trial.is_none() && finder.slow.is_none());

    let mut finder = taught();
    for seen in [slow, slow] {
        finder.update(&seen);
    }
    assert_eq!(finder.update(&fewer(16.0, 100)), 25, "half as many wait half as long");
    assert_eq!(finder.trial.unwrap().limit, 50.0);
    finder.update(&slow);
    assert_eq!(finder.update(&fewer(14.0, 100)), 30, "fast now: no trial follows, and √25 more");
    assert!(finder.trial.is_none());
}

#[test]
fn at_the_least_limit_slow_calls_are_the_service_s_own() {
    let mut finder = taught();
    finder.limit = 4.9;
    assert_eq!(finder.update(&met(even(18.0))), 4, "no lower one can be tried");
    assert_eq!((finder.baseline, finder.trial.is_some()), (Some(18.0), false));
}

#[test]
fn a_trial_ends_where_the_limit_is_not_reached() {
    let mut finder = taught();
    finder.update(&met(even(17.0)));
    finder.update(&even(17.0));
    assert!(finder.trial.is_none());
}

/// A window whose latency rises in proportion to the number in flight, which grows to `to`.
fn queueing(latency: f64, to: u32) -> Seen {
    let seen = window(of(50, latency - 0.5, 5.5), of(50, latency + 0.5, 6.5));
    Seen { in_progress: to, ..seen }
}

#[test]
fn calls_that_seem_to_queue_twice_in_a_row_set_the_limit_to_throughput_times_tolerated_latency() {
    let mut finder = taught();
    assert_eq!(finder.update(&queueing(16.0, 80)), 100, "once is chance");
    // 2 times slower than tolerated among 64, so 32 are enough.
    assert_eq!(finder.update(&queueing(16.0, 90)), 32);
    assert!(finder.slow.is_none());
}

#[test]
fn calls_do_not_seem_to_queue_where_few_more_are_in_flight_or_few_are_slower() {
    for (seen, why) in [
        (queueing(16.0, 68), "4 more of 100, that is less than a twentieth"),
        (window(of(50, 15.8, 5.5), of(50, 16.2, 6.5)), "a slope of 0.4"),
    ] {
        let mut finder = taught();
        finder.update(&queueing(16.0, 80));
        finder.in_progress = 64;
        finder.update(&seen);
        assert_eq!((finder.suspect, finder.applied()), (0, 100), "{why}");
    }
    // Beyond half the tolerance, that is √2 times the usual latency of 2 times, calls are slower.
    for (tolerance, half) in [(2.0, 0.5), (4.0, 1.0)] {
        let suspect = |more| {
            let mut finder = taught();
            finder.settings.tolerance = tolerance;
            finder.update(&queueing(USUAL + more, 80));
            finder.suspect
        };
        assert_eq!([suspect(half), suspect(half + 0.05)], [0, 1], "{tolerance}");
    }
}

#[test]
fn what_piles_up_is_limited_to_its_number_and_what_does_not_is_the_service_s_own() {
    let piling = |in_progress| Seen { in_progress, ..even(16.0) };
    let mut finder = taught();
    let limits = [80, 100, 130].map(|number| finder.update(&piling(number)));
    assert_eq!(limits, [100, 100, 130]);
    assert!(finder.slow.is_none());

    let mut finder = taught();
    for _ in 0..4 {
        finder.update(&even(16.0));
        assert_eq!(finder.baseline, Some(USUAL));
    }
    finder.update(&even(16.0));
    assert_eq!((finder.baseline, finder.slow.is_some()), (Some(16.0), false));
}

#[test]
fn a_fast_window_or_one_that_reaches_the_limit_ends_the_count_of_slow_ones() {
    for between in [even(USUAL), met(even(USUAL))] {
        let mut finder = taught();
        for _ in 0..4 {
            finder.update(&even(16.0));
        }
        finder.update(&between);
        assert!(finder.slow.is_none());
        finder.update(&queueing(15.9, 80));
        finder.update(&between);
        assert!(finder.slow.is_none());
    }
    let mut finder = taught();
    finder.update(&queueing(16.0, 80));
    finder.update(&met(even(USUAL)));
    assert_eq!(finder.suspect, 0);
}

// === calls that are abandoned ===

fn lost(seen: Seen, lost: u32) -> Seen {
    Seen { lost, ..seen }
}

#[test]
fn where_more_than_half_of_the_calls_are_abandoned_the_limit_is_halved() {
    // 100 are answered.
    let mut finder = taught();
    assert_eq!(finder.update(&lost(even(USUAL), 101)), 32, "half of the 64 in flight");
    let mut finder = taught();
    finder.limit = 50.0;
    assert_eq!(finder.update(&lost(even(USUAL), 101)), 25, "half of the limit");
    let mut finder = taught();
    assert_eq!(finder.update(&lost(even(USUAL), 100)), 100, "half of them");
    let none = window(Group::default(), Group::default());
    let mut finder = taught();
    assert_eq!(finder.update(&Seen { in_progress: 64, ..lost(none, 1) }), 32, "all of them");
}

#[test]
fn where_more_than_half_are_abandoned_nothing_else_is_learned() {
    let mut finder = taught();
    finder.update(&met(even(17.0)));
    (finder.suspect, finder.fast, finder.slow) = (1, 5, Some(Slow::default()));
    finder.update(&lost(even(9.0), 101));
    assert!(finder.trial.is_none() && finder.slow.is_none());
    assert_eq!((finder.suspect, finder.fast), (0, 0));
    assert!(finder.baseline.unwrap() > 13.9);
}

#[test]
fn where_more_than_a_tenth_are_abandoned_calls_are_too_slow() {
    // 90 are answered.
    let seen = met(window(Group::default(), of(90, USUAL, 6.0)));
    assert_eq!(taught().update(&lost(seen, 10)), 110, "a tenth");
    assert_eq!(taught().update(&lost(seen, 11)), 70, "a trial");
    let slow = met(window(Group::default(), of(90, 18.0, 6.0)));
    assert_eq!(taught().update(&lost(slow, 11)), 50, "no less slow than they are");
}

#[test]
fn a_limit_at_which_no_call_ends_is_doubled_and_no_trial_goes_on() {
    let mut finder = taught();
    finder.update(&met(even(17.0)));
    assert_eq!([finder.stalled(), finder.stalled()], [100, 200]);
    assert!(finder.trial.is_none());
}

fn group() -> impl Strategy<Value = Group> {
    (0..10_000u64, 0.0..50.0, 0.0..32.0)
        .prop_map(|(calls, latency, among)| of(calls, latency, among))
}

proptest! {
    #[test]
    fn it_never_leaves_its_range(
        seen in proptest::collection::vec(
            (group(), group(), 0..1000u32, 0..1000u32, 0..2000u32, any::<[bool; 2]>()),
            1..200,
        )
    ) {
        let settings = Adaptive { initial: 20, min: 5, max: 50, ..Adaptive::default() };
        let mut finder = Finder::new(settings);
        for (few, many, lost, took, in_progress, [met, stalled]) in seen {
            let seen = Seen { few, many, lost, took: MS * took, in_progress, met };
            let limit = if stalled { finder.stalled() } else { finder.update(&seen) };
            prop_assert!((5..=50).contains(&limit), "{limit}");
        }
    }
}
