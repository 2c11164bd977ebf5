//! gRPC's retry throttling: while a server fails more than it succeeds, nothing is retried.

mod bucket;

use crate::{Invalid, Reloadable};
use bucket::{Bucket, TOKEN};
use std::sync::Arc;

/// The retry throttling of gRFC A6, shared by clones; off until it is set.
#[derive(Clone, Debug)]
pub struct RetryThrottling(Reloadable<CallThrottling>);

/// The retry throttling of one call, fixed at its beginning; without effect if it was off.
///
/// gRFC A6 does not define what happens to calls in flight when the service config changes:
/// grpc-java's keep theirs, too, C-core's continue with the new one.
#[derive(Clone, Debug, Default)]
pub struct CallThrottling(Option<Arc<Bucket>>);

// === impl RetryThrottling ===

impl RetryThrottling {
    /// At most `max_tokens`; a failure takes one, a success gives `token_ratio`. The share of
    /// tokens left is kept, and calls that have begun keep their bucket. Without a change it is the
    /// same bucket (as in C-core).
    ///
    /// # Errors
    /// When `max_tokens` is not above 0 and at most 1000, or `token_ratio` is below 0.001.
    pub fn set(&self, max_tokens: f64, token_ratio: f64) -> Result<(), Invalid> {
        let max = (max_tokens * TOKEN as f64) as u64;
        if !(max > 0 && max_tokens <= 1000.0) {
            return Err(Invalid::new("maxTokens", max_tokens, "above 0 and at most 1000"));
        }
        // Decimals beyond the third are ignored (gRFC A6).
        let ratio = (token_ratio * TOKEN as f64 + 1e-6) as u64;
        if ratio == 0 || !token_ratio.is_finite() {
            return Err(Invalid::new("tokenRatio", token_ratio, "at least 0.001, and finite"));
        }
        let tokens = match &self.now().0 {
            Some(before) if (before.max, before.ratio) == (max, ratio) => return Ok(()),
            Some(before) => before.left() * max / before.max,
            None => max,
        };
        let bucket = Bucket::new(max, ratio, tokens);
        self.0.set(CallThrottling(Some(Arc::new(bucket))));
        Ok(())
    }

    /// Has no effect on calls that begin from now on.
    pub fn unset(&self) {
        self.0.set(CallThrottling(None));
    }

    /// For a call that begins now.
    #[inline]
    pub fn now(&self) -> CallThrottling {
        CallThrottling::clone(&self.0.get())
    }
}

impl Default for RetryThrottling {
    fn default() -> Self {
        Self(Reloadable::new(CallThrottling(None)))
    }
}

// === impl CallThrottling ===

impl CallThrottling {
    /// An attempt has failed with a retryable code, or the server forbade retries.
    #[inline]
    pub fn failed(&self) {
        if let Some(bucket) = self.0.as_deref() {
            bucket.take();
        }
    }

    /// A call has succeeded.
    #[inline]
    pub fn succeeded(&self) {
        if let Some(bucket) = self.0.as_deref() {
            bucket.give();
        }
    }

    /// Whether retries are allowed: more than half of the tokens are left.
    #[inline]
    pub fn allows(&self) -> bool {
        self.0.as_deref().is_none_or(|bucket| bucket.left() > bucket.max / 2)
    }

    /// The tokens left.
    pub fn tokens(&self) -> f64 {
        self.0.as_deref().map_or(0.0, |bucket| whole(bucket.left()))
    }

    /// The limit of tokens; `None` while it is off.
    pub fn max_tokens(&self) -> Option<f64> {
        self.0.as_deref().map(|bucket| whole(bucket.max))
    }
}

fn whole(thousandths: u64) -> f64 {
    thousandths as f64 / TOKEN as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn throttle(max: f64, ratio: f64) -> RetryThrottling {
        let throttle = RetryThrottling::default();
        throttle.set(max, ratio).unwrap();
        throttle
    }

    /// The throttle while calls are in flight.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Begin,
        Fail(usize),
        Succeed(usize),
        Set(u32, u32),
        Unset,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => Just(Step::Begin),
            4 => (0usize..20).prop_map(Step::Fail),
            3 => (0usize..20).prop_map(Step::Succeed),
            2 => (1u32..8, 1u32..4).prop_map(|(max, ratio)| Step::Set(max, ratio)),
            1 => Just(Step::Unset),
        ]
    }

    /// A bucket in tokens: at most, a success, left. None where the throttle is off.
    type Model = Option<[u64; 3]>;

    fn expected([max, _, left]: [u64; 3]) -> (Option<f64>, f64, bool) {
        (Some(whole(max)), whole(left), left > max / 2)
    }

    fn seen(call: &CallThrottling) -> (Option<f64>, f64, bool) {
        (call.max_tokens(), call.tokens(), call.allows())
    }

    proptest! {
        // catalogue: S-A12
        #[test]
        fn whatever_replaces_it_a_call_ends_by_the_throttle_it_began_with(
            steps in proptest::collection::vec(step(), 0..200),
        ) {
            let throttle = RetryThrottling::default();
            // Each bucket there has been, the last of which is set; and which of them a call has.
            let mut buckets: Vec<Model> = vec![None];
            let mut calls: Vec<(usize, CallThrottling)> = Vec::new();
            for step in steps {
                let last = buckets.len() - 1;
                match step {
                    Step::Begin => calls.push((last, throttle.now())),
                    Step::Fail(n) | Step::Succeed(n) if n < calls.len() => {
                        let (own, call) = &calls[n];
                        let is_failure = matches!(step, Step::Fail(_));
                        if is_failure { call.failed() } else { call.succeeded() }
                        if let Some([max, ratio, left]) = &mut buckets[*own] {
                            *left = if is_failure {
                                left.saturating_sub(TOKEN)
                            } else {
                                (*left + *ratio).min(*max)
                            };
                        }
                    }
                    Step::Fail(_) | Step::Succeed(_) => {}
                    Step::Set(max, ratio) => {
                        throttle.set(max.into(), ratio.into()).unwrap();
                        let [max, ratio] = [max, ratio].map(|whole| u64::from(whole) * TOKEN);
                        match buckets[last] {
                            Some([most, gain, _]) if (most, gain) == (max, ratio) => {}
                            Some([most, _, left]) => {
                                buckets.push(Some([max, ratio, left * max / most]));
                            }
                            None => buckets.push(Some([max, ratio, max])),
                        }
                    }
                    Step::Unset => {
                        throttle.unset();
                        buckets.push(None);
                    }
                }
                let off = (None, 0.0, true);
                for (own, call) in &calls {
                    prop_assert_eq!(seen(call), buckets[*own].map_or(off, expected));
                }
                let now = buckets[buckets.len() - 1];
                prop_assert_eq!(seen(&throttle.now()), now.map_or(off, expected));
            }
        }
    }

    // catalogue: CU-throttle-basic, JV-throttle
    #[test]
    fn more_than_half_of_the_tokens_allow_a_retry() {
        let throttle = throttle(4.0, 1.6).now();
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
        throttle.now().failed();
        throttle.set(10.0, 1.0).unwrap();
        assert_eq!(throttle.now().tokens(), 7.5);
        throttle.set(10.0, 1.0).unwrap();
        assert_eq!(throttle.now().tokens(), 7.5);
        assert_eq!(throttle.now().max_tokens(), Some(10.0));
        throttle.unset();
        assert!(throttle.now().allows());
        assert_eq!(throttle.now().max_tokens(), None);
        throttle.set(4.0, 1.0).unwrap();
        assert_eq!(throttle.now().tokens(), 4.0);
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
            let refused = RetryThrottling::default().set(max, ratio).unwrap_err();
            assert_eq!(refused.field(), field, "{refused}");
        }
        let throttle = throttle(10.0, 0.5466);
        (0..2).for_each(|_| throttle.now().failed());
        throttle.now().succeeded();
        assert_eq!(throttle.now().tokens(), 8.546);
        throttle.set(10.0, 1.0).unwrap();
        throttle.now().succeeded();
        assert_eq!(throttle.now().tokens(), 9.546);
    }
}
