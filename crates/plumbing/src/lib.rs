//! What several crates of cinchona need, and no user sees.
//!
//! **This is no API.** It is published since the others need it; each depends on its exact version,
//! and nothing here is a promise: any release may change or remove any of it. What users set
//! or are given is in `cinchona-core`, or is exported again by the crate that takes it.
//!
//! | module or type | what is there |
//! |---|---|
//! | [`clock`] | arithmetic that saturates: `Duration::MAX` means for ever |
//! | [`cause`] | errors, questioned along their `source()` chain |
//! | [`code`], [`status`], [`timeout`], [`headers`] | gRPC's words in headers, read and written |
//! | [`uri`], [`secret`] | what of a URI may be shown; texts compared in constant time |
//! | [`ResponseBody`], [`Watcher`] | the body of every response, and the layers that watch it |
//! | [`Framing`] | messages in a stream of bytes |
//! | [`Replay`], [`ReplayBuffer`] | a request that can be sent again |
//! | [`Allowed`], [`Spent`] | the time that an attempt was given, and took |
//! | [`Paths`] | what is looked up for every call, by its path |
//! | [`Arriving`], [`gather`] | what has arrived of a request |
//! | [`Latency`] | how long answers take |
//! | [`Reloadable`] | settings that are replaced while calls run |
//! | [`Listener`], [`Seldom`] | connections, and lines of the log, that strangers cause |
//! | [`Trust`], [`Distrust`] | who may change something in a server |
//! | [`Plain`] | a service whose answers have tonic's bodies |
//! | [`Misplaced`] | a layer that stands where it does harm |
//! | [`Invalid`], [`Elapsed`] | errors: of a setting, of a call that has run out of time |
//! | [`Backoff`], [`Jitter`] | how long to wait before the next try |
//! | [`Signals`], [`Avoid`], [`Ticket`] | what sources, callers and gates say to a balancer |
//! | [`Count`], [`polled_again`] | how often something happened; a future that is polled again |
//!
//! *Rule:* it names no other crate of cinchona.

mod arriving;
mod backoff;
mod body;
pub mod cause;
pub mod clock;
pub mod code;
mod count;
mod elapsed;
mod endpoint;
mod framing;
pub mod headers;
mod invalid;
mod latency;
mod listener;
mod live;
mod misplaced;
mod paths;
mod plain;
mod replay;
pub mod secret;
mod seldom;
mod signals;
mod spent;
pub mod status;
mod sync;
pub mod timeout;
mod trust;
pub mod uri;

pub use arriving::{Arriving, gather};
pub use backoff::{Backoff, Jitter};
pub use body::{Next, Polled, ResponseBody, Seen, Watcher, begins};
pub use count::{Count, polled_again};
pub use elapsed::Elapsed;
pub use endpoint::{Avoid, Ticket};
pub use framing::Framing;
pub use invalid::Invalid;
pub use latency::Latency;
pub use listener::Listener;
pub use live::Reloadable;
pub use misplaced::{Misplaced, warn_of_unknown_peer};
pub use paths::Paths;
pub use plain::{Plain, PlainFuture};
pub use replay::{Replay, ReplayBuffer, whole};
pub use seldom::Seldom;
pub use signals::Signals;
pub use spent::{Allowed, Spent};
pub use trust::{Distrust, Trust};
pub use uri::{is_of_the_server, without_userinfo};
