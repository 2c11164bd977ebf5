//! The resilience stack for tonic, gRPC in Rust: a client, a server, and each layer alone.
//!
//! ```
//! use cinchona::{Channel, client::Settings, core::{Invalid, Methods}};
//! use std::time::Duration;
//!
//! /// `OrdersClient::new(channel)` is then the client that tonic generated.
//! fn connect(descriptors: &[u8]) -> Result<Channel, Invalid> {
//!     Settings::new(Methods::from_file_descriptor_set(descriptors)?)
//!         .with_deadline(Duration::from_secs(10))
//!         .connect("http://orders.internal:50051")
//! }
//! ```
//!
//! [`client`] and [`server`] put all layers in order; [`guide`] explains which numbers to choose,
//! what each metric means, how to test, and how to migrate from another library.
//!
//! # Features
//!
//! | feature | module | what it does |
//! |---|---|---|
//! | `client` (default) | `client` | a whole client, as one `Channel` |
//! | `server` (default) | `server` | a whole server, as one layer |
//! | `balance` (in `client`) | `balance` | endpoints: discovery, connections, picks, ejection |
//! | `breaker` (in `client`) | `breaker` | a circuit breaker for each endpoint or method |
//! | `cluster` | `cluster` | membership by gossip, failure detection, a guard for writes |
//! | `config` (in `client`) | `config` | gRPC's service config |
//! | `dashboard` | `dashboard` | a live page, and a console for faults |
//! | `deadline` (in both) | `deadline` | deadlines of calls, attempts and served calls |
//! | `drain` (in `server`) | `drain` | a server that stops within its grace |
//! | `fallback` (in `client`) | `fallback` | a second answer: cached, a default, another service's
//!   |
//! | `fault` (in `server`) | `fault` | injected failures and delays, by a seed |
//! | `idempotency` (in both) | `idempotency` | effects that happen once, however often a call is
//!   sent |
//! | `observe` (in both) | `observe` | gRPC's metrics, and spans with trace context |
//! | `otlp` | `otlp` | metrics and spans to an OpenTelemetry collector |
//! | `redb`, `redis` | `redb`, `redis` | records of calls in a file, or shared by replicas |
//! | `redis-cluster`, `redis-sentinel`, `redis-tls` | `redis` | how Redis is reached |
//! | `retry` (in `client`) | `retry` | retries and hedging by gRFC A6, with a budget |
//! | `shed` (in both) | `shed` | load shedding, quotas, bulkheads, throttling |
//! | `full` | all | |
//!
//! `core` is always there: the vocabulary that the layers share.
//!
//! # Decisions without a host
//!
//! What the layers decide (retries, hedges and their budget, breakers, outliers, picks, limits,
//! dedup, suspicion) is plain data and functions in `cinchona-policy`, which depends on neither
//! tonic, tower, hyper nor h2. The layers adapt it to tonic; another host can have its own.

#[cfg(feature = "client")]
pub mod client;
// Its examples need every feature.
#[cfg(any(not(doctest), feature = "full"))]
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
