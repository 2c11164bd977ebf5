//! Whatever the text: no panic, and what is valid is in range.
#![no_main]

use cinchona_config::{Policy, ServiceConfig};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(config) = ServiceConfig::parse(text) else { return };
    for entry in &config.methods {
        assert!(!entry.names.is_empty());
        match &entry.config.policy {
            Some(Policy::Retry(retry)) => {
                assert!(retry.max_attempts >= 2 && retry.backoff_multiplier > 0.0);
                assert!(!retry.initial_backoff.is_zero() && !retry.max_backoff.is_zero());
            }
            Some(Policy::Hedging(hedging)) => assert!(hedging.max_attempts >= 2),
            _ => {}
        }
        for name in &entry.names {
            let path = format!("/{}/{}", name.service, name.method);
            assert!(config.method(&path).is_some());
        }
    }
    if let Some(throttling) = config.retry_throttling {
        assert!((1..=1_000_000).contains(&throttling.max_tokens) && throttling.token_ratio > 0);
    }
});
