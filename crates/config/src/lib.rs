//! gRPC's service config: its JSON parsed, checked in full, and put into the layers of a client.
//!
//! # Why
//!
//! The service config is how gRPC writes down timeouts, retries and hedging, by method. One that is
//! wrong is refused as a whole, so a parser should name every mistake, and not only the first. One
//! that is right and does nothing is worse: so whatever does not act is named as well.
//!
//! # Rule
//!
//! * What was configured acts, or is named: [`ServiceConfig::warnings`] has each field that is
//!   unknown or not honoured, by its path; [`ServiceConfig::apply`] adds what cannot act in the
//!   client that it is put into, and logs each warning once.
//! * One known field that is invalid refuses the whole config; unknown fields never do (gRFC A21:
//!   "unknown fields do not affect validation"). gRPC's own clients ignore them in silence: grpc-go
//!   reads the config by `encoding/json` without `DisallowUnknownFields`, where the case of a key
//!   does not matter; C-core, and so grpcio, looks up the fields that it knows, in camelCase. A
//!   field that is `null` is absent.
//! * A name is of a method, of all methods of a service, or of everything else (`{}`), and stands
//!   at most once in a config. An entry without names is checked, and then skipped.
//! * Retries, hedging and throttling are as gRFC A6 has them. An entry may have a `retryPolicy` or
//!   a `hedgingPolicy`, not both.
//! * Message sizes are enforced by a [`MessageLimitsLayer`].
//! * Values are written as in proto3 JSON: a duration is a string of seconds such as `"0.25s"`, of
//!   at most nine decimals and at most 315576000000 s; a number may stand in a string, and an
//!   integer may be written `3.0`. NaN and Infinity are no numbers. A status code is its integer,
//!   or its name in any case.
//!
//! # Example
//!
//! ```
//! use cinchona_config::{Policy, ServiceConfig};
//! use std::time::Duration;
//! use tonic::Code;
//!
//! let config = ServiceConfig::parse(r#"{ "methodConfig": [{
//!     "name": [{ "service": "calculator.Calculator" }],
//!     "timeout": "2.5s",
//!     "retryPolicy": {
//!         "maxAttempts": 4,
//!         "initialBackoff": "0.1s",
//!         "maxBackoff": "1s",
//!         "backoffMultiplier": 2,
//!         "retryableStatusCodes": ["UNAVAILABLE"],
//!         "retryAfter": "1s"
//!     }
//! }] }"#)?;
//! let add = config.method("/calculator.Calculator/Add").unwrap();
//! assert_eq!(add.timeout, Some(Duration::from_millis(2500)));
//! let Some(Policy::Retry(retry)) = &add.policy else { panic!("no retry policy") };
//! assert_eq!((retry.max_attempts, &*retry.retryable_status_codes), (4, &[Code::Unavailable][..]));
//! assert_eq!(config.warnings()[0].path, "methodConfig[0].retryPolicy.retryAfter");
//! # Ok::<_, cinchona_config::Errors>(())
//! ```
//!
//! [`ServiceConfig::apply`] has one of a client that retries.
//!
//! # What it does not do
//!
//! Of the load balancing policies it knows `pick_first`, `round_robin`, `weighted_round_robin`,
//! `least_request_experimental` and `outlier_detection_experimental`; the others are skipped where
//! one of these follows, and a list without any is refused, both as in gRPC. Each of these is named
//! where it stands, and not honoured: a `choiceCount` other than 2, `enableOobLoadReport`,
//! `connectionScaling`, and `perAttemptRecvTimeout`, which is not in
//! gRFC A6 (an `AttemptTimeoutLayer` does that). Of a key that stands twice in one JSON object, the
//! last counts. A config that comes from DNS in an object of gRFC A2 (`clientLanguage`,
//! `percentage`, `serviceConfig`) must be taken out of it first.

mod advice;
mod apply;
mod limits;
mod nearest;
mod parse;

pub use apply::{ATTEMPT_LIMIT, Client};
pub use limits::{LimitMessages, MessageLimits, MessageLimitsLayer, ResponseBody, ResponseFuture};

use apply::Told;
use cinchona_balance::{OutlierDetection, Picker, Utilization};
use std::{fmt, time::Duration};
use tonic::Code;

/// A service config without mistakes, from [`ServiceConfig::parse`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceConfig {
    /// `methodConfig`: the entries that have a name, in their order.
    pub methods: Vec<MethodEntry>,
    /// `retryThrottling`, for all methods together. Default none: nothing is throttled.
    pub retry_throttling: Option<RetryThrottling>,
    /// `loadBalancingConfig`, or `loadBalancingPolicy`: how endpoints are picked.
    pub picker: Option<Picker>,
    /// What `weighted_round_robin` says of load reports (gRFC A58), with the defaults for what it
    /// does not say. A `weightUpdatePeriod` below 0.1 s is raised to that.
    pub utilization: Option<Utilization>,
    /// `outlier_detection_experimental` around the picker (gRFC A50).
    pub outlier_detection: Option<OutlierDetection>,
    /// Its `panicThreshold`, a field of ours, which gRPC's clients ignore: if less than this share
    /// of the connected endpoints is not ejected, all are used. In percent, 0 to 100; gRPC's
    /// clients do as with 0.
    pub panic_threshold: Option<u32>,
    /// `shuffleAddressList` of `pick_first` (gRFC A62).
    pub shuffle_address_list: Option<bool>,
    /// `healthCheckConfig.serviceName` (gRFC A17): the service whose health is asked for.
    pub health: Option<String>,
    warnings: Vec<Warning>,
    told: Told,
}

/// One entry of `methodConfig`.
#[derive(Clone, Debug, PartialEq)]
pub struct MethodEntry {
    /// Which element of `methodConfig` it is, from 0.
    pub index: usize,
    /// `name`: what the entry is for; at least one.
    pub names: Vec<Name>,
    /// What it says.
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

/// The settings of a method; what is absent is left to the client.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MethodConfig {
    /// `timeout` of a call, 0 or more; a shorter one that the caller sets comes first.
    pub timeout: Option<Duration>,
    /// `waitForReady`: whether a call waits for a connection; what the caller says comes first.
    pub wait_for_ready: Option<bool>,
    /// `maxRequestMessageBytes`: how large a message may be as it is sent, so after it was
    /// compressed; may be 0. A smaller limit that the application sets comes first.
    pub max_request_message_bytes: Option<u32>,
    /// `maxResponseMessageBytes`, likewise.
    pub max_response_message_bytes: Option<u32>,
    /// `retryPolicy` or `hedgingPolicy`.
    pub policy: Option<Policy>,
}

/// Whether, and how, a call is sent more than once.
#[derive(Clone, Debug, PartialEq)]
pub enum Policy {
    /// `retryPolicy`: again after a failure.
    Retry(RetryPolicy),
    /// `hedgingPolicy`: again before there is an answer.
    Hedging(HedgingPolicy),
}

/// `retryPolicy` (gRFC A6).
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// How often a call is sent at most, with the first time: 2 or more, as written.
    pub max_attempts: u32,
    /// The delay before the first retry; above 0.
    pub initial_backoff: Duration,
    /// The longest delay; above 0, and it may be below `initial_backoff`.
    pub max_backoff: Duration,
    /// What the delay is multiplied by for each further retry; above 0, and it may be below 1.
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
    /// How often a call is sent at most, with the first time: 2 or more, as written.
    pub max_attempts: u32,
    /// The time between two attempts. Default 0: all are sent at once.
    pub hedging_delay: Duration,
    /// The codes that do not end the call, as written. Default none: every failure ends it.
    pub non_fatal_status_codes: Vec<Code>,
}

/// `retryThrottling` (gRFC A6), in thousandths of a token; what is finer is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryThrottling {
    /// `maxTokens`, the size of the bucket in thousandths: 1 to 1 000 000.
    pub max_tokens: u32,
    /// `tokenRatio`, what a success gives back in thousandths: 1 or more. One that does not fit is
    /// `u32::MAX`, which fills any bucket as well.
    pub token_ratio: u32,
}

/// Something in a service config that is valid and does not act as it says; `Display` is its path
/// and its text, on one line.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Warning {
    /// The place, such as `methodConfig[0].retryPolicy.perAttemptRecvTimeout`.
    pub path: String,
    /// What does not act, and what to do, such as `is unknown, and ignored as in gRPC; maxAttempts
    /// is the field that is known`.
    pub text: String,
}

/// Every mistake of a service config; at least one. `Display` writes one on a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors(Vec<Error>);

/// One mistake: where it is, what stands there, and what must.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The place, such as `methodConfig[0].retryPolicy.maxAttempts`; "" for the whole config.
    pub path: String,
    /// What stands there, as JSON and cut after 80 characters; `absent` where nothing does; for a
    /// text that is not JSON, its line and column.
    pub value: String,
    /// What must stand there, such as `an integer of at least 2`.
    pub rule: &'static str,
}

// === impl ServiceConfig ===

impl ServiceConfig {
    /// Reads the JSON form of a service config.
    ///
    /// # Errors
    /// Every mistake of a text that is JSON, or where it stops being so.
    pub fn parse(json: &str) -> Result<Self, Errors> {
        parse::service_config(json).map_err(Errors)
    }

    /// What is in the config and does not act as it says, whatever client it is put into: fields
    /// that are unknown or not honoured, in the order of the text.
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

    /// What the config says of the method at `path`, such as `/calculator.Calculator/Add`: the
    /// entry of the method, else of its service, else the default `{}`. Entries are not merged.
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

// === impl Warning ===

impl Warning {
    pub(crate) fn new(path: &str, text: impl Into<String>) -> Self {
        Self { path: path.to_owned(), text: text.into() }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.text)
    }
}

// === impl Errors ===

impl Errors {
    /// The mistakes, entry by entry.
    pub fn as_slice(&self) -> &[Error] {
        &self.0
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let end_of_last = if index == 0 { "" } else { "\n" };
            write!(f, "{end_of_last}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

// === impl Error ===

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, value, rule } = self;
        let place = if path.is_empty() { "service config" } else { path };
        write!(f, "{place}: must be {rule}, not {value}")
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests;
