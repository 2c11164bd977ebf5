//! An idempotency store that replicas share, in Redis.
//!
//! # Rule
//!
//! * A claim is one `SET … NX GET`, which returns what is there already; whatever must look before
//!   it writes (finishing under a token, taking over a lapsed lease, changing state) is a Lua
//!   script of one round trip. Redis runs both atomically, so of all replicas one is granted.
//! * Leases are measured by Redis' clock alone, as what is left of a key's time to live.
//! * Nothing waits for Redis for longer than [`RedisStore::with_timeout`] (80 ms): what happens
//!   then is for `DedupLayer::with_fail_open` to say. The connection is made, and made again, in
//!   the background.
//! * Whoever waits for another's answer asks every 25 ms.
//!
//! Redis decides what it evicts (`maxmemory-policy`) and what survives its own crash
//! (`appendfsync`): with `noeviction` and `always` nothing is lost that was acknowledged.
//!
//! # Example
//!
//! ```no_run
//! use cinchona_idempotency::DedupLayer;
//! use cinchona_redis::RedisStore;
//! # let methods = cinchona_core::Methods::unknown();
//!
//! let store = RedisStore::new("redis://127.0.0.1:6379")?;
//! let dedup = DedupLayer::new(store, methods).with_domain("payments")?;
//! # drop(dedup);
//! # Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
//! ```
//!
//! # What it does not do
//!
//! It needs Redis 7.0 or later, and one primary: with Redis Cluster a change of two keys of state
//! would span slots, and a failover to a replica that lags loses what had been acknowledged.

mod place;

use bytes::Bytes;
use cinchona_core::{
    BoxError, Invalid,
    clock::{FOR_EVER, millis},
};
use cinchona_idempotency::{Claim, Execution, State, Store, Wait, fenced, record};
use place::Place;
use prost::Message;
use redis::{
    Cmd, FromRedisValue, RedisError, Script, ScriptInvocation,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use std::{
    fmt,
    future::Future,
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::Mutex,
    time::{sleep, timeout},
};
use tonic::Status;

/// A store and a state in Redis; its clones share a connection.
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
    place: Place,
    connection: ConnectionManager,
    scripts: Scripts,
    /// Changes of the same value by this process come one after the other, as all but one of those
    /// that are made at once would have to be made again.
    changing: [Mutex<()>; 64],
    hasher: RandomState,
}

/// What is at a key: the fingerprint in 16 bytes; then `C` and the token, or `D` and the record.
struct Scripts {
    /// Takes over a claim whose lease has ended; else what is left of it, in ms.
    take_over: Script,
    finish: Script,
    release: Script,
    change: Script,
}

const TAKE_OVER: &str = "\
local v = redis.call('GET', KEYS[1])
if v ~= ARGV[1] then return 1 end
local left = redis.call('PTTL', KEYS[1]) - ARGV[4]
if left > 0 then return left end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 0";

const FINISH: &str = "\
local v = redis.call('GET', KEYS[1])
if not v or v:sub(17) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], v:sub(1, 16) .. ARGV[2], 'PX', ARGV[3])
return 1";

const RELEASE: &str = "\
local v = redis.call('GET', KEYS[1])
if v and v:sub(17) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1";

/// Of the keys the first is the call's, and empty where there is none. For each of the others
/// there are two arguments after the first three: what it must be, and what it is to be; each is a
/// `1` and the value, or `0` for none.
const CHANGE: &str = "\
local v = false
if KEYS[1] ~= '' then
  v = redis.call('GET', KEYS[1])
  if not v or v:sub(17) ~= ARGV[1] then return 0 end
end
for i = 2, #KEYS do
  local now = redis.call('GET', KEYS[i])
  if (now and '1' .. now or '0') ~= ARGV[2 * i] then return 2 end
end
for i = 2, #KEYS do
  local new = ARGV[2 * i + 1]
  if new == '0' then redis.call('DEL', KEYS[i]) else redis.call('SET', KEYS[i], new:sub(2)) end
end
if v then redis.call('SET', KEYS[1], v:sub(1, 16) .. ARGV[2], 'PX', ARGV[3]) end
return 1";

/// What the change script returns.
const FENCED: i64 = 0;
const CHANGED: i64 = 1;

const POLL: Duration = Duration::from_millis(25);

// === impl RedisStore ===

impl RedisStore {
    /// A store in the Redis at `url`, such as `redis://127.0.0.1:6379/0`, to which it connects when
    /// it is first used: `redis://[[USER]:PASSWORD@]HOST[:PORT][/DB]` (default port 6379, default
    /// database 0), or `unix:///PATH[?db=DB&user=USER&pass=PASSWORD]`. `valkey` is another word for
    /// `redis`; what is special in a URL is percent-encoded.
    ///
    /// What the store says of itself, its [domain](Store::domain) and its errors, holds no part of
    /// `url`.
    ///
    /// # Errors
    /// When `url` is none; [`Invalid`] says which part of it is wrong, and does not repeat it.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(url: &str) -> Result<Self, BoxError> {
        let timeout = Duration::from_millis(80);
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(timeout))
            .set_response_timeout(None)
            .set_number_of_retries(2)
            .set_min_delay(Duration::from_millis(10))
            .set_max_delay(Duration::from_millis(100));
        let (info, place) = place::parse(url)?;
        let client = redis::Client::open(info).map_err(|error| said(&error))?;
        let shared = Shared {
            place,
            connection: ConnectionManager::new_lazy_with_config(client, config)
                .map_err(|error| said(&error))?,
            scripts: Scripts {
                take_over: Script::new(TAKE_OVER),
                finish: Script::new(FINISH),
                release: Script::new(RELEASE),
                change: Script::new(CHANGE),
            },
            changing: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
        };
        let ttl = Duration::from_secs(300);
        let settings = Settings { prefix: "cinchona".to_owned(), ttl, timeout };
        Ok(Self { shared: Arc::new(shared), settings })
    }

    /// Begins every key with `prefix` and a colon. Default `cinchona`.
    pub fn with_prefix(mut self, prefix: &str) -> Self {
        prefix.clone_into(&mut self.settings.prefix);
        self
    }

    /// Keeps records for `ttl`. Default 300 s; `Duration::MAX` for ever.
    ///
    /// # Errors
    /// When it is less than a millisecond.
    pub fn with_ttl(mut self, ttl: Duration) -> Result<Self, Invalid> {
        self.settings.ttl = at_least_1_ms("ttl", ttl)?;
        Ok(self)
    }

    /// Waits for Redis for `timeout` at most, each time it is asked something. Default 80 ms;
    /// `Duration::MAX` for ever.
    ///
    /// # Errors
    /// When it is less than a millisecond.
    pub fn with_timeout(mut self, timeout: Duration) -> Result<Self, Invalid> {
        self.settings.timeout = at_least_1_ms("timeout", timeout)?;
        Ok(self)
    }

    fn call_key(&self, key: &[u8]) -> Vec<u8> {
        [self.settings.prefix.as_bytes(), b":call:", key].concat()
    }

    fn state_key(&self, key: &str) -> String {
        format!("{}:state:{key}", self.settings.prefix)
    }

    async fn within<T>(
        &self,
        asking: impl Future<Output = redis::RedisResult<T>>,
    ) -> Result<T, BoxError> {
        let limit = self.settings.timeout;
        let answered = timeout(limit, asking).await;
        let answered = answered.map_err(|_| format!("Redis did not answer within {limit:?}"))?;
        Ok(answered.map_err(|error| said(&error))?)
    }

    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, BoxError> {
        let mut connection = self.shared.connection.clone();
        self.within(command.query_async(&mut connection)).await
    }

    async fn run(&self, script: &ScriptInvocation<'_>) -> Result<i64, BoxError> {
        let mut connection = self.shared.connection.clone();
        self.within(script.invoke_async(&mut connection)).await
    }

    /// How long a claim stays: its lease, and then a record's time, so that it is known to have
    /// lapsed.
    fn claimed_for(&self, lease: Duration) -> u64 {
        millis(lease.min(FOR_EVER)) + self.kept_for()
    }

    /// How long a record stays. Redis refuses a time that, with that of its clock, overflows.
    fn kept_for(&self) -> u64 {
        millis(self.settings.ttl.min(FOR_EVER))
    }

    async fn busy(
        &self,
        key: &[u8],
        old: &[u8],
        fresh: &[u8],
        lease: Duration,
    ) -> Result<Claim, BoxError> {
        let mut take_over = self.shared.scripts.take_over.key(key);
        take_over.arg(old).arg(fresh).arg(self.claimed_for(lease)).arg(self.kept_for());
        Ok(match self.run(&take_over).await? {
            0 => Claim::Granted { lapsed: true },
            left => {
                Claim::Busy(Wait::polling(POLL.min(Duration::from_millis(left.unsigned_abs()))))
            }
        })
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
        let fresh = [&fingerprint.to_be_bytes()[..], &claimed(token)].concat();
        let mut set = redis::cmd("SET");
        set.arg(&key).arg(&fresh).arg("NX").arg("GET").arg("PX").arg(self.claimed_for(lease));
        let Some(old) = self.ask::<Option<Vec<u8>>>(&set).await? else {
            return Ok(Claim::Granted { lapsed: false });
        };
        match (old.get(..16), old.get(16)) {
            (Some(own), Some(_)) if own != fingerprint.to_be_bytes() => Ok(Claim::Mismatch),
            (_, Some(b'D')) => Ok(Claim::Done(Bytes::from(old).slice(17..))),
            (_, Some(b'C')) => self.busy(&key, &old, &fresh, lease).await,
            _ => Err("what is at the key was not written by this store".into()),
        }
    }

    async fn finish(&self, key: &[u8], token: u128, record: &[u8]) -> Result<bool, BoxError> {
        let mut finish = self.shared.scripts.finish.key(self.call_key(key));
        finish.arg(&claimed(token)).arg(answered(record)).arg(self.kept_for());
        Ok(self.run(&finish).await? == 1)
    }

    async fn release(&self, key: &[u8], token: u128) -> Result<(), BoxError> {
        let mut release = self.shared.scripts.release.key(self.call_key(key));
        release.arg(&claimed(token));
        self.run(&release).await.map(drop)
    }

    fn instance(&self) -> usize {
        Arc::as_ptr(&self.shared) as usize
    }

    /// A hash of host, port, database and prefix; with the name of the machine, where the host is
    /// `localhost` or a socket.
    fn domain(&self) -> Option<String> {
        Some(self.shared.place.domain(&self.settings.prefix))
    }
}

impl State for RedisStore {
    async fn read(&self, key: &str) -> Result<Option<Bytes>, Status> {
        let get = Cmd::get(self.state_key(key));
        let value = self.ask::<Option<Vec<u8>>>(&get).await;
        Ok(value.map_err(|error| unavailable(&error))?.map(Bytes::from))
    }

    async fn update<T, F>(&self, keys: &[&str], change: F) -> Result<T, Status>
    where
        T: Message + 'static,
        F: Fn(&mut [Option<Bytes>]) -> Result<T, Status> + Send + Sync + 'static,
    {
        let Shared { scripts, changing, hasher, .. } = &*self.shared;
        let turn = hasher.hash_one(keys) as usize % changing.len();
        let _turn = changing[turn].lock().await;
        let execution = Execution::current(self.instance());
        let call = execution.as_ref().map(|execution| self.call_key(execution.key()));
        let token = execution.as_ref().map_or(0, |execution| execution.token());
        let names: Vec<String> = keys.iter().map(|key| self.state_key(key)).collect();
        loop {
            let get = self.ask::<Vec<Option<Vec<u8>>>>(&Cmd::mget(&names)).await;
            let before = get.map_err(|error| unavailable(&error))?;
            let mut values: Vec<_> =
                before.iter().cloned().map(|old| old.map(Bytes::from)).collect();
            let answer = change(&mut values)?;
            let mut script = scripts.change.key(call.as_deref().unwrap_or_default());
            script.arg(&claimed(token)).arg(answered(&record::of_message(&answer)));
            script.arg(self.kept_for());
            for ((name, old), new) in names.iter().zip(&before).zip(&values) {
                script.key(name).arg(present(old.as_deref())).arg(present(new.as_deref()));
            }
            match self.run(&script).await.map_err(|error| unavailable(&error))? {
                CHANGED => {
                    execution.iter().for_each(|execution| execution.set_answered());
                    return Ok(answer);
                }
                FENCED => return Err(fenced()),
                // Another process was faster.
                _ => sleep(Duration::from_millis(1)).await,
            }
        }
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("settings", &self.settings).finish_non_exhaustive()
    }
}

fn claimed(token: u128) -> [u8; 17] {
    let mut claimed = [b'C'; 17];
    claimed[1..].copy_from_slice(&token.to_be_bytes());
    claimed
}

fn answered(record: &[u8]) -> Vec<u8> {
    [b"D", record].concat()
}

/// A value as the change script takes it.
fn present(value: Option<&[u8]>) -> Vec<u8> {
    value.map_or_else(|| b"0".to_vec(), |value| [b"1", value].concat())
}

/// What went wrong, without a word of the server's: it repeats what it was sent, and what it does
/// not understand may be a password (`ERR unknown command 'HELLO', with args beginning with: …`).
fn said(error: &RedisError) -> String {
    match error.code() {
        _ if error.is_io_error() => format!("no connection to Redis: {error}"),
        Some(code) => format!("Redis answered {code}"),
        None => format!("Redis: {}", error.category()),
    }
}

fn unavailable(error: &BoxError) -> Status {
    Status::unavailable(format!("the state does not answer: {error}"))
}

fn at_least_1_ms(field: &'static str, value: Duration) -> Result<Duration, Invalid> {
    if value < Duration::from_millis(1) {
        return Err(Invalid::new(field, format!("{value:?}"), "at least 1ms"));
    }
    Ok(value)
}

#[cfg(test)]
mod tests;
