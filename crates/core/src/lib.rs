//! The words that every cinchona policy shares.
//!
//! | word | meaning |
//! |---|---|
//! | [`Verdict`], [`Stage`] | what the outcome of an attempt means; every policy reads this alone |
//! | [`Evidence`] | what the outcome says about the server; whoever judges servers reads this |
//! | [`Call`], [`Attempt`], [`AttemptKind`] | one call, and what is known of its attempts |
//! | [`Deadline`], [`Elapsed`] | when the call must have ended, and what it says when it had not |
//! | [`Backoff`], [`Jitter`] | how long to wait before the next try |
//! | [`PerMethod`] | settings by method |
//! | [`Switch`], [`Mode`] | whether a layer acts, or only counts what it would have done |
//! | [`Target`], [`Address`], [`Discover`], [`Signals`] | where a service is, and who finds out |
//! | [`Gate`], [`Ticket`] | who decides whether a call may be sent to an endpoint |
//! | [`ServerContext`] | the call that is being served while another is made |
//! | [`Methods`], [`MethodKind`], [`Safety`] | what may be repeated, what is streamed |
//! | [`Observable`], [`Instrument`] | what a layer counts and measures |
//! | [`Rng`] | chance that can be replayed |
//! | [`Secret`] | a token, or a URL with a password: it is never empty, and never shown |
//! | [`Invalid`], [`BoxError`] | a setting outside its range; any error |
//! | [`Rejected`] | why a call was not sent |
//!
//! *Why a crate of its own:* a policy never names another policy; the words that two of them need
//! are here, and what helps several of them is in `cinchona-plumbing`.

mod attempt;
mod backoff;
mod call;
mod deadline;
mod discover;
mod error;
mod evidence;
mod gate;
mod headers;
mod inbound;
mod methods;
mod mode;
mod observable;
mod per_method;
mod rng;
mod said;
mod secret;
mod stage;
mod switch;
mod sync;
mod target;
mod verdict;

pub use attempt::{Attempt, AttemptKind};
pub use backoff::{Backoff, Jitter};
pub use call::Call;
pub use deadline::{Deadline, Elapsed};
pub use discover::{Discover, Signals};
pub use error::{BoxError, Invalid, Rejected};
pub use evidence::Evidence;
pub use gate::{Gate, Ticket};
pub use headers::{DEGRADED, DOMAIN, IDEMPOTENCY_KEY};
pub use inbound::ServerContext;
pub use methods::{MethodKind, Methods, OPTIONS_PROTO, Safety};
pub use mode::Mode;
pub use observable::{Instrument, Observable};
pub use per_method::PerMethod;
pub use rng::Rng;
pub use secret::Secret;
pub use stage::Stage;
pub use switch::Switch;
pub use target::{Address, Avoid, Target};
pub use verdict::Verdict;
