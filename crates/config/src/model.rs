//! The types of a service config.

use crate::{warned::Warned, warning::Warning};
use cinchona_balance::{OutlierDetection, Picker, Utilization};
use std::time::Duration;
use tonic::Code;

/// A service config without mistakes, from [`ServiceConfig::parse`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceConfig {
    /// `methodConfig`: the entries that have a name, in their order.
    pub methods: Vec<MethodEntry>,
    /// `retryThrottling`, for all methods together. Default: no throttling.
    pub retry_throttling: Option<RetryThrottling>,
    /// `loadBalancingConfig`, or `loadBalancingPolicy`: how endpoints are picked.
    pub picker: Option<Picker>,
    /// The settings of `weighted_round_robin` for load reports (gRFC A58), with the defaults for
    /// absent ones. A `weightUpdatePeriod` below 0.1 s is raised to that.
    pub utilization: Option<Utilization>,
    /// `outlier_detection_experimental` around the picker (gRFC A50).
    pub outlier_detection: Option<OutlierDetection>,
    /// Its `panicThreshold`, in percent, 0 to 100: if less than this share of the connected
    /// endpoints is not ejected, all are used. A field of ours; gRPC's clients ignore it, which
    /// equals 0.
    pub panic_threshold: Option<u32>,
    /// `shuffleAddressList` of `pick_first` (gRFC A62).
    pub shuffle_address_list: Option<bool>,
    /// `healthCheckConfig.serviceName` (gRFC A17): the service whose health is checked.
    pub health: Option<String>,
    pub(crate) warnings: Vec<Warning>,
    pub(crate) used: Warned,
}

/// One entry of `methodConfig`.
#[derive(Clone, Debug, PartialEq)]
pub struct MethodEntry {
    /// Its index in `methodConfig`, from 0.
    pub index: usize,
    /// `name`: the methods of the entry; at least one.
    pub names: Vec<Name>,
    /// The settings.
    pub config: MethodConfig,
}

/// A method, all methods of a service, or, where both are empty, every other method.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Name {
    /// The service with its package, such as `calculator.Calculator`; "" for any.
    pub service: String,
    /// The method, such as `Add`; "" for any, and always where the service is "".
    pub method: String,
}

/// The settings of a method; absent ones are left to the client.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MethodConfig {
    /// `timeout` of a call, 0 or more; a shorter one that the caller sets takes precedence.
    pub timeout: Option<Duration>,
    /// `waitForReady`: whether a call waits for a connection; the caller's choice takes precedence.
    pub wait_for_ready: Option<bool>,
    /// `maxRequestMessageBytes`: the largest message as sent, which is after compression; may be 0.
    /// A smaller limit set by the application takes precedence.
    pub max_request_message_bytes: Option<u32>,
    /// `maxResponseMessageBytes`, likewise.
    pub max_response_message_bytes: Option<u32>,
    /// `retryPolicy` or `hedgingPolicy`.
    pub policy: Option<Policy>,
}

/// Whether, and how, a call is sent more than once.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Policy {
    /// `retryPolicy`: another attempt after a failure.
    Retry(RetryPolicy),
    /// `hedgingPolicy`: another attempt before there is an answer.
    Hedging(HedgingPolicy),
}

/// `retryPolicy` (gRFC A6).
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// The most attempts, with the first: 2 or more, as written.
    pub max_attempts: u32,
    /// The delay before the first retry; above 0.
    pub initial_backoff: Duration,
    /// The longest delay; above 0, and it may be below `initial_backoff`.
    pub max_backoff: Duration,
    /// The factor by which the delay grows with each further retry; above 0, and it may be below 1.
    pub backoff_multiplier: f64,
    /// The codes that are retried, as written; empty only where there is a
    /// `per_attempt_recv_timeout`.
    pub retryable_status_codes: Vec<Code>,
    /// `perAttemptRecvTimeout`, how long an attempt may stay silent; above 0. Not in gRFC A6:
    /// gRPC C-core knows it.
    pub per_attempt_recv_timeout: Option<Duration>,
}

/// `hedgingPolicy` (gRFC A6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HedgingPolicy {
    /// The most attempts, with the first: 2 or more, as written.
    pub max_attempts: u32,
    /// The time between two attempts. Default 0: all are sent together.
    pub hedging_delay: Duration,
    /// The codes that do not end the call, as written. Default none: every failure ends it.
    pub non_fatal_status_codes: Vec<Code>,
}

/// `retryThrottling` (gRFC A6), in thousandths of a token; finer digits are cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryThrottling {
    /// `maxTokens`, the size of the bucket in thousandths: 1 to 1 000 000.
    pub max_tokens: u32,
    /// `tokenRatio`, which a success gives back, in thousandths: 1 or more. One that does not fit
    /// is `u32::MAX`, which fills any bucket as well.
    pub token_ratio: u32,
}

// === impl ServiceConfig ===

impl ServiceConfig {
    /// The fields of the config without their usual effect in any client: unknown or not honoured,
    /// in the order of the text.
    ///
    /// ```
    /// use cinchona_config::ServiceConfig;
    ///
    /// let json = r#"{ "methodConfig": [{ "name": [{}], "timeuot": "1s" }] }"#;
    /// let expected = "methodConfig[0].timeuot: is unknown, and ignored as in gRPC; \
    ///     timeout is the field that is known";
    /// assert_eq!(ServiceConfig::parse(json)?.warnings()[0].to_string(), expected);
    /// # Ok::<_, cinchona_config::Errors>(())
    /// ```
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// The settings of the method at `path`, such as `/calculator.Calculator/Add`: the entry of the
    /// method, else of its service, else the default `{}`. Entries are not merged.
    pub fn method(&self, path: &str) -> Option<&MethodConfig> {
        let (service, method) =
            path.strip_prefix('/').and_then(|name| name.rsplit_once('/')).unwrap_or_default();
        let entry = self.named(service, method).or_else(|| self.named(service, ""));
        entry.or_else(|| self.named("", ""))
    }

    fn named(&self, service: &str, method: &str) -> Option<&MethodConfig> {
        let is_meant = |name: &Name| name.service == service && name.method == method;
        let entry = self.methods.iter().find(|entry| entry.names.iter().any(is_meant));
        entry.map(|entry| &entry.config)
    }
}
