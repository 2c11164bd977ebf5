//! From a config to the layers of a client.

use crate::{HedgingPolicy, MethodConfig, MethodEntry, Policy, RetryPolicy, ServiceConfig};
use cinchona_balance::Options;
use cinchona_core::{Backoff, Invalid, Jitter, PerMethod};
use cinchona_deadline::CallDeadlineLayer;
use cinchona_retry::{HedgePolicy, RetryLayer};

/// The most attempts that a client makes, whatever its service config says (gRFC A6).
pub const ATTEMPT_LIMIT: u32 = 5;

// === impl ServiceConfig ===

impl ServiceConfig {
    /// Puts the config into the layers of a client, which may be running: calls that have begun
    /// end by what they began with. `maxAttempts` above 5 is cut to 5.
    ///
    /// ```
    /// use cinchona_config::ServiceConfig;
    /// use cinchona_core::Methods;
    /// use cinchona_deadline::CallDeadlineLayer;
    /// use cinchona_retry::{RetryLayer, RetryPolicy};
    ///
    /// let json = r#"{ "retryThrottling": { "maxTokens": 10, "tokenRatio": 1 } }"#;
    /// let config = ServiceConfig::parse(json)?;
    /// let retry = RetryLayer::new(RetryPolicy::default(), Methods::unknown());
    /// config.apply(&CallDeadlineLayer::new(), &retry)?;
    /// assert_eq!(retry.throttle_tokens(), 10.0);
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// When a method is to be hedged that may not be executed twice. Nothing is changed then.
    pub fn apply(&self, deadline: &CallDeadlineLayer, retry: &RetryLayer) -> Result<(), Invalid> {
        self.apply_limited(deadline, retry, ATTEMPT_LIMIT)
    }

    /// As [`apply`](Self::apply), with another limit for `maxAttempts`; less than 2 means 5.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn apply_limited(
        &self,
        deadline: &CallDeadlineLayer,
        retry: &RetryLayer,
        limit: u32,
    ) -> Result<(), Invalid> {
        let limit = if limit < 2 { ATTEMPT_LIMIT } else { limit };
        let (mut policies, mut timeouts) = (PerMethod::new(), PerMethod::new());
        for MethodEntry { names, config } in &self.methods {
            for name in names {
                policies.insert(&name.service, &name.method, policy(config, limit)?)?;
                timeouts.insert(&name.service, &name.method, config.timeout)?;
            }
        }
        let tokens = |thousandths: u32| f64::from(thousandths) / 1000.0;
        let throttling = self.retry_throttling;
        let throttling = throttling.map(|t| (tokens(t.max_tokens), tokens(t.token_ratio)));
        retry.set_policies(policies)?;
        retry.set_throttle(throttling)?;
        deadline.set_timeouts(timeouts);
        Ok(())
    }

    /// `options`, and in them what the config says of load balancing, outlier detection and health
    /// checks.
    ///
    /// ```
    /// use cinchona_balance::{Options, Picker};
    /// use cinchona_config::ServiceConfig;
    ///
    /// let config = ServiceConfig::parse(r#"{ "loadBalancingConfig": [{ "round_robin": {} }] }"#)?;
    /// assert_eq!(config.balance(Options::default()).picker, Picker::RoundRobin);
    /// # Ok::<_, cinchona_config::Errors>(())
    /// ```
    pub fn balance(&self, options: Options) -> Options {
        Options {
            picker: self.picker.unwrap_or(options.picker),
            utilization: self.utilization.unwrap_or(options.utilization),
            outlier: self.outlier_detection.clone().unwrap_or(options.outlier),
            health: self.health.clone().or(options.health),
            ..options
        }
    }
}

fn policy(config: &MethodConfig, limit: u32) -> Result<cinchona_retry::Policy, Invalid> {
    let policy = match &config.policy {
        None => cinchona_retry::Policy::default(),
        Some(Policy::Retry(retry)) => self::retry(retry, limit)?.into(),
        Some(Policy::Hedging(hedging)) => hedge(hedging, limit).into(),
    };
    Ok(policy.with_wait_for_ready(config.wait_for_ready.unwrap_or(false)))
}

fn retry(retry: &RetryPolicy, limit: u32) -> Result<cinchona_retry::RetryPolicy, Invalid> {
    let RetryPolicy { initial_backoff, max_backoff, backoff_multiplier, .. } = *retry;
    let backoff = Backoff::new(initial_backoff, backoff_multiplier, max_backoff)?;
    let policy = cinchona_retry::RetryPolicy::default()
        .with_max_retries(retry.max_attempts.min(limit) - 1)
        .with_backoff(backoff.with_jitter(Jitter::Grpc))
        // Whoever writes a service config may name any code.
        .with_forced_codes(retry.retryable_status_codes.iter().copied());
    Ok(policy)
}

fn hedge(hedging: &HedgingPolicy, limit: u32) -> HedgePolicy {
    HedgePolicy::default()
        .with_max_attempts(hedging.max_attempts.min(limit))
        .with_delay(hedging.hedging_delay)
        .with_non_fatal_codes(hedging.non_fatal_status_codes.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cinchona_core::Methods;
    use cinchona_retry::{Budget, Ledger};
    use std::time::Duration;
    use tokio::time::Instant;
    use tonic::{Status, body::Body};
    use tower::{ServiceBuilder, ServiceExt, service_fn};

    fn retries(attempts: u32) -> ServiceConfig {
        let json = format!(
            r#"{{ "methodConfig": [{{ "name": [{{}}], "timeout": "3s", "retryPolicy": {{
                "maxAttempts": {attempts}, "initialBackoff": "0.001s", "maxBackoff": "0.001s",
                "backoffMultiplier": 1, "retryableStatusCodes": [14] }} }}] }}"#
        );
        ServiceConfig::parse(&json).unwrap()
    }

    fn layers() -> (CallDeadlineLayer, RetryLayer) {
        let retry = RetryLayer::new(Default::default(), Methods::all_idempotent());
        (CallDeadlineLayer::new(), retry.with_budget(Budget::new(0.0, 1000).ok()))
    }

    async fn attempts((deadline, retry): &(CallDeadlineLayer, RetryLayer)) -> usize {
        let down = service_fn(|_: http::Request<Body>| async {
            Ok::<_, Status>(Status::unavailable("down").into_http::<Body>())
        });
        let stack = ServiceBuilder::new().layer(deadline.clone()).layer(retry.clone());
        let call = stack.service(down).oneshot(http::Request::new(Body::empty()));
        let status = Status::from_error(call.await.err().unwrap());
        Ledger::of(&status).unwrap().attempts().len()
    }

    // catalogue: GO18, JS-retry-limit, JS-hedging-limit
    // catalogue: DN-AttemptsGreaterThanDefaultClientLimit
    #[tokio::test(start_paused = true)]
    async fn attempts_above_the_limit_of_the_client_are_cut_to_it() {
        let layers = layers();
        for (written, limit, expected) in [(9, 4, 4), (9, 7, 7), (3, 10, 3), (8, 0, 5), (3, 1, 3)] {
            retries(written).apply_limited(&layers.0, &layers.1, limit).unwrap();
            assert_eq!(attempts(&layers).await, expected, "{written}, {limit}");
        }
        retries(10).apply(&layers.0, &layers.1).unwrap();
        assert_eq!(attempts(&layers).await, 5);
    }

    // catalogue: X-hot-swap
    #[tokio::test(start_paused = true)]
    async fn a_running_client_takes_a_new_config() {
        let layers = layers();
        retries(2).apply(&layers.0, &layers.1).unwrap();
        let client = layers.clone();
        assert_eq!(attempts(&client).await, 2);
        retries(4).apply(&layers.0, &layers.1).unwrap();
        assert_eq!(attempts(&client).await, 4);
    }

    // catalogue: D03, GO28, JS-deadline-config-timeout
    #[tokio::test(start_paused = true)]
    async fn the_timeout_of_a_method_ends_its_calls_on_time() {
        let (deadline, retry) = layers();
        retries(2).apply(&deadline, &retry).unwrap();
        let hanging = service_fn(|request: http::Request<Body>| async move {
            assert_eq!(request.headers()["grpc-timeout"], "3000000u");
            std::future::pending::<Result<http::Response<Body>, Status>>().await
        });
        let began = Instant::now();
        let stack = ServiceBuilder::new().layer(deadline).layer(retry).service(hanging);
        let error = stack.oneshot(http::Request::new(Body::empty())).await.err().unwrap();
        assert_eq!(Status::from_error(error).code(), tonic::Code::DeadlineExceeded);
        assert_eq!(Instant::now() - began, Duration::from_secs(3));
    }

    // catalogue: X-hedge-needs-safety
    #[test]
    fn hedging_a_method_with_effects_is_refused_by_name_and_changes_nothing() {
        let json = r#"{ "methodConfig": [{
            "name": [{ "service": "bank.Bank", "method": "Withdraw" }],
            "hedgingPolicy": { "maxAttempts": 2 } }],
            "retryThrottling": { "maxTokens": 10, "tokenRatio": 1 } }"#;
        let config = ServiceConfig::parse(json).unwrap();
        let retry = RetryLayer::new(Default::default(), Methods::unknown());
        let refused = config.apply(&CallDeadlineLayer::new(), &retry).unwrap_err();
        assert!(refused.to_string().contains("/bank.Bank/Withdraw"), "{refused}");
        assert_eq!(retry.throttle_tokens(), 0.0);
        let careful = RetryLayer::new(Default::default(), Methods::all_idempotent());
        config.apply(&CallDeadlineLayer::new(), &careful).unwrap();
    }
}
