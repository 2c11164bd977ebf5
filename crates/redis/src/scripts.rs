//! The Lua scripts, which Redis runs atomically.
//!
//! The value at a call's key: the fingerprint in 16 bytes; then `C` and the token, or `D` and the
//! record.

use redis::Script;

/// All of them, each with its hash.
#[derive(Debug)]
pub(crate) struct Scripts {
    /// Takes over a claim whose lease has ended; otherwise returns its remaining time, in ms.
    pub(crate) take_over: Source,
    pub(crate) finish: Source,
    /// Ends claims; for each, whether it existed.
    pub(crate) release: Source,
    pub(crate) change: Source,
    /// Changes nothing, but succeeds only where a change is possible.
    pub(crate) probe: Source,
}

/// A script, sent by its hash, and in full if the server does not know that.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) text: &'static str,
    pub(crate) hash: String,
}

/// The third argument is the remaining time of a key once its lease has ended.
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
local ended = {}
for i = 1, #KEYS do
  local v = redis.call('GET', KEYS[i])
  ended[i] = 0
  if v and v:sub(17) == ARGV[i] then ended[i] = redis.call('DEL', KEYS[i]) end
end
return ended";

/// The first key is the call's, if the first argument is not empty. Each other key has two
/// arguments after the first three: the value that it must have, and the new one; each is a `1` and
/// the value, or `0` for none. Nothing is written unless all of it is allowed (`ACL`): Redis checks
/// each write only as it executes it, and rolls none back. Redis before version 7 cannot be asked
/// for that.
const CHANGE: &str = "\
local v = false
local first = 1
local allows = redis.acl_check_cmd or function() return true end
if ARGV[1] ~= '' then
  v = redis.call('GET', KEYS[1])
  if not v or v:sub(17) ~= ARGV[1] then return 0 end
  first = 2
end
for i = first, #KEYS do
  local now = redis.call('GET', KEYS[i])
  if (now and '1' .. now or '0') ~= ARGV[2 * (i - first) + 4] then return 2 end
  local write = ARGV[2 * (i - first) + 5] == '0' and { 'DEL', KEYS[i] } or { 'SET', KEYS[i], '' }
  if not allows(unpack(write)) then
    return redis.error_reply('NOPERM a change needs ' .. write[1])
  end
end
if v and not allows('SET', KEYS[1], '') then
  return redis.error_reply('NOPERM a record needs SET')
end
for i = first, #KEYS do
  local new = ARGV[2 * (i - first) + 5]
  if new == '0' then redis.call('DEL', KEYS[i]) else redis.call('SET', KEYS[i], new:sub(2)) end
end
if v then redis.call('SET', KEYS[1], v:sub(1, 16) .. ARGV[2], 'PX', ARGV[3]) end
return 1";

/// Redis refuses a script without the flag `no-writes` before it runs where writes are impossible
/// (`READONLY`, `MASTERDOWN`, `NOREPLICAS`, `MISCONF`, `OOM`).
const PROBE: &str = "#!lua\nreturn 1";

/// The results of the change script.
pub(crate) const FENCED: i64 = 0;
pub(crate) const CHANGED: i64 = 1;

// === impl Scripts ===

impl Scripts {
    pub(crate) fn new() -> Self {
        let source = |text| Source { text, hash: Script::new(text).get_hash().to_owned() };
        Self {
            take_over: source(TAKE_OVER),
            finish: source(FINISH),
            release: source(RELEASE),
            change: source(CHANGE),
            probe: source(PROBE),
        }
    }

    /// The scripts loaded into a server before its first request.
    pub(crate) fn all(&self) -> [&Source; 4] {
        [&self.take_over, &self.finish, &self.release, &self.change]
    }
}

pub(crate) fn claimed(token: u128) -> [u8; 17] {
    let mut claimed = [b'C'; 17];
    claimed[1..].copy_from_slice(&token.to_be_bytes());
    claimed
}

pub(crate) fn answered(record: &[u8]) -> Vec<u8> {
    [b"D", record].concat()
}

/// A value as an argument of the change script.
pub(crate) fn present(value: Option<&[u8]>) -> Vec<u8> {
    value.map_or_else(|| b"0".to_vec(), |value| [b"1", value].concat())
}
