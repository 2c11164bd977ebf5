//! Idempotency keys: one effect and one answer per key, however often a call is sent.
//!
//! # Why
//!
//! A lost reply looks like a lost request, so a retry may execute a call twice: harmless for a
//! read, wrong for a counter, costly for a payment. The client gives each logical call a key
//! ([`IdempotencyKeyLayer`]), the server remembers its answer ([`DedupLayer`]), and any unary
//! method is safe to retry and to hedge, without a change of its handler.
//!
//! # Rule
//!
//! * A call's key is the field `string request_id` of its message if set ([AIP-155]), else the
//!   header `idempotency-key`: 1 to 255 bytes of printable ASCII. It is scoped to its method and
//!   its [caller](#who-a-caller-is).
//! * *First:* the call is executed under a lease. *In flight:* a second one waits for the first
//!   one's answer, or is refused ([`InFlight`]). *Answered:* it gets the first answer, byte for
//!   byte, with `idempotent-replayed: true`. *Another request under the same key:*
//!   `INVALID_ARGUMENT`, reason `IDEMPOTENCY_KEY_REUSED`.
//! * Requests are the same if their messages are: decompressed (`gzip`, `deflate`, `zstd`) and in a
//!   canonical form by the .proto, with maps and unknown fields in any order
//!   ([`Methods::canonical_request`]); or if their keys are the same, where
//!   [configured](DedupSettings::with_key_alone).
//! * Messages that cannot be read are refused, and counted ([`DedupCounters::unreadable`]): more
//!   bytes than [`with_limits`](DedupSettings::with_limits) allows, compressed or not, with
//!   `OUT_OF_RANGE`, other compressions with `UNIMPLEMENTED`, broken ones with `INTERNAL`, as in
//!   gRPC's [compression]. Messages of other codecs than protobuf have the key in the header, if
//!   any; those without, of methods with a `request_id`, are counted and passed on.
//! * Which failures are kept, and which are executed again: see the
//!   [table](#what-at-most-once-means).
//! * A caller that gives up does not stop an execution: it continues within its lease
//!   ([`with_lease`](DedupSettings::with_lease), or its caller's deadline where that is later),
//!   which is the deadline that the handler and its own calls see, and a retry finds its answer.
//! * The response to a call that may have a key names the server's [`DOMAIN`]; an attempt that
//!   names another one as that of the attempt before it is refused (`FAILED_PRECONDITION`, reason
//!   `IDEMPOTENCY_DOMAIN_MISMATCH`), as this server would not recognise it.
//! * Streaming methods, methods marked `NO_SIDE_EFFECTS` and methods missing in the .proto pass
//!   through.
//! * When off ([`Switch`]), the layer reads, counts, keeps and adds nothing. In shadow it counts
//!   what it would have done, and passes on the calls that it would have refused.
//! * A panic of a user's function, or of the handler, fails one call.
//!
//! ## What at-most-once means
//!
//! Once a handler has been called, only its own declaration proves that it has had no effect: it
//! may forward the `UNAVAILABLE` of a call that it made after an effect. So, by [`Guarantee`]:
//!
//! | the handler answers | at most once | at least once |
//! |---|---|---|
//! | `OK` | kept | kept |
//! | `INVALID_ARGUMENT`, `NOT_FOUND`, `ALREADY_EXISTS` | kept | kept |
//! | `PERMISSION_DENIED`, `FAILED_PRECONDITION` | kept | kept |
//! | `OUT_OF_RANGE`, `UNIMPLEMENTED` | kept | kept |
//! | `UNAVAILABLE`, `ABORTED` | kept | executed again |
//! | `RESOURCE_EXHAUSTED`, `UNAUTHENTICATED` | kept | executed again |
//! | `INTERNAL`, `UNKNOWN`, `DATA_LOSS` | kept | executed again |
//! | `DEADLINE_EXCEEDED`, `CANCELLED` | kept | executed again |
//! | any failure, [marked][`not_begun`] or [released] | executed again | executed again |
//! | nothing: a panic, a lost lease, a broken answer | `UNKNOWN` from then on | executed again |
//!
//! A kept failure is the answer of every retry under the same key, so a handler that refuses before
//! it begins, and can be retried, declares it by [`not_begun`]; layers of this project below this
//! one do. Over a [`State`], `AtLeastOnce` is *exactly once*.
//!
//! ## Who a caller is
//!
//! Keys of different callers are separate, so no caller receives the answer of another. By default
//! a caller is:
//!
//! 1. its credentials, hashed (SHA-256): all headers with `auth`, `token`, `cookie`, `key`,
//!    `session`, `jwt`, `cert`, `user`, `tenant`, `identity`, `principal`, `credential`, `secret`,
//!    `password`, `account`, `customer` or `client-id` in their names;
//! 2. if there are none, the certificate of the peer;
//! 3. if there is none, the address of the peer without its port, or the user at the other end of a
//!    Unix socket.
//!
//! *The risk:* credentials that are renewed or signed per attempt, a renewed certificate, or an
//! address that changes between two attempts make another caller, whose retry is executed again.
//! And callers without credentials share their answers behind one proxy or NAT. If either matters,
//! name the caller: best by [`with_caller`](DedupSettings::with_caller), the authenticated
//! principal, or by [`by_header`](DedupSettings::by_header),
//! [`by_peer`](DedupSettings::by_peer), [`by_key`](DedupSettings::by_key).
//!
//! *Authorization belongs outside of this layer:* a replay reaches neither the handler nor an
//! interceptor of the service, so a permission that was revoked after the first call is not
//! checked. If the check cannot be outside, let the layer check before it replays
//! ([`with_authorize`](DedupSettings::with_authorize)).
//!
//! # Example
//!
//! ```
//! use cinchona_core::Methods;
//! use cinchona_idempotency::{DedupLayer, MemoryStore};
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! # use prost::Message;
//! # use prost_types::{
//! #     FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto, ServiceDescriptorProto,
//! # };
//! # let mut service = ServiceDescriptorProto::default();
//! # let mut file = FileDescriptorProto::default();
//! # service.name = Some("Bank".into());
//! # let pay = MethodDescriptorProto { name: Some("Pay".into()), ..Default::default() };
//! # service.method.push(pay);
//! # file.service.push(service);
//! # let descriptors = FileDescriptorSet { file: vec![file] }.encode_to_vec();
//! # use std::{convert::Infallible, sync::atomic::{AtomicU32, Ordering}};
//! # use tonic::{Status, body::Body};
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! static PAID: AtomicU32 = AtomicU32::new(0);
//! let service = service_fn(|_: http::Request<Body>| async {
//!     PAID.fetch_add(1, Ordering::Relaxed);
//!     Ok::<_, Infallible>(Status::ok("").into_http::<Body>())
//! });
//! let methods = Methods::from_file_descriptor_set(&descriptors).unwrap();
//! let dedup = DedupLayer::new(MemoryStore::new(), methods);
//!
//! for attempt in 0..3 {
//!     let request = http::Request::post("/Bank/Pay").header("idempotency-key", "k1");
//!     let response = dedup.layer(service).oneshot(request.body(Body::empty()).unwrap());
//!     let replayed = response.await.unwrap().headers().contains_key("idempotent-replayed");
//!     assert_eq!(replayed, attempt > 0);
//! }
//! assert_eq!(PAID.load(Ordering::Relaxed), 1);
//! # }
//! ```
//!
//! # What it costs
//!
//! With the store in memory a first call takes 1.1 µs and 10 allocations more than without this
//! layer, a replayed answer half a microsecond and no handler. A record takes 227 bytes for an
//! answer of 64, with a million of them. Two threads have 1.5 times the throughput of one; without
//! the layer, twice (`cargo xtask bench dedup`). In Redis, claim and finish of 64 concurrent
//! callers run at 0.6 to 0.7 of the rate of a bare `SET NX PX` and a bare `SET` (`cargo xtask bench
//! redis`).
//!
//! # What it does not do
//!
//! It cannot make two writes atomic: a handler that changes a database and crashes before its
//! answer is stored leaves an effect without a record, which is then ambiguous. To avoid that, keep
//! the handler's state in a [`State`], which commits it with the record.
//!
//! [AIP-155]: https://google.aip.dev/155
//! [compression]: https://github.com/grpc/grpc/blob/master/doc/compression.md
//! [`Methods::canonical_request`]: cinchona_core::Methods::canonical_request
//! [`Switch`]: cinchona_core::Switch
//! [released]: DedupSettings::with_released

mod authorize;
mod call;
mod caller;
mod compression;
pub mod conformance;
mod counters;
mod key;
mod layer;
mod lease;
mod memory;
mod message;
mod metrics;
pub mod record;
mod refusal;
mod request_id;
mod service;
mod settings;
mod shared;
mod state;
mod store;
mod tokens;

/// Why a layer leaves all calls alone.
const NO_METHODS: &str = "its `Methods` list none, make them of a descriptor set";

pub use cinchona_core::{DOMAIN, IDEMPOTENCY_KEY};
pub use cinchona_plumbing::{headers::REQUEST_ID, status::not_begun};
#[doc(inline)]
pub use cinchona_policy::dedup::{Claim, Guarantee, InFlight, Wait};
pub use counters::DedupCounters;
pub use layer::DedupLayer;
pub use memory::MemoryStore;
pub use request_id::{IdempotencyKey, IdempotencyKeyLayer, IdempotencyKeySettings, KeyFuture};
pub use service::{Dedup, ResponseFuture};
pub use settings::DedupSettings;
pub use state::{Execution, State, fenced};
pub use store::Store;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
mod tests;
