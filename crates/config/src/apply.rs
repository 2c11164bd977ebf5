//! From a config to the layers of a client.

use crate::{
    Client, HedgingPolicy, MessageLimits, MethodConfig, MethodEntry, Name, Policy, RetryPolicy,
    RetryThrottling, ServiceConfig, Warning, advice,
};
use cinchona_balance::Options;
use cinchona_core::{Invalid, PerMethod};
use cinchona_deadline::CallDeadlineLayer;
use cinchona_plumbing::{Backoff, Jitter};
use cinchona_retry::{HedgePolicy, RetryLayer};

// === impl ServiceConfig ===

impl ServiceConfig {
    /// Applies the config to the layers of a client, which may be running: calls that have begun
    /// keep their settings. As in gRPC, a method without a policy in the config is not retried from
    /// then on, and `maxAttempts` above 5 is cut to 5.
    ///
    /// Returns the settings that have no effect in this client: [`warnings`](Self::warnings), and
    /// in addition
    ///
    /// * `maxRequestMessageBytes` and `maxResponseMessageBytes`, which need
    ///   [`apply_to`](Self::apply_to) and a [`MessageLimitsLayer`](crate::MessageLimitsLayer);
    /// * names that are in no descriptor of the layer's `Methods`;
    /// * policies for methods that may not be executed twice, as far as `Methods` knows: there a
    ///   failure is not retried if the request may have been executed;
    /// * load balancing and health checks, unless [`balance`](Self::balance) was called before.
    ///
    /// Each is logged once at `warn` when a parsed config is first applied; applying it again logs
    /// only new ones.
    ///
    /// *Which methods may be executed twice* is known from the `option idempotency_level` of the
    /// .proto (`Methods::from_file_descriptor_set`), or from your declaration that all may
    /// (`Methods::all_idempotent`), which configs for grpc-go or grpc-java assume. With
    /// `Methods::unknown` only requests that provably were not processed are retried, whatever the
    /// config lists.
    ///
    /// ```
    /// use cinchona_config::ServiceConfig;
    /// use cinchona_core::Methods;
    /// use cinchona_deadline::CallDeadlineLayer;
    /// use cinchona_retry::{Ledger, RetryLayer, RetryPolicy};
    /// use tonic::{Status, body::Body};
    /// use tower::{ServiceBuilder, ServiceExt, service_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
    /// let config = ServiceConfig::parse(r#"{ "methodConfig": [{
    ///     "name": [{ "service": "calculator.Calculator" }],
    ///     "timeout": "10s",
    ///     "retryPolicy": {
    ///         "maxAttempts": 4, "initialBackoff": "0.1s", "maxBackoff": "1s",
    ///         "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]
    ///     }
    /// }] }"#).unwrap();
    /// // Every method of this server may be executed twice.
    /// let retry = RetryLayer::new(RetryPolicy::default(), Methods::all_idempotent());
    /// let deadline = CallDeadlineLayer::new();
    /// assert_eq!(config.apply(&deadline, &retry).unwrap(), [], "all of it acts");
    ///
    /// let down = service_fn(|_: http::Request<Body>| async {
    ///     Ok::<_, Status>(Status::unavailable("draining").into_http::<Body>())
    /// });
    /// let client = ServiceBuilder::new().layer(deadline).layer(retry).service(down);
    /// let add = http::Request::post("/calculator.Calculator/Add").body(Body::empty()).unwrap();
    /// let failed = Status::from_error(client.oneshot(add).await.err().unwrap());
    /// assert_eq!(Ledger::of(&failed).unwrap().attempts().len(), 4);
    /// # }
    /// ```
    ///
    /// # Errors
    /// When the config hedges a method that may not be executed twice, or a field changed in code
    /// is outside its range. Nothing is changed then.
    pub fn apply(
        &self,
        deadline: &CallDeadlineLayer,
        retry: &RetryLayer,
    ) -> Result<Vec<Warning>, Invalid> {
        self.apply_to(Client::new(deadline, retry))
    }

    /// As [`apply`](Self::apply), for a client that has more layers or another limit.
    ///
    /// ```
    /// use cinchona_config::{Client, MessageLimitsLayer, ServiceConfig};
    /// use cinchona_core::Methods;
    /// use cinchona_deadline::CallDeadlineLayer;
    /// use cinchona_retry::{RetryLayer, RetryPolicy};
    ///
    /// let json = r#"{ "methodConfig": [{ "name": [{}], "maxResponseMessageBytes": 1000000 }] }"#;
    /// let config = ServiceConfig::parse(json).unwrap();
    /// let retry = RetryLayer::new(RetryPolicy::default(), Methods::all_idempotent());
    /// let (deadline, limits) = (CallDeadlineLayer::new(), MessageLimitsLayer::new());
    /// let client = Client::new(&deadline, &retry);
    /// let warnings = config.apply_to(client)?;
    /// assert_eq!(warnings[0].path, "methodConfig[0].maxResponseMessageBytes");
    /// assert_eq!(config.apply_to(client.with_limits(&limits))?, []);
    /// # Ok::<_, cinchona_core::Invalid>(())
    /// ```
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn apply_to(&self, client: Client<'_>) -> Result<Vec<Warning>, Invalid> {
        let (mut policies, mut timeouts) = (PerMethod::new(), PerMethod::new());
        let mut limits = PerMethod::new();
        for MethodEntry { names, config, .. } in &self.methods {
            let sizes = message_limits(config);
            // A name with a slash matches no method; a warning reports it.
            for name in names.iter().filter(|name| !is_path(name)) {
                policies.insert(&name.service, &name.method, policy(config, client.attempts)?)?;
                timeouts.insert(&name.service, &name.method, config.timeout)?;
                limits.insert(&name.service, &name.method, sizes)?;
            }
        }
        let throttling = self.retry_throttling.map(throttle).transpose()?;
        client.retry.set_policies(policies)?;
        client.retry.set_throttle(throttling)?;
        client.deadline.set_timeouts(timeouts);
        if let Some(layer) = client.limits {
            layer.set_limits(limits);
        }
        let mut warnings = self.warnings.clone();
        warnings.extend(advice::of(self, client));
        self.used.log(&warnings);
        Ok(warnings)
    }

    /// `options` with the config's settings of load balancing, outlier detection and health checks.
    ///
    /// For a balancer that is about to be built: a running one keeps its options, whatever config
    /// is applied later.
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
        self.used.balanced();
        Options {
            picker: self.picker.unwrap_or(options.picker),
            utilization: self.utilization.unwrap_or(options.utilization),
            outlier: self.outlier_detection.clone().unwrap_or(options.outlier),
            health: self.health.clone().or(options.health),
            panic_threshold: self.panic_threshold.unwrap_or(options.panic_threshold),
            shuffle_address_list: self.shuffle_address_list.unwrap_or(options.shuffle_address_list),
            ..options
        }
    }
}

fn is_path(name: &Name) -> bool {
    name.service.contains('/') || name.method.contains('/')
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
        .with_max_retries(retry.max_attempts.min(limit).saturating_sub(1))
        .with_backoff(backoff.with_jitter(Jitter::Grpc))
        // The author of a service config may name any code.
        .with_forced_codes(retry.retryable_status_codes.iter().copied());
    Ok(policy)
}

fn hedge(hedging: &HedgingPolicy, limit: u32) -> HedgePolicy {
    HedgePolicy::default()
        .with_max_attempts(hedging.max_attempts.min(limit))
        .with_delay(hedging.hedging_delay)
        .with_non_fatal_codes(hedging.non_fatal_status_codes.iter().copied())
}

const fn message_limits(config: &MethodConfig) -> MessageLimits {
    MessageLimits {
        max_request_bytes: config.max_request_message_bytes,
        max_response_bytes: config.max_response_message_bytes,
    }
}

/// In tokens. Refused here, before anything is changed, if the layer would refuse it.
fn throttle(throttling: RetryThrottling) -> Result<(f64, f64), Invalid> {
    let RetryThrottling { max_tokens, token_ratio } = throttling;
    if !(1..=1_000_000).contains(&max_tokens) {
        return Err(Invalid::new("retryThrottling.maxTokens", max_tokens, "1 to 1000000"));
    }
    if token_ratio == 0 {
        return Err(Invalid::new("retryThrottling.tokenRatio", token_ratio, "at least 1"));
    }
    Ok((f64::from(max_tokens) / 1000.0, f64::from(token_ratio) / 1000.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cinchona_core::Methods;
    use cinchona_retry::{Budget, Ledger, RetrySettings};
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
        let retry = RetrySettings::new(Default::default(), Methods::all_idempotent());
        (CallDeadlineLayer::new(), retry.with_budget(Budget::new(0.0, 1000).ok()).layer())
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
            let client = Client::new(&layers.0, &layers.1).with_attempt_limit(limit);
            retries(written).apply_to(client).unwrap();
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

    // catalogue: S-A12
    #[tokio::test(start_paused = true)]
    async fn a_call_that_runs_keeps_the_timeout_that_it_began_with() {
        let limited = |timeout: &str| {
            let json =
                format!(r#"{{ "methodConfig": [{{ "name": [{{}}], "timeout": "{timeout}" }}] }}"#);
            ServiceConfig::parse(&json).unwrap()
        };
        for (before, after) in [("3s", "1s"), ("3s", "100s")] {
            let (deadline, retry) = layers();
            limited(before).apply(&deadline, &retry).unwrap();
            let hanging = service_fn(|_: http::Request<Body>| {
                std::future::pending::<Result<http::Response<Body>, Status>>()
            });
            let stack = ServiceBuilder::new().layer(deadline.clone()).layer(retry.clone());
            let began = Instant::now();
            let running = stack.service(hanging).oneshot(http::Request::new(Body::empty()));
            let replacing = async {
                tokio::time::sleep(Duration::from_secs(2)).await;
                limited(after).apply(&deadline, &retry).unwrap();
            };
            let (outcome, ()) = tokio::join!(running, replacing);
            assert!(outcome.is_err());
            assert_eq!(Instant::now() - began, Duration::from_secs(3), "{after}");
        }
    }

    #[test]
    fn a_policy_that_was_changed_in_code_is_cut_and_never_overflows() {
        let (deadline, retry) = layers();
        for attempts in [0, 1, u32::MAX] {
            let mut config = retries(2);
            let Some(Policy::Retry(policy)) = &mut config.methods[0].config.policy else {
                panic!("it retries");
            };
            policy.max_attempts = attempts;
            policy.max_backoff = Duration::MAX;
            config.apply(&deadline, &retry).unwrap();
        }
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
        assert_eq!(retry.counters().throttle_tokens, 0.0);
        let careful = RetryLayer::new(Default::default(), Methods::all_idempotent());
        config.apply(&CallDeadlineLayer::new(), &careful).unwrap();
    }
}
