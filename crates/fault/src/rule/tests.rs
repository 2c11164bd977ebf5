//! The grammar: shown rules parse to the same, and errors name the place.

use super::*;
use proptest::prelude::*;

fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (0..8760_u64).prop_map(|hours| Duration::from_secs(hours * 3600)),
        (0..10_000_u64).prop_map(Duration::from_millis),
        (0..u64::from(u32::MAX)).prop_map(Duration::from_nanos),
    ]
}

/// Above zero.
fn some_time() -> impl Strategy<Value = Duration> {
    duration().prop_map(|time| time.max(Duration::from_nanos(1)))
}

fn scope() -> impl Strategy<Value = Scope> {
    let method = prop_oneof![
        Just(Method::Any),
        Just(Method::Service("/calculator.Calculator/".to_owned())),
        "[A-Za-z.]{1,9}/[A-Za-z]{1,9}".prop_map(|path| Method::Exact(format!("/{path}"))),
    ];
    let text = prop_oneof![
        "\\PC*".prop_map(Text::Prefix),
        "[^*]*".prop_map(Text::Whole),
        "[ \"\\\\\n\t#=:]{0,5}".prop_map(Text::Whole),
    ];
    let key = "x-[a-z]{1,5}".prop_map(|key| key.parse::<HeaderName>().unwrap());
    let attempt = (1..9_u32, prop_oneof![0..9_u32, Just(u32::MAX)]);
    let attempt = attempt.prop_map(|(from, more)| from..=from.saturating_add(more));
    let caller = (any::<IpAddr>(), any::<Option<u16>>());
    let metadata = prop::collection::vec((key, text), 0..3);
    (method, metadata, prop::option::of(caller), prop::option::of(attempt), any::<bool>()).prop_map(
        |(method, metadata, caller, attempt, health)| Scope {
            method,
            metadata,
            caller,
            attempt,
            health,
        },
    )
}

fn trigger() -> impl Strategy<Value = Trigger> {
    let window = (duration(), prop::option::of(some_time()))
        .prop_map(|(from, more)| (from, more.map(|more| from + more)))
        .prop_filter("too long", |(_, to)| to.is_none_or(|to| to.as_secs() <= 8760 * 3600));
    let every = any::<NonZeroU64>();
    let first = 1..u64::MAX;
    (0.0..=1.0_f64, prop::option::of(every), prop::option::of(first), prop::option::of(window))
        .prop_map(|(rate, every, first, window)| Trigger { rate, every, first, window })
}

fn wait() -> impl Strategy<Value = Wait> {
    prop_oneof![
        duration().prop_map(Wait::Fixed),
        (duration(), duration()).prop_map(|(one, two)| Wait::Uniform(one.min(two), one.max(two))),
        (duration(), duration()).prop_map(|(mean, deviation)| Wait::Normal { mean, deviation }),
        (some_time(), some_time()).prop_filter_map("ends", |(p50, p99)| {
            (p50 < p99).then_some(Wait::LogNormal { p50, p99 })
        }),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    let code = || (1..=16_i32).prop_map(Code::from_i32);
    let reset = || 0..14_u32;
    let broken = prop::sample::select(Broken::ALL.to_vec());
    let mix = prop::collection::vec((code(), 1..=1_000_000_u32), 1..4);
    let words = prop_oneof![Just(MESSAGE.to_owned()), any::<String>()];
    prop_oneof![
        (mix, words, any::<Vec<u8>>()).prop_map(|(codes, message, details)| Action::Status {
            codes,
            message,
            details
        }),
        Just(Action::Hang),
        Just(Action::HeadersThenHang),
        Just(Action::Drop),
        Just(Action::Panic),
        (any::<u64>(), prop::option::of(reset()))
            .prop_map(|(after, end)| Action::Cut { after, end }),
        reset().prop_map(Action::Reset),
        prop::option::of(reset()).prop_map(Action::GoAway),
        broken.prop_map(Action::Trailers),
        (any::<NonZeroUsize>(), some_time())
            .prop_map(|(bytes, every)| Action::Drip { bytes, every }),
    ]
}

fn a_rule() -> impl Strategy<Value = Rule> {
    let ttl = prop_oneof![Just(Ttl::Unsaid), Just(Ttl::Forever), some_time().prop_map(Ttl::For)];
    let when = prop::sample::select(vec![When::Before, When::After]);
    let (delay, action) = (prop::option::of(wait()), prop::option::of(action()));
    (scope(), trigger(), ttl, when, delay, action).prop_filter_map(
        "nothing to inject, or sent away after",
        |(scope, trigger, ttl, when, delay, action)| {
            let has_effect = delay.is_some() || action.is_some();
            let is_late = when == When::After && matches!(action, Some(Action::GoAway(_)));
            let rule = Rule { scope, trigger, ttl, when, delay, action };
            (has_effect && !is_late).then_some(rule)
        },
    )
}

proptest! {
    #[test]
    fn a_rule_that_is_shown_is_parsed_to_the_same(rule in a_rule()) {
        let shown = rule.to_string();
        prop_assert_eq!(shown.parse::<Rule>(), Ok(rule), "{}", shown);
    }

    #[test]
    fn no_text_makes_parsing_panic_and_each_place_is_in_the_text(
        text in prop_oneof![
            any::<String>(),
            "(rate|delay|cut|mix|status|method|metadata|x)[=.:\"a-z0-9% ]{0,20}",
        ],
    ) {
        if let Err(error) = text.parse::<Rule>() {
            prop_assert!(error.at().end <= text.len(), "{:?}", error);
            prop_assert!(!error.allowed().is_empty());
            prop_assert!(text.get(error.at()).is_some());
            prop_assert_eq!(error.to_string().lines().count(), 4, "{}", error);
        }
    }
}

#[test]
fn a_rule_is_written_as_people_type_it() {
    for (typed, shown) in [
        ("status=unavailable", "status=UNAVAILABLE"),
        ("status=14:simulated", "status=UNAVAILABLE:simulated"),
        ("  rate=30%   delay=0.25s ", "rate=0.3 delay=250ms"),
        ("method=a.B/C hang", "method=/a.B/C hang"),
        ("method=/a.B/* drop", "method=/a.B/* drop"),
        ("method=* panic", "panic"),
        ("message=no status=INTERNAL", "status=INTERNAL:no"),
        ("mix=INTERNAL:3,ABORTED", "mix=INTERNAL:3,ABORTED:1"),
        ("cut=2", "cut=2:INTERNAL_ERROR"),
        ("cut=2:drop", "cut=2:drop"),
        ("reset=refused-stream", "reset=REFUSED_STREAM"),
        ("goaway=11", "goaway=ENHANCE_YOUR_CALM"),
        ("delay=90s", "delay=90s"),
        ("delay=120s ttl=none", "ttl=none delay=2m"),
        ("attempt=2.. caller=[::1]:7 hang=headers", "caller=[::1]:7 attempt=2.. hang=headers"),
        ("metadata.x-a=\"b c*\" health drip=1/1ms", "metadata.x-a=\"b c*\" health drip=1/1ms"),
        ("status=ABORTED details=aGk=", "status=ABORTED details=aGk"),
    ] {
        assert_eq!(typed.parse::<Rule>().map(|rule| rule.to_string()), Ok(shown.to_owned()));
    }
}

#[test]
fn an_error_marks_the_place_and_lists_what_is_allowed() {
    for (text, marked, what, allowed) in [
        ("", "", "nothing to inject", "delay, and one of"),
        ("rate=0.5", "", "nothing to inject", "delay, and one of"),
        ("hang rate=1.5", "1.5", "not a share", "0 to 1"),
        ("hang rate=NaN", "NaN", "not a share", "0 to 1"),
        ("hang rate", "rate", "it needs a value", "rate= and 0 to 1"),
        ("hang=up", "up", "not a way to hang", "hang=headers"),
        ("drop=1", "1", "it takes no value", "drop"),
        ("hang drop", "drop", "there is `hang` already", "one of"),
        ("rate=1 rate=0 hang", "rate", "set twice", "once"),
        ("status=OK", "OK", "no code to fail with", "CANCELLED, UNKNOWN"),
        ("status=SAD:\"x\"", "SAD", "no code to fail with", "UNAVAILABLE"),
        ("mix=ABORTED:0", "ABORTED:0", "not a weight", "1 to 1000000"),
        ("reset=CALM", "CALM", "not an HTTP/2 error code", "ENHANCE_YOUR_CALM"),
        ("cut=x", "x", "not a number of messages", "drop"),
        ("trailers=sad", "sad", "trailers", "missing, bad-status"),
        ("drip=0/1s", "0/1s", "not a drip", "16/50ms"),
        ("delay=1", "1", "not a delay", "lognormal:P50:P99"),
        ("delay=2s..1s", "2s..1s", "not a delay", "50ms..200ms"),
        ("delay=lognormal:2s:1s", "lognormal:2s:1s", "not a delay", "P50 < P99"),
        ("delay=9999h", "9999h", "not a delay", "100ms"),
        ("hang ttl=0s", "0s", "not a lifetime", "none"),
        ("hang window=2s..1s", "2s..1s", "not a window", "10s..20s"),
        ("hang method=Add", "Add", "not a method", "/package.Service/Method"),
        ("hang caller=me", "me", "not an address", "IP"),
        ("hang attempt=0", "0", "not an attempt", "from 1"),
        ("hang when=later", "later", "not a time", "before, after"),
        ("hang message=x", "message=x", "no status", "status, mix"),
        ("goaway when=after", "goaway", "not executed", "before"),
        ("status=ABORTED:\"x", "\"x", "not closed", "\""),
        ("status=ABORTED:\"\\x\"", "\\x", "no such escape", "\\n"),
        ("hang ünd=1", "ünd", "unknown word `ünd`", "attempt, caller"),
    ] {
        let error = text.parse::<Rule>().unwrap_err();
        assert_eq!(&text[error.at()], marked, "{text}");
        assert!(error.what().contains(what), "{text}: {error}");
        assert!(error.allowed().contains(allowed), "{text}: {error}");
    }
}

#[test]
fn carets_are_under_the_place_whatever_is_before_it() {
    let error = "status=ABORTED:\"ünï\t\" rate=7".parse::<Rule>().unwrap_err().to_string();
    let lines: Vec<_> = error.lines().map(|line| line.chars().collect::<Vec<_>>()).collect();
    let place = lines[2].iter().position(|c| *c == '^').unwrap();
    assert_eq!((lines[1][place], lines[2].len()), ('7', place + 1), "{error}");
}
