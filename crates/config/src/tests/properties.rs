//! Properties of every input, and of every valid config.

use super::*;
use cinchona_plumbing::code;
use proptest::{collection::vec, option, prelude::*, sample};

/// Keys and values that lead into the parser, which chance alone would not hit.
const KEYS: [&str; 20] = [
    "methodConfig",
    "name",
    "service",
    "method",
    "timeout",
    "waitForReady",
    "maxRequestMessageBytes",
    "maxResponseMessageBytes",
    "retryPolicy",
    "hedgingPolicy",
    "maxAttempts",
    "initialBackoff",
    "maxBackoff",
    "backoffMultiplier",
    "retryableStatusCodes",
    "perAttemptRecvTimeout",
    "hedgingDelay",
    "retryThrottling",
    "maxTokens",
    "tokenRatio",
];

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0..20u8).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "-?[0-9]{0,13}[.]?[0-9é]{0,10}s?".prop_map(Value::from),
        "[0-9.eE+-]{1,6}".prop_map(Value::from),
        sample::select(vec!["UNAVAILABLE", "ok", "a.B", "C"]).prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 48, 8, |inner| {
        let key = prop_oneof![9 => sample::select(&KEYS[..]).prop_map(String::from),
            1 => any::<String>()];
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((key, inner), 0..8).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// A config of the right shape, with anything for the values.
fn any_policies() -> impl Strategy<Value = Value> {
    let fields = || {
        let fields = vec((sample::select(&KEYS[..]), any_json()), 0..12);
        fields.prop_map(|fields| {
            let fields = fields.into_iter().map(|(key, value)| (String::from(key), value));
            Value::Object(fields.collect())
        })
    };
    (fields(), fields(), fields(), any_json()).prop_map(|(retry, hedging, throttling, timeout)| {
        json!({
            "methodConfig": [
                { "name": [{}], "retryPolicy": retry, "timeout": timeout },
                { "name": [{}], "hedgingPolicy": hedging },
            ],
            "retryThrottling": throttling,
        })
    })
}

/// A mistake has a place, a rule, and its own line; a config has only allowed values.
fn law(json: &str) -> Result<(), TestCaseError> {
    match ServiceConfig::parse(json) {
        Ok(config) => {
            prop_assert!(config.methods.iter().all(|entry| !entry.names.is_empty()));
            for path in ["/a.B/C", json] {
                let _ = config.method(path);
            }
        }
        Err(errors) => {
            prop_assert!(!errors.as_slice().is_empty());
            prop_assert_eq!(errors.to_string().lines().count(), errors.as_slice().len());
            for error in errors.as_slice() {
                prop_assert!(!error.rule.is_empty() && !error.value.is_empty());
            }
        }
    }
    Ok(())
}

// === valid configs, and how they may be written ===

fn duration(least: Duration) -> impl Strategy<Value = Duration> {
    let seconds = prop_oneof![0..3u64, 0..315_576_000_000u64];
    let nanos = prop_oneof![Just(0), Just(1), Just(250_000_000), 0..1_000_000_000u32];
    (seconds, nanos).prop_map(move |(s, n)| Duration::new(s, n).max(least))
}

fn codes(least: usize) -> impl Strategy<Value = Vec<Code>> {
    vec((0..17).prop_map(Code::from_i32), least..5)
}

fn retry_policy() -> impl Strategy<Value = RetryPolicy> {
    let positive = || duration(Duration::from_nanos(1));
    let timeout = option::of(positive());
    (2..u32::MAX, positive(), positive(), 1..10_000u32, codes(0), timeout).prop_map(
        |(max_attempts, initial_backoff, max_backoff, multiplier, mut codes, timeout)| {
            if codes.is_empty() && timeout.is_none() {
                codes.push(Code::Unavailable);
            }
            RetryPolicy {
                max_attempts,
                initial_backoff,
                max_backoff,
                backoff_multiplier: f64::from(multiplier) / 1000.0,
                retryable_status_codes: codes,
                per_attempt_recv_timeout: timeout,
            }
        },
    )
}

fn hedging_policy() -> impl Strategy<Value = HedgingPolicy> {
    (2..u32::MAX, duration(Duration::ZERO), codes(0)).prop_map(
        |(max_attempts, hedging_delay, non_fatal_status_codes)| HedgingPolicy {
            max_attempts,
            hedging_delay,
            non_fatal_status_codes,
        },
    )
}

fn method_config() -> impl Strategy<Value = MethodConfig> {
    let policy = prop_oneof![
        retry_policy().prop_map(Policy::Retry),
        hedging_policy().prop_map(Policy::Hedging),
    ];
    let timeout = option::of(duration(Duration::ZERO));
    let bytes = || option::of(any::<u32>());
    (timeout, option::of(any::<bool>()), bytes(), bytes(), option::of(policy)).prop_map(
        |(timeout, wait_for_ready, request, response, policy)| MethodConfig {
            timeout,
            wait_for_ready,
            max_request_message_bytes: request,
            max_response_message_bytes: response,
            policy,
        },
    )
}

pub(super) fn valid() -> impl Strategy<Value = ServiceConfig> {
    let names = sample::subsequence(
        vec![("", ""), ("a.B", ""), ("a.B", "C"), ("a.B", "D"), ("c.D", ""), ("ü", "\"")],
        0..6,
    );
    let throttling = option::of((1..=1_000_000u32, 1..u32::MAX));
    (names, vec(method_config(), 6), 1..3usize, throttling).prop_map(
        |(names, configs, in_one, throttling)| ServiceConfig {
            methods: names
                .chunks(in_one)
                .zip(configs)
                .enumerate()
                .map(|(index, (names, config))| {
                    let name = |(service, method): &(&str, &str)| Name {
                        service: (*service).into(),
                        method: (*method).into(),
                    };
                    MethodEntry { index, names: names.iter().map(name).collect(), config }
                })
                .collect(),
            retry_throttling: throttling
                .map(|(max_tokens, token_ratio)| RetryThrottling { max_tokens, token_ratio }),
            ..ServiceConfig::default()
        },
    )
}

/// Writes a config; each value in one of the ways that mean the same, by turns.
struct Writer(usize);

impl Writer {
    fn turn(&mut self) -> usize {
        self.0 += 1;
        self.0 % 3
    }

    fn absent(&mut self, fields: &mut Value, key: &str, as_well: Value) {
        match self.turn() {
            0 => {}
            1 => fields[key] = Value::Null,
            _ => fields[key] = as_well,
        }
    }

    fn integer(&mut self, number: u32) -> Value {
        match self.turn() {
            0 => json!(number),
            1 => json!(f64::from(number)),
            _ => json!(number.to_string()),
        }
    }

    fn thousandths(&mut self, number: u32) -> Value {
        let text = format!("{}.{:03}9", number / 1000, number % 1000);
        // 1000.0009 tokens are too many.
        let text = if number == 1_000_000 { "1000".into() } else { text };
        if self.turn() == 0 { json!(text) } else { serde_json::from_str(&text).unwrap() }
    }

    fn duration(&mut self, duration: Duration) -> Value {
        let text = format!("{}.{:09}", duration.as_secs(), duration.subsec_nanos());
        let short = text.trim_end_matches('0').trim_end_matches('.');
        json!(if self.turn() == 0 { format!("{text}s") } else { format!("{short}s") })
    }

    fn codes(&mut self, codes: &[Code]) -> Value {
        let code = |code: &Code| match self.turn() {
            0 => json!(*code as i32),
            1 => json!(code::name(*code)),
            _ => json!(code::name(*code).to_lowercase()),
        };
        codes.iter().map(code).collect()
    }

    fn policy(&mut self, policy: &Policy) -> (&'static str, Value) {
        match policy {
            Policy::Retry(policy) => {
                let mut fields = json!({
                    "maxAttempts": self.integer(policy.max_attempts),
                    "initialBackoff": self.duration(policy.initial_backoff),
                    "maxBackoff": self.duration(policy.max_backoff),
                    "backoffMultiplier": policy.backoff_multiplier,
                    "retryableStatusCodes": self.codes(&policy.retryable_status_codes),
                });
                if let Some(timeout) = policy.per_attempt_recv_timeout {
                    fields["perAttemptRecvTimeout"] = self.duration(timeout);
                }
                ("retryPolicy", fields)
            }
            Policy::Hedging(policy) => {
                let mut fields = json!({
                    "maxAttempts": self.integer(policy.max_attempts),
                    "nonFatalStatusCodes": self.codes(&policy.non_fatal_status_codes),
                });
                if policy.hedging_delay.is_zero() {
                    self.absent(&mut fields, "hedgingDelay", json!("0s"));
                } else {
                    fields["hedgingDelay"] = self.duration(policy.hedging_delay);
                }
                ("hedgingPolicy", fields)
            }
        }
    }

    fn name(&mut self, name: &Name) -> Value {
        let mut fields = json!({});
        for (key, value) in [("service", &name.service), ("method", &name.method)] {
            if value.is_empty() {
                self.absent(&mut fields, key, json!(""));
            } else {
                fields[key] = json!(value);
            }
        }
        fields
    }

    fn entry(&mut self, entry: &MethodEntry) -> Value {
        let config = &entry.config;
        let names: Value = entry.names.iter().map(|name| self.name(name)).collect();
        let mut fields = json!({ "name": names, "waitForReady": config.wait_for_ready });
        if let Some(timeout) = config.timeout {
            fields["timeout"] = self.duration(timeout);
        }
        for (key, bytes) in [
            ("maxRequestMessageBytes", config.max_request_message_bytes),
            ("maxResponseMessageBytes", config.max_response_message_bytes),
        ] {
            fields[key] = bytes.map_or(Value::Null, |bytes| self.integer(bytes));
        }
        if let Some(policy) = &config.policy {
            let (key, policy) = self.policy(policy);
            fields[key] = policy;
        }
        fields
    }

    fn config(&mut self, config: &ServiceConfig) -> Value {
        let methods: Value = config.methods.iter().map(|entry| self.entry(entry)).collect();
        let mut fields = json!({ "methodConfig": methods });
        if let Some(throttling) = config.retry_throttling {
            fields["retryThrottling"] = json!({
                "maxTokens": self.thousandths(throttling.max_tokens),
                "tokenRatio": self.thousandths(throttling.token_ratio),
            });
        }
        fields
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>()) {
        law(&text)?;
    }

    #[test]
    fn no_text_of_json_signs_makes_the_parser_panic(text in r#"[\[\]{}",:0-9eE.+\-a-z \n\\é]*"#) {
        law(&text)?;
    }

    #[test]
    fn no_json_makes_the_parser_panic(json in any_json()) {
        law(&json.to_string())?;
    }

    #[test]
    fn no_value_in_a_policy_makes_the_parser_panic(json in any_policies()) {
        law(&json.to_string())?;
    }

    #[test]
    fn a_valid_config_is_read_as_what_it_says(config in valid(), turn in 0..3usize) {
        let json = Writer(turn).config(&config);
        let parsed = parse(&json).map(|parsed| ServiceConfig { warnings: Vec::new(), ..parsed });
        prop_assert_eq!(parsed, Ok(config), "{}", json);
    }

    #[test]
    fn a_valid_config_cut_short_is_not_json(config in valid(), cut in any::<sample::Index>()) {
        let text = Writer(0).config(&config).to_string();
        let ends: Vec<_> = text.char_indices().map(|(at, _)| at).collect();
        let cut = &text[..ends[cut.index(ends.len())]];
        prop_assert_eq!(ServiceConfig::parse(cut).unwrap_err().as_slice()[0].rule, "JSON");
    }
}
