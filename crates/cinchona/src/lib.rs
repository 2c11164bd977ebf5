//! The resilience stack for tonic, gRPC in Rust: a feature for each part of it.
//!
//! | feature | module | what it is for |
//! |---|---|---|
//! | `client` (default) | `client` | a whole client: every layer in its order, as one `Channel` |
//! | `server` (default) | `server` | a whole server: every layer in its order, as one layer |
//! | `deadline` (default) | `deadline` | every call ends in time, and says `DEADLINE_EXCEEDED` |
//! | `retry` (default) | `retry` | what can succeed is tried again, as gRPC defines it |
//! | `balance` (default) | `balance` | many endpoints, or one whose restart is ridden out |
//! | `breaker` | `breaker` | an endpoint that fails is left alone for a while |
//! | `cluster` | `cluster` | servers and clients that find each other, and know who is alive |
//! | `config` | `config` | gRPC's service config, put into a client that may be running |
//! | `dashboard` | `dashboard` | a live page of all this, and a console for faults |
//! | `drain` | `drain` | a server that is told to stop ends within its grace, whoever holds it up |
//! | `fallback` | `fallback` | a second answer: cached, static, or from elsewhere |
//! | `fault` | `fault` | a server's failures and delays, injected by a seed |
//! | `idempotency` | `idempotency` | effects that happen once, however often a call is sent |
//! | `observe` | `observe` | gRPC's own metrics for Prometheus, and spans that carry on a trace |
//! | `otlp` | `otlp` | these, and all other spans, sent to an OpenTelemetry collector |
//! | `redb`, `redis` | `redb`, `redis` | its stores in a file, and shared by replicas |
//! | `shed` | `shed` | what is more than a server can do is turned away at once |
//! | `full` | all of them | |
//!
//! The order of the layers, outermost first. Client: `observe`'s call, idempotency key, call
//! deadline, fallback, bulkhead, retry, `observe`'s attempt, throttle, attempt timeout, balancer
//! (breaker), channel. Server: `observe`, drain, quota, shed, deadline, fault, dedup, the service;
//! whatever authorizes callers stands outside of dedup, which answers again without asking the
//! service.
//! [`guide`] says which codes to retry, why waits need jitter, and what a retry does to effects;
//! [`guide::rest`] when gRPC, REST or a message queue is the right thing.

#[cfg(feature = "client")]
pub mod client;
pub mod guide;
#[cfg(any(feature = "client", feature = "server"))]
mod parts;
#[cfg(feature = "server")]
pub mod server;

#[cfg(feature = "client")]
pub use client::Channel;

pub use cinchona_core as core;

#[cfg(feature = "balance")]
pub use cinchona_balance as balance;
#[cfg(feature = "breaker")]
pub use cinchona_breaker as breaker;
#[cfg(feature = "cluster")]
pub use cinchona_cluster as cluster;
#[cfg(feature = "config")]
pub use cinchona_config as config;
#[cfg(feature = "dashboard")]
pub use cinchona_dashboard as dashboard;
#[cfg(feature = "deadline")]
pub use cinchona_deadline as deadline;
#[cfg(feature = "drain")]
pub use cinchona_drain as drain;
#[cfg(feature = "fallback")]
pub use cinchona_fallback as fallback;
#[cfg(feature = "fault")]
pub use cinchona_fault as fault;
#[cfg(feature = "idempotency")]
pub use cinchona_idempotency as idempotency;
#[cfg(feature = "observe")]
pub use cinchona_observe as observe;
#[cfg(feature = "otlp")]
pub use cinchona_otlp as otlp;
#[cfg(feature = "redb")]
pub use cinchona_redb as redb;
#[cfg(feature = "redis")]
pub use cinchona_redis as redis;
#[cfg(feature = "retry")]
pub use cinchona_retry as retry;
#[cfg(feature = "shed")]
pub use cinchona_shed as shed;
