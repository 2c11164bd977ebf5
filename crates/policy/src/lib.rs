//! What cinchona decides, without a host: plain data, and functions of it.
//!
//! Whether to retry, when a breaker opens, which endpoint is an outlier: each of these decisions is
//! a module here, and knows neither tonic nor tower, nor HTTP. It is told the time and what has
//! happened, and returns what to do; who does it, and who waits, is a crate of its own:
//! `cinchona-retry`, `cinchona-breaker` and so on, which export again what their users set. Another
//! host than tonic needs other such crates, and these decisions.
//!
//! **Only what one of those crates exports again is a promise.** They depend on its exact version,
//! and any release may change or remove the rest.
//!
//! | decision | what is decided |
//! |---|---|
//! | [`breaker`] | when a circuit opens, what it admits, what closes it |
//! | [`client_throttle`] | whether a client fails calls itself, while its server refuses them |
//! | [`cluster`] | who belongs to a cluster, who is gone, and which side may accept writes |
//! | [`concurrency`] | how many calls a server takes, which wait, and which are refused |
//! | [`connect`] | when an endpoint is connected to, and which of a list |
//! | [`dedup`] | whether a call with a key is executed, replayed or refused |
//! | [`load`] | what one more call of an endpoint costs |
//! | [`outlier`] | which endpoints are ejected, and when they are readmitted |
//! | [`pick`] | which endpoint gets a call |
//! | [`retry`] | whether a call gets another attempt, and when: retries, hedges, budget, throttle |
//! | [`utilization`] | the weights of endpoints that report their load |
//!
//! | word | meaning |
//! |---|---|
//! | [`Code`] | gRPC's 17 status codes, by their numbers |
//! | [`Verdict`], [`Stage`] | what the outcome of an attempt means |
//! | [`Evidence`] | what it implies about the server |
//! | [`Safety`] | whether a method may be executed twice |
//! | [`Rng`] | reproducible randomness |
//! | [`Backoff`], [`Jitter`] | the wait before the next attempt |
//! | [`Latency`] | a quantile of latencies |
//! | [`Reloadable`] | settings that are replaced while calls run |
//! | [`Invalid`] | a setting outside its range |
//! | [`shard`] | a number for each thread; values whose references are counted by thread |
//! | [`clock`] | saturating arithmetic: `Duration::MAX` means without limit |
//!
//! # Example
//!
//! A host of one line: its calls are results of a code.
//!
//! ```
//! use cinchona_policy::{Code, Rng, Safety, Verdict, retry::*};
//! use std::time::Duration;
//! use tokio::time::Instant;
//!
//! let policy = RetryPolicy::default().with_codes([Code::Unavailable])?;
//! let (throttle, now) = (CallThrottling::default(), Instant::now());
//! let budget = SharedBudget::new(Some(Budget::default()), now);
//! let limits = Limits { throttle: &throttle, budget: &budget, method: "/orders.Orders/Get" };
//! let mut call = Progress::new(Safety::Idempotent, Some(now + Duration::from_secs(10)));
//! let mut next = |code| {
//!     let verdict = Verdict::of_code(code);
//!     let ended = Ended { verdict, pushback: None, can_repeat: true, now };
//!     policy.decide(ended, &mut call, limits, &mut Rng::seeded(1).draw())
//! };
//! // 1 s, and up to 1 s of jitter.
//! let wait = next(Code::Unavailable);
//! assert!(matches!(wait, Decision::RetryAfter(wait) if wait >= Duration::from_secs(1)));
//! assert_eq!(next(Code::NotFound), Decision::Stop(Stop::NotRetryable));
//! assert_eq!(next(Code::Ok), Decision::Stop(Stop::Succeeded));
//! # Ok::<_, cinchona_policy::Invalid>(())
//! ```
//!
//! *Rule:* it names no other crate of cinchona, and no decision names another.

mod backoff;
pub mod breaker;
pub mod client_throttle;
pub mod clock;
pub mod cluster;
mod code;
pub mod concurrency;
pub mod connect;
pub mod dedup;
mod invalid;
mod latency;
pub mod load;
pub mod outlier;
pub mod pick;
mod reloadable;
pub mod retry;
mod rng;
mod safety;
pub mod shard;
mod stage;
mod sync;
pub mod utilization;
mod verdict;

pub use backoff::{Backoff, Jitter};
pub use code::Code;
pub use invalid::Invalid;
pub use latency::Latency;
pub use reloadable::Reloadable;
pub use rng::Rng;
pub use safety::Safety;
pub use stage::Stage;
pub use verdict::{Evidence, Verdict};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
