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
mod client;
mod error;
mod limits;
mod model;
mod nearest;
mod parse;
mod told;
mod warning;

pub use cinchona_plumbing::ResponseBody;
pub use client::{ATTEMPT_LIMIT, Client};
pub use error::{Error, Errors};
pub use limits::{LimitMessages, MessageLimits, MessageLimitsLayer, ResponseFuture};
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
