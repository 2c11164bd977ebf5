//! An idempotency store that replicas share, in Redis.
//!
//! # Rule
//!
//! * A claim is one `SET … NX GET`, which returns the existing value; operations that read before
//!   they write (finishing under a token, taking over a lapsed lease, changing state) are Lua
//!   scripts of one round trip. Redis runs both atomically, so one of all replicas is granted.
//! * Leases are measured by Redis' clock alone, as the remaining time to live of a key.
//! * No call waits for Redis for longer than [`RedisStore::with_timeout`] (80 ms), including the
//!   wait for another change of the same state; `DedupSettings::with_fail_open` decides what
//!   happens then. While the last attempt to connect has failed, calls fail immediately.
//! * A connection is replaced in the background if it breaks, answers nothing for 250 ms, or leads
//!   to a server that cannot serve (`READONLY`, `LOADING`, `MASTERDOWN`, `MOVED`, `CLUSTERDOWN`,
//!   `NOAUTH`, `TRYAGAIN`, and every other error that is not about the request): attempts begin 10
//!   to 250 ms apart, and the first server that accepts changes is used. So service is back within
//!   a second of such a server being up.
//! * A claim abandoned without an answer may still be made when the command reaches Redis. It is
//!   released until its lease has ended, or until a minute after Redis has answered that it does
//!   not exist; this process takes it over when it meets it.
//! * A call that waits for another's answer polls every 25 ms.
//! * A change of state that panics fails with `INTERNAL`, changes nothing and affects no other.
//!
//! # What can be lost
//!
//! Redis decides what it evicts (`maxmemory-policy`) and what survives its own crash
//! (`appendfsync`): with `noeviction` and `always` no acknowledged record is lost. This store does
//! not see Redis' evictions: `Store::evicted` is 0, and such a call is executed again. Watch
//! `evicted_keys` of `INFO stats`, or set `noeviction`, with which a full Redis fails new claims.
//!
//! With replicas ([`Servers::sentinel`], [`Servers::cluster`], a managed service) records can be
//! lost: *replication is asynchronous*. A primary acknowledges before its replicas have the write,
//! so after a failover the claims, records and changes of the last moments are gone, and an
//! acknowledged call is executed again if it is repeated. One script writes state and record
//! together, so whole calls are lost. How much:
//!
//! * When the primary crashes: the writes that it had not replicated, usually some milliseconds.
//! * When it is cut off from its replicas and still accepts writes: all writes until its clients
//!   leave it; with `min-replicas-to-write 1` and `min-replicas-max-lag N` at most N + 1 seconds (N
//!   is 10 by default; without the first of the two there is no bound). This store leaves a primary
//!   that refuses writes immediately.
//! * In a cluster a primary that is cut off from the majority stops after `cluster-node-timeout`
//!   (15 s by default), which is the bound there.
//!
//! If not even that may be lost, keep state and records in one durable server, or in a file
//! (`cinchona-redb`).
//!
//! # Example
//!
//! ```no_run
//! use cinchona_idempotency::DedupSettings;
//! use cinchona_redis::RedisStore;
//! # let methods = cinchona_core::Methods::unknown();
//!
//! let store = RedisStore::new("redis://127.0.0.1:6379")?;
//! let dedup = DedupSettings::new(methods).with_domain("payments")?.layer(store);
//! # drop(dedup);
//! # Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
//! ```
//!
//! # What it does not do
//!
//! It needs Redis 7.0 or later. It follows a slot that a cluster is moving between nodes (`ASK`),
//! but a change of several values fails with `TRYAGAIN` until all of them are on one of the two
//! nodes.

mod answer;
mod certified;
mod connect;
mod doubts;
mod link;
mod pace;
mod place;
mod question;
mod scripts;
mod sentinels;
mod servers;
mod state;
mod tls;

pub use servers::Servers;

use answer::Failed;
use bytes::Bytes;
use cinchona_core::{BoxError, Invalid};
use cinchona_idempotency::{Claim, Store, Wait};
use cinchona_plumbing::clock::{FOR_EVER, later, millis};
use doubts::{Doubt, Doubts};
use link::Link;
use question::Question;
use scripts::{answered, claimed};
use std::{
    fmt,
    hash::RandomState,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Mutex, time::Instant};

/// A store and a state in Redis; clones share a connection.
#[derive(Clone)]
pub struct RedisStore {
    shared: Arc<Shared>,
    settings: Settings,
}

#[derive(Clone, Debug)]
struct Settings {
    prefix: String,
    ttl: Duration,
    timeout: Duration,
}

struct Shared {
    link: Arc<Link>,
    /// Changes of the same value by this process run one after the other; of concurrent ones all
    /// but one would have to be repeated.
    changing: [Mutex<()>; 64],
    hasher: RandomState,
    doubts: Arc<Doubts>,
    /// The longest lease, in ms, during which a claim is released.
    lease: AtomicU64,
}

const POLL: Duration = Duration::from_millis(25);

// === impl RedisStore ===

impl RedisStore {
    /// A store in the Redis at `url` ([`Servers::one`]); it connects on first use.
    ///
    /// Its [domain](Store::domain) and its errors contain no part of `url`.
    ///
    /// # Errors
    /// When `url` is invalid; [`Invalid`] names the wrong part, and does not repeat it.
    pub fn new(url: &str) -> Result<Self, Invalid> {
        Ok(Self::at(Servers::one(url)?))
    }

    /// A store in a Redis; it connects on first use.
    pub fn at(servers: Servers) -> Self {
        let settings = Settings {
            prefix: "cinchona".to_owned(),
            ttl: Duration::from_secs(300),
            timeout: Duration::from_millis(80),
        };
        Self::over(servers, settings)
    }

    fn over(servers: Servers, settings: Settings) -> Self {
        let link = Arc::new(Link::new(servers, settings.key("probe", b"")));
        let shared = Shared {
            changing: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
            doubts: Arc::new(Doubts::new(link.clone())),
            link,
            lease: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared), settings }
    }

    /// Begins every key with `{prefix}:`, with the braces, so that a cluster keeps the keys
    /// together; returns another store with its own connection. Default `cinchona`.
    ///
    /// # Errors
    /// When it is empty, or contains a brace.
    pub fn with_prefix(mut self, prefix: &str) -> Result<Self, Invalid> {
        if prefix.is_empty() || prefix.contains(['{', '}']) {
            return Err(Invalid::new("prefix", format!("{prefix:?}"), "a name without braces"));
        }
        prefix.clone_into(&mut self.settings.prefix);
        Ok(Self::over(self.shared.link.servers().clone(), self.settings))
    }

    /// Keeps records for `ttl`. Default 300 s; `Duration::MAX`: without end.
    ///
    /// # Errors
    /// When it is less than a millisecond.
    pub fn with_ttl(mut self, ttl: Duration) -> Result<Self, Invalid> {
        self.settings.ttl = at_least_1_ms("ttl", ttl)?;
        Ok(self)
    }

    /// Waits at most `timeout` for each operation: a claim, a record, a release, or a read or
    /// change of a value, including all waits in between. Default 80 ms; `Duration::MAX`: without
    /// limit.
    ///
    /// # Errors
    /// When it is less than a millisecond.
    pub fn with_timeout(mut self, timeout: Duration) -> Result<Self, Invalid> {
        self.settings.timeout = at_least_1_ms("timeout", timeout)?;
        Ok(self)
    }

    fn call_key(&self, key: &[u8]) -> Vec<u8> {
        self.settings.key("call", key)
    }

    fn state_key(&self, key: &str) -> Vec<u8> {
        self.settings.key("state", key.as_bytes())
    }

    fn until(&self) -> Instant {
        later(Instant::now(), self.settings.timeout)
    }

    /// How long a claim's key exists: its lease plus a record's time, so that a lapsed one is still
    /// known.
    fn claimed_for(&self, lease: Duration) -> u64 {
        millis(lease.min(FOR_EVER)) + self.kept_for()
    }

    /// How long a record exists. Redis refuses a time to live that overflows when added to its
    /// clock.
    fn kept_for(&self) -> u64 {
        millis(self.settings.ttl.min(FOR_EVER))
    }

    /// Waits for the claim `old`, unless its lease has ended, or it was abandoned here.
    async fn busy(
        &self,
        doubt: &Doubt<'_>,
        old: Vec<u8>,
        lease: Duration,
        until: Instant,
    ) -> Result<Claim, Failed> {
        let token = old.get(17..).and_then(|token| token.try_into().ok()).map(u128::from_be_bytes);
        let given_up = token.filter(|token| self.shared.doubts.has(*token));
        // An abandoned claim has no lease.
        let lasts = if given_up.is_some() { u64::MAX >> 12 } else { self.kept_for() };
        let times = [self.claimed_for(lease), lasts].map(|time| time.to_string().into_bytes());
        let [stays, lasts] = times;
        let take_over = Question::Script {
            source: &self.shared.link.scripts().take_over,
            keys: vec![doubt.key.to_vec()],
            args: vec![old, doubt.fresh.clone(), stays, lasts],
        };
        let left: i64 = self.shared.link.ask(&take_over, until, &doubt.is_open).await?;
        Ok(match (left, given_up) {
            (0, Some(token)) => {
                self.shared.doubts.settle(token);
                Claim::Granted { lapsed: false }
            }
            (0, None) => Claim::Granted { lapsed: true },
            (left, _) => {
                Claim::Busy(Wait::polling(POLL.min(Duration::from_millis(left.unsigned_abs()))))
            }
        })
    }

    async fn claimed(
        &self,
        doubt: &Doubt<'_>,
        fingerprint: u128,
        lease: Duration,
    ) -> Result<Claim, BoxError> {
        let until = self.until();
        let mut set = redis::cmd("SET");
        set.arg(doubt.key).arg(&doubt.fresh).arg("NX").arg("GET");
        let set = Question::Command(set.arg("PX").arg(self.claimed_for(lease)).take());
        let asked = self.shared.link.ask::<Option<Vec<u8>>>(&set, until, &doubt.is_open).await;
        let Some(old) = asked.map_err(|failed| failed.why)? else {
            return Ok(Claim::Granted { lapsed: false });
        };
        match (old.get(..16), old.get(16)) {
            (Some(own), Some(_)) if own != fingerprint.to_be_bytes() => Ok(Claim::Mismatch),
            (_, Some(b'D')) => Ok(Claim::Done(Bytes::from(old).slice(17..))),
            (_, Some(b'C')) => {
                self.busy(doubt, old, lease, until).await.map_err(|failed| failed.why)
            }
            _ => Err("what is at the key was not written by this store".into()),
        }
    }
}

impl Store for RedisStore {
    async fn claim(
        &self,
        key: &[u8],
        fingerprint: u128,
        token: u128,
        lease: Duration,
    ) -> Result<Claim, BoxError> {
        let key = self.call_key(key);
        self.shared.lease.fetch_max(millis(lease), Ordering::Relaxed);
        let doubt = Doubt::new(&self.shared.doubts, &key, fingerprint, token, lease);
        let claim = self.claimed(&doubt, fingerprint, lease).await;
        if claim.is_err() && !doubt.is_open.load(Ordering::Relaxed) {
            self.shared.doubts.set_unmade(token);
        }
        claim
    }

    async fn finish(&self, key: &[u8], token: u128, record: &[u8]) -> Result<bool, BoxError> {
        let args = vec![
            claimed(token).to_vec(),
            answered(record),
            self.kept_for().to_string().into_bytes(),
        ];
        let source = &self.shared.link.scripts().finish;
        let finish = Question::Script { source, keys: vec![self.call_key(key)], args };
        let is_open = AtomicBool::new(false);
        let kept = self.shared.link.ask::<i64>(&finish, self.until(), &is_open).await;
        Ok(kept.map_err(|failed| failed.why)? == 1)
    }

    /// A release that failed is repeated in the background.
    async fn release(&self, key: &[u8], token: u128) -> Result<(), BoxError> {
        if self.shared.doubts.take_unmade(token) {
            return Ok(());
        }
        let key = self.call_key(key);
        let (keys, tokens) = (vec![key.clone()], vec![claimed(token).to_vec()]);
        let lease = Duration::from_millis(self.shared.lease.load(Ordering::Relaxed));
        let mut doubt = Doubt::new(&self.shared.doubts, &key, 0, token, lease);
        *doubt.is_open.get_mut() = true;
        let ended = self.shared.doubts.release(keys, tokens, self.until()).await;
        let ended = ended.map_err(|failed| failed.why)?;
        *doubt.is_open.get_mut() = false;
        if ended.contains(&1) {
            self.shared.doubts.settle(token);
        }
        Ok(())
    }

    fn instance(&self) -> usize {
        Arc::as_ptr(&self.shared) as usize
    }

    /// A hash of host, port, database and prefix, or of all hosts and ports of several [`Servers`];
    /// with the name of the machine, if a host is `localhost` or a socket.
    fn domain(&self) -> Option<String> {
        Some(self.shared.link.servers().place.domain(&self.settings.prefix))
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("settings", &self.settings).finish_non_exhaustive()
    }
}

// === impl Settings ===

impl Settings {
    /// A key, with the prefix as its hash tag.
    fn key(&self, kind: &str, key: &[u8]) -> Vec<u8> {
        [b"{", self.prefix.as_bytes(), b"}:", kind.as_bytes(), b":", key].concat()
    }
}

fn at_least_1_ms(field: &'static str, value: Duration) -> Result<Duration, Invalid> {
    if value < Duration::from_millis(1) {
        return Err(Invalid::new(field, format!("{value:?}"), "at least 1ms"));
    }
    Ok(value)
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
mod tests;
