//! gRPC's retry throttle: while a server fails more than it succeeds, nothing is tried again.

use cinchona_core::Invalid;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// The token bucket of gRFC A6, in thousandths of a token; shared by clones, and without effect
/// until it is set.
#[derive(Clone, Debug, Default)]
pub(crate) struct Throttle(Arc<Bucket>);

#[derive(Debug, Default)]
struct Bucket {
    max: AtomicU64,
    ratio: AtomicU64,
    tokens: AtomicU64,
}

const TOKEN: u64 = 1000;

// === impl Throttle ===

impl Throttle {
    /// At most `max_tokens`; a failure takes one, a success gives `token_ratio`. The share of
    /// tokens that are left stays what it is.
    pub(crate) fn set(&self, max_tokens: f64, token_ratio: f64) -> Result<(), Invalid> {
        let max = (max_tokens * TOKEN as f64) as u64;
        if !(max > 0 && max_tokens <= 1000.0) {
            return Err(Invalid::new("maxTokens", max_tokens, "above 0 and at most 1000"));
        }
        // Decimals beyond the third are ignored (gRFC A6).
        let ratio = (token_ratio * TOKEN as f64 + 1e-6) as u64;
        if ratio == 0 || !token_ratio.is_finite() {
            return Err(Invalid::new("tokenRatio", token_ratio, "at least 0.001, and finite"));
        }
        let Bucket { max: most, ratio: gain, tokens } = &*self.0;
        let before = most.swap(max, Ordering::Relaxed);
        gain.store(ratio, Ordering::Relaxed);
        let rescaled = |left: u64| Some((left * max).checked_div(before).unwrap_or(max));
        _ = tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, rescaled);
        Ok(())
    }

    /// Has no effect any more.
    pub(crate) fn unset(&self) {
        self.0.max.store(0, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self) {
        self.update(|tokens, _| tokens.saturating_sub(TOKEN));
    }

    pub(crate) fn succeeded(&self) {
        let ratio = self.0.ratio.load(Ordering::Relaxed);
        self.update(|tokens, max| (tokens + ratio).min(max));
    }

    /// Whether anything may be tried again: more than half of the tokens are left.
    pub(crate) fn allows(&self) -> bool {
        let max = self.0.max.load(Ordering::Relaxed);
        max == 0 || self.0.tokens.load(Ordering::Relaxed) > max / 2
    }

    /// What is left, in tokens.
    pub(crate) fn tokens(&self) -> f64 {
        self.0.tokens.load(Ordering::Relaxed) as f64 / TOKEN as f64
    }

    /// What it has at most, in tokens; none while it has no effect.
    pub(crate) fn max_tokens(&self) -> Option<f64> {
        let max = self.0.max.load(Ordering::Relaxed);
        (max > 0).then(|| max as f64 / TOKEN as f64)
    }

    fn update(&self, to: impl Fn(u64, u64) -> u64) {
        let max = self.0.max.load(Ordering::Relaxed);
        if max > 0 {
            let tokens = &self.0.tokens;
            let to = |tokens| Some(to(tokens, max)).filter(|to| *to != tokens);
            _ = tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn throttle(max: f64, ratio: f64) -> Throttle {
        let throttle = Throttle::default();
        throttle.set(max, ratio).unwrap();
        throttle
    }

    // catalogue: CU-throttle-basic, JV-throttle
    #[test]
    fn more_than_half_of_the_tokens_allow_a_retry() {
        let throttle = throttle(4.0, 1.6);
        let mut states = Vec::new();
        for step in "FSFFFFFSSFFSFSF".chars() {
            if step == 'S' {
                throttle.succeeded()
            } else {
                throttle.failed()
            }
            states.push((throttle.tokens(), throttle.allows()));
        }
        let expected = [
            (3.0, true),
            (4.0, true),
            (3.0, true),
            (2.0, false),
            (1.0, false),
            (0.0, false),
            (0.0, false),
            (1.6, false),
            (3.2, true),
            (2.2, true),
            (1.2, false),
            (2.8, true),
            (1.8, false),
            (3.4, true),
            (2.4, true),
        ];
        assert_eq!(states, expected);
    }

    // catalogue: CU-throttle-replacement
    #[test]
    fn new_settings_keep_the_share_of_tokens_that_are_left() {
        let throttle = throttle(4.0, 1.0);
        throttle.failed();
        throttle.set(10.0, 1.0).unwrap();
        assert_eq!(throttle.tokens(), 7.5);
        throttle.set(10.0, 1.0).unwrap();
        assert_eq!(throttle.tokens(), 7.5);
        assert_eq!(throttle.max_tokens(), Some(10.0));
        throttle.unset();
        assert!(throttle.allows());
        assert_eq!(throttle.max_tokens(), None);
    }

    // catalogue: D05, X-integer-token-ratio, X-max-tokens-bounds, CU-config-throttling
    #[test]
    fn settings_out_of_range_are_refused_by_name_and_decimals_are_cut_at_the_third() {
        for (max, ratio, field) in [
            (0.0, 1.0, "maxTokens"),
            (1000.5, 1.0, "maxTokens"),
            (-1.0, 1.0, "maxTokens"),
            (f64::NAN, 1.0, "maxTokens"),
            (1.0, 0.0, "tokenRatio"),
            (1.0, 0.0009, "tokenRatio"),
            (1.0, -1.0, "tokenRatio"),
            (1.0, f64::INFINITY, "tokenRatio"),
        ] {
            let refused = Throttle::default().set(max, ratio).unwrap_err();
            assert_eq!(refused.field(), field, "{refused}");
        }
        let throttle = throttle(10.0, 0.5466);
        (0..2).for_each(|_| throttle.failed());
        throttle.succeeded();
        assert_eq!(throttle.tokens(), 8.546);
        throttle.set(10.0, 1.0).unwrap();
        throttle.succeeded();
        assert_eq!(throttle.tokens(), 9.546);
    }
}
