//! The words that every cinchona policy shares.
//!
//! | word | meaning |
//! |---|---|
//! | [`Verdict`] | what the outcome of an attempt means; every policy reads this and nothing else |
//! | [`Evidence`] | what the outcome says about the server; whoever judges servers reads this |
//! | [`Call`], [`Attempt`], [`AttemptKind`] | one call, and what is known of each attempt at it |
//! | [`Deadline`], [`Elapsed`] | when the call must have ended, and what it says when it had not |
//! | [`Replay`], [`ReplayBuffer`] | a request that can be sent again, as long as it is kept |
//! | [`Backoff`], [`Jitter`] | how long to wait before the next try |
//! | [`clock`] | arithmetic that saturates: `Duration::MAX` means for ever |
//! | [`PerMethod`], [`Live`] | settings by method, and replaced while calls run |
//! | [`Switch`], [`Mode`] | whether a layer acts, or only counts what it would have done |
//! | [`Latency`] | how long answers take |
//! | [`Target`], [`Address`], [`Discover`], [`Signals`] | where a service is, and who finds out |
//! | [`Gate`], [`Ticket`] | who decides whether a call may be sent to an endpoint |
//! | [`Inbound`] | the call that is being served while another is made |
//! | [`Methods`], [`MethodKind`] | from the .proto: what may be executed twice, what is streamed |
//! | [`Observable`], [`Instrument`] | what a layer counts and measures, for whoever shows it |
//! | [`Rng`] | chance that can be replayed |
//! | [`Secret`] | a token, or a URL with a password: it is never empty, and never shown |
//! | [`Trust`], [`Distrust`] | who may change something in a server, on each of its listeners |
//! | [`Listener`] | accepts connections, and pauses where it cannot |
//! | [`Seldom`] | a line of the log that strangers can cause |
//! | [`Invalid`] | a setting outside its range |
//! | [`Unsent`] | why a call was not sent |
//!
//! *Why a crate of its own:* a policy never names another policy; what two of them need is here.

mod backoff;
mod call;
pub mod clock;
pub mod code;
pub mod deadline;
mod discover;
pub mod error;
mod evidence;
mod framing;
mod gate;
pub mod headers;
mod inbound;
mod latency;
mod listener;
mod live;
mod methods;
mod observable;
mod per_method;
mod replay;
mod rng;
mod secret;
mod seldom;
pub mod status;
mod switch;
mod target;
mod trust;
mod verdict;
mod wire;

pub use backoff::{Backoff, Jitter};
pub use call::{Attempt, AttemptKind, Call};
pub use deadline::{Deadline, Elapsed};
pub use discover::{Discover, Signals};
pub use error::{BoxError, Invalid, Unsent};
pub use evidence::{Allowed, Evidence, Spent};
pub use framing::Framing;
pub use gate::{Gate, Ticket};
pub use inbound::Inbound;
pub use latency::Latency;
pub use listener::Listener;
pub use live::Live;
pub use methods::{MethodKind, Methods, Safety, is_of_the_server};
pub use observable::{Instrument, Observable};
pub use per_method::PerMethod;
pub use replay::{Replay, ReplayBuffer, Sent};
pub use rng::Rng;
pub use secret::Secret;
pub use seldom::Seldom;
pub use switch::{Mode, Switch};
pub use target::{Address, Target, without_userinfo};
pub use trust::{Distrust, Trust};
pub use verdict::{Stage, Verdict};
pub use wire::{DEGRADED, DOMAIN, IDEMPOTENCY_KEY};
