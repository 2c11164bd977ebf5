//! Whatever the text: what is valid is in range, and each name finds the entry that has it.
#![no_main]

use cinchona_config::{Policy, ServiceConfig};
use libfuzzer_sys::fuzz_target;
use std::collections::HashSet;

fuzz_target!(|text: &str| {
    let Ok(config) = ServiceConfig::parse(text) else { return };
    let mut seen = HashSet::new();
    for entry in &config.methods {
        assert!(!entry.names.is_empty());
        match &entry.config.policy {
            Some(Policy::Retry(retry)) => {
                assert!(retry.max_attempts >= 2);
                assert!(retry.backoff_multiplier > 0.0 && retry.backoff_multiplier.is_finite());
                assert!(!retry.initial_backoff.is_zero() && !retry.max_backoff.is_zero());
                let silent = retry.per_attempt_recv_timeout;
                assert!(silent.is_none_or(|silent| !silent.is_zero()));
                assert!(!retry.retryable_status_codes.is_empty() || silent.is_some());
            }
            Some(Policy::Hedging(hedging)) => assert!(hedging.max_attempts >= 2),
            _ => {}
        }
        for name in &entry.names {
            assert!(!name.service.is_empty() || name.method.is_empty());
            assert!(seen.insert((&name.service, &name.method)), "no name is given twice");
            // A method that no other entry names.
            let method = if name.method.is_empty() { "\u{0}" } else { &name.method };
            if !name.service.is_empty() && !name.method.contains('/') {
                let path = format!("/{}/{method}", name.service);
                assert!(std::ptr::eq(config.method(&path).expect("it is named"), &entry.config));
            }
        }
    }
    if let Some(throttling) = config.retry_throttling {
        assert!((1..=1_000_000).contains(&throttling.max_tokens) && throttling.token_ratio > 0);
    }
});
