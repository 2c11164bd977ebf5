//! The guide: what to choose, why, and what to do when something goes wrong.
//!
//! | page | what it answers |
//! |---|---|
//! | [`start`] | which features, `build.rs`, TLS, the type of the channel, the defaults |
//! | [`order`] | in which order layers stand, and what a wrong order does |
//! | [`numbers`] | which deadlines, codes, attempts, backoffs, budgets and limits |
//! | [`settings`] | what can be set by method and by call |
//! | [`streams`] | what a deadline, a retry and a limit mean for a stream |
//! | [`idempotency`] | effects that happen once, guarantees, stores |
//! | [`endpoints`] | balancing, discovery, breakers, clusters |
//! | [`observing`] | metrics, spans, the ledger of a call, the live page |
//! | [`testing`] | tests of your own policies, and injected faults |
//! | [`operations`] | what each series means, alerts, what to do when |
//! | [`migrating`] | from a loop, tower::retry, another kit, ginepro, a mesh, grpc-go, grpc-java |
//! | [`rest`] | gRPC, REST, or a message queue |
//! | [`limits`] | what is not done, and why |
//! | [`future`] | what becomes of this when tonic is replaced |
//!
//! The same pages are a book: `mdbook serve crates/cinchona`.

#[doc = include_str!("guide/endpoints.md")]
pub mod endpoints {}

#[doc = include_str!("guide/future.md")]
pub mod future {}

#[doc = include_str!("guide/idempotency.md")]
pub mod idempotency {}

#[doc = include_str!("guide/limits.md")]
pub mod limits {}

#[doc = include_str!("guide/migrating.md")]
pub mod migrating {}

#[doc = include_str!("guide/numbers.md")]
pub mod numbers {}

#[doc = include_str!("guide/observing.md")]
pub mod observing {}

#[doc = include_str!("guide/operations.md")]
pub mod operations {}

#[doc = include_str!("guide/order.md")]
pub mod order {}

#[doc = include_str!("guide/rest.md")]
pub mod rest {}

#[doc = include_str!("guide/settings.md")]
pub mod settings {}

#[doc = include_str!("guide/start.md")]
pub mod start {}

#[doc = include_str!("guide/streams.md")]
pub mod streams {}

#[doc = include_str!("guide/testing.md")]
pub mod testing {}
