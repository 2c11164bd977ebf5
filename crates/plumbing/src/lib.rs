//! Shared internals of cinchona's crates.
//!
//! **This is no API.** It is published because the other crates need it; each depends on its exact
//! version, and nothing here is stable: any release may change or remove any of it. Types that
//! users set or receive are in `cinchona-core`, or are re-exported by the crate that takes them.
//!
//! | module or type | content |
//! |---|---|
//! | [`clock`] | saturating arithmetic: `Duration::MAX` means without limit |
//! | [`cause`] | searches errors along their `source()` chain |
//! | [`code`], [`status`], [`timeout`], [`headers`] | gRPC's headers, read and written |
//! | [`uri`], [`secret`] | URIs without credentials; texts compared in constant time |
//! | [`ResponseBody`], [`Watcher`] | the body of every response, and the layers that watch it |
//! | [`Prefixes`], [`Framing`], [`first_message`] | messages in a stream of bytes |
//! | [`Replay`], [`ReplayBuffer`] | a request that can be sent again |
//! | [`Allowed`], [`Spent`] | the time allowed for an attempt, and the time it took |
//! | [`Paths`] | values looked up for every call, by its path |
//! | [`Arriving`], [`gather`], [`continued`] | the part of a request that has arrived |
//! | [`watch_request`] | a request that is watched as it is read |
//! | [`Latency`] | a quantile of latencies |
//! | [`Reloadable`] | settings that are replaced while calls run |
//! | [`timer`] | a timer that is usually stopped before it fires |
//! | [`Listener`], [`Seldom`] | connections and log lines that any client can cause |
//! | [`Trust`], [`Distrust`] | which requests may change a server |
//! | [`Plain`] | a service whose answers have tonic's bodies |
//! | [`Misplaced`] | warns of a layer in a harmful place |
//! | [`Invalid`], [`Elapsed`] | errors: of a setting, of a call that has run out of time |
//! | [`Backoff`], [`Jitter`] | the wait before the next attempt |
//! | [`Signals`], [`Avoid`], [`Ticket`] | what sources, callers and gates exchange with a balancer
//!   |
//! | [`Kept`], [`thread_number`] | boxes that a thread keeps for reuse; the number of a thread |
//! | [`Callback`] | a function of a user's, in settings that are compared |
//! | [`Count`], [`polled_again`] | a counter; the error of a future that is polled again |
//!
//! *Rule:* it names no other crate of cinchona but `cinchona-policy`.

mod arriving;
mod body;
mod callback;
pub mod cause;
pub mod clock;
pub mod code;
mod count;
mod elapsed;
mod endpoint;
mod framing;
pub mod headers;
mod kept;
mod listener;
mod misplaced;
mod paths;
mod plain;
mod prefixes;
mod replay;
pub mod secret;
mod seldom;
mod signals;
mod spent;
pub mod status;
mod sync;
pub mod timeout;
mod timer;
mod trust;
pub mod uri;
mod watched;

pub use arriving::{Arriving, continued, gather};
pub use body::{Next, Polled, ResponseBody, Seen, Watcher, begins};
pub use callback::Callback;
#[doc(inline)]
pub use cinchona_policy::{Backoff, Invalid, Jitter, Latency, Reloadable, shard::thread_number};
pub use count::{Count, polled_again};
pub use elapsed::Elapsed;
pub use endpoint::{Avoid, Ticket};
pub use framing::Framing;
pub use kept::Kept;
pub use listener::Listener;
pub use misplaced::{Misplaced, warn_of_unknown_peer};
pub use paths::Paths;
pub use plain::{Plain, PlainFuture, plain_request};
pub use prefixes::{PREFIX, Prefix, Prefixes, first_message};
pub use replay::{Replay, ReplayBuffer, whole};
pub use seldom::Seldom;
pub use signals::Signals;
pub use spent::{Allowed, Spent};
pub use timer::timer;
pub use trust::{Distrust, Trust};
pub use uri::{is_of_the_server, without_userinfo};
pub use watched::watch_request;
