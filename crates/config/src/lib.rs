//! gRPC's service config: its JSON parsed, validated in full, and applied to the layers of a
//! client.
//!
//! # Why
//!
//! The service config is gRPC's format for timeouts, retries and hedging, by method. An invalid one
//! is refused as a whole, so the parser reports every mistake, not only the first. A valid field
//! without an effect is worse, so each of those is reported as well.
//!
//! # Rule
//!
//! * Each setting takes effect or is reported: [`ServiceConfig::warnings`] has each field that is
//!   unknown or not honoured, by its path; [`ServiceConfig::apply`] adds those without an effect in
//!   the client to which it is applied, and logs each warning once.
//! * One known field that is invalid refuses the whole config; unknown fields never do (gRFC A21:
//!   "unknown fields do not affect validation"). gRPC's own clients ignore them silently: grpc-go
//!   reads the config by `encoding/json` without `DisallowUnknownFields`, where the case of a key
//!   does not matter; C-core, and so grpcio, looks up the fields that it knows, in camelCase. A
//!   field that is `null` is absent.
//! * A name is of a method, of all methods of a service, or of all others (`{}`), and occurs at
//!   most once in a config. An entry without names is validated, and then skipped.
//! * Retries, hedging and throttling follow gRFC A6. An entry may have a `retryPolicy` or a
//!   `hedgingPolicy`, not both.
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
//! [`ServiceConfig::apply`] shows one applied to a client that retries.
//!
//! # What it does not do
//!
//! Of the load balancing policies it knows `pick_first`, `round_robin`, `weighted_round_robin`,
//! `least_request_experimental` and `outlier_detection_experimental`; others are skipped where one
//! of these follows, and a list without any is refused, both as in gRPC. These settings are
//! reported and not honoured: a `choiceCount` other than 2, `enableOobLoadReport`,
//! `connectionScaling`, and `perAttemptRecvTimeout`, which is not in gRFC A6 (use an
//! `AttemptTimeoutLayer`). Of a key that occurs twice in one JSON object, the last counts. A config
//! that comes from DNS in an object of gRFC A2 (`clientLanguage`, `percentage`, `serviceConfig`)
//! must be taken out of it first.

mod advice;
mod apply;
mod client;
mod error;
mod limits;
mod model;
mod nearest;
mod parse;
mod warned;
mod warning;

pub use cinchona_plumbing::ResponseBody;
pub use client::{ATTEMPT_LIMIT, Client};
pub use error::{Error, Errors};
pub use limits::{
    LimitMessages, MessageLimits, MessageLimitsLayer, MessageLimitsSettings, ResponseFuture,
};
pub use model::{
    HedgingPolicy, MethodConfig, MethodEntry, Name, Policy, RetryPolicy, RetryThrottling,
    ServiceConfig,
};
pub use warning::Warning;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
mod tests;
