//! The vocabulary that every cinchona policy shares.
//!
//! | word | meaning |
//! |---|---|
//! | [`Verdict`], [`Stage`] | what the outcome of an attempt means; every policy reads this alone |
//! | [`Evidence`] | what the outcome implies about the server; breakers and balancers read this |
//! | [`Call`], [`Attempt`], [`AttemptKind`] | the record of one call and of its attempts |
//! | [`Deadline`] | when the call must have ended |
//! | [`PerMethod`] | settings by method |
//! | [`Switch`], [`Mode`] | whether a layer acts, or only counts what it would have done |
//! | [`Target`], [`Address`], [`Discover`] | the addresses of a service, and their sources |
//! | [`Gate`] | admits calls to an endpoint |
//! | [`ServerContext`] | the call that is being served while another is made |
//! | [`Methods`], [`MethodKind`], [`Safety`] | which methods may be repeated, and what they stream
//!   |
//! | [`Observable`], [`Instrument`] | the metrics of a layer |
//! | [`Rng`] | reproducible randomness |
//! | [`Secret`] | a token, or a URL with a password: it is never empty, and never shown |
//! | [`Invalid`], [`BoxError`] | a setting outside its range; any error |
//! | [`Rejected`] | why a call was not sent |
//!
//! *Why a separate crate:* a policy never names another policy; types that two of them need are
//! here, and helpers that several need are in `cinchona-plumbing`.

mod attempt;
mod call;
mod deadline;
mod discover;
mod error;
mod evidence;
mod gate;
mod headers;

mod methods;
mod observable;
mod per_method;
mod said;
mod secret;
mod server_context;
mod switch;
mod sync;
mod target;
mod verdict;

pub use attempt::Attempt;
pub use call::Call;
#[doc(inline)]
pub use cinchona_policy::{Invalid, Rng, Safety, Stage, retry::AttemptKind};
pub use deadline::Deadline;
pub use discover::Discover;
pub use error::{BoxError, Rejected};
pub use evidence::Evidence;
pub use gate::Gate;
pub use headers::{DEGRADED, DOMAIN, IDEMPOTENCY_KEY};
pub use methods::{MethodKind, Methods, OPTIONS_PROTO};
pub use observable::{Instrument, Observable};
pub use per_method::PerMethod;
pub use secret::Secret;
pub use server_context::ServerContext;
pub use switch::{Mode, Switch};
pub use target::{Address, Target};
pub use verdict::Verdict;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
