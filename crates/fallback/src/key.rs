//! The key of a request: all of it that the server could depend on.

use bytes::Bytes;
use cinchona_core::{IDEMPOTENCY_KEY, Invalid, Safety};
use cinchona_plumbing::Callback;
use http::{
    HeaderMap, HeaderName,
    header::{self, CACHE_CONTROL},
    request::Parts,
};
use smallvec::SmallVec;
use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

/// All that distinguishes a request from others, in full: hashes can collide.
pub(crate) type Key = Box<[u8]>;

/// Which parts of a request are compared.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Compared {
    ignored: Vec<HeaderName>,
    caller: Option<Caller>,
}

/// Identifies callers whose metadata are the same.
#[derive(Clone, PartialEq)]
pub(crate) struct Caller(Callback<NameOf>);

type NameOf = dyn Fn(&Parts) -> Option<Vec<u8>> + Send + Sync;

// === impl Compared ===

impl Compared {
    /// Refuses metadata that identifies callers in every service, or says how to read messages.
    pub(crate) fn ignore(&mut self, name: HeaderName) -> Result<(), Invalid> {
        const ALLOWED: &str =
            "metadata that neither names the caller nor says how to read messages";
        if is_essential(&name) {
            return Err(Invalid::new("ignored", name, ALLOWED));
        }
        self.ignored.push(name);
        Ok(())
    }

    pub(crate) fn name_callers(&mut self, caller: Caller) {
        self.caller = Some(caller);
    }

    /// The key of a request to `service`, one of those that the layer was applied to; `None` if the
    /// caller is unknown. Each part has its length as a prefix, so that keys are unambiguous.
    pub(crate) fn key(
        &self,
        service: u64,
        safety: Safety,
        parts: &Parts,
        message: &Bytes,
    ) -> Option<Key> {
        let caller = match &self.caller {
            Some(caller) => caller.of(parts)?,
            None => Vec::new(),
        };
        let mut key = Vec::with_capacity(256 + message.len());
        let mut put = |part: &[u8]| {
            key.extend_from_slice(&part.len().to_le_bytes());
            key.extend_from_slice(part);
        };
        put(&service.to_le_bytes());
        put(parts.method.as_str().as_bytes());
        put(parts.uri.scheme_str().unwrap_or("").as_bytes());
        put(parts.uri.authority().map_or("", |authority| authority.as_str()).as_bytes());
        put(parts.uri.path_and_query().map_or("", |path| path.as_str()).as_bytes());
        let names = self.names(safety, &parts.headers);
        put(&names.len().to_le_bytes());
        for name in names {
            let values = parts.headers.get_all(name);
            put(name.as_str().as_bytes());
            put(&values.iter().count().to_le_bytes());
            values.iter().for_each(|value| put(value.as_bytes()));
        }
        put(&caller);
        put(message);
        Some(key.into())
    }

    /// Sorted: the order of different names is irrelevant.
    fn names<'a>(&self, safety: Safety, headers: &'a HeaderMap) -> SmallVec<[&'a HeaderName; 16]> {
        let mut names: SmallVec<_> =
            headers.keys().filter(|name| !self.is_ignored(name, safety)).collect();
        names.sort_unstable_by(|a: &&HeaderName, b| a.as_str().cmp(b.as_str()));
        names
    }

    fn is_ignored(&self, name: &HeaderName, safety: Safety) -> bool {
        // Without side effects, the idempotency key is irrelevant.
        is_of_one_call(name)
            || (*name == IDEMPOTENCY_KEY && safety == Safety::NoSideEffects)
            || self.ignored.contains(name)
    }
}

/// Whether `name` is of the single call, or of the library: the answer does not depend on it.
/// `baggage` is not one of these, as it carries application data, such as tenants.
fn is_of_one_call(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "grpc-timeout"
            | "grpc-previous-rpc-attempts"
            | "user-agent"
            | "cache-control"
            | "pragma"
            | "x-request-id"
            | "traceparent"
            | "tracestate"
            | "grpc-trace-bin"
            | "b3"
            | "x-b3-traceid"
            | "x-b3-spanid"
            | "x-b3-parentspanid"
            | "x-b3-sampled"
            | "x-b3-flags"
    )
}

fn is_essential(name: &HeaderName) -> bool {
    const ESSENTIAL: [HeaderName; 5] = [
        header::AUTHORIZATION,
        header::PROXY_AUTHORIZATION,
        header::COOKIE,
        header::HOST,
        header::CONTENT_TYPE,
    ];
    ESSENTIAL.contains(name) || matches!(name.as_str(), "grpc-encoding" | "grpc-accept-encoding")
}

/// Whether `cache-control` forbids keeping the message with it, or replaying it without asking the
/// server (RFC 9111, 5.2).
pub(crate) fn forbids_keeping(headers: &HeaderMap) -> bool {
    let values = headers.get_all(CACHE_CONTROL).iter();
    values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).any(|directive| {
        let name = directive.split(|byte| *byte == b'=').next().unwrap_or(directive).trim_ascii();
        ["no-store", "no-cache", "must-revalidate"]
            .iter()
            .any(|forbids| name.eq_ignore_ascii_case(forbids.as_bytes()))
    })
}

// === impl Caller ===

impl Caller {
    pub(crate) fn new<K: Into<Vec<u8>>>(
        caller: impl Fn(&Parts) -> Option<K> + Send + Sync + 'static,
    ) -> Self {
        Self(Callback(Arc::new(move |parts| caller(parts).map(Into::into))))
    }

    /// The caller; `None` if the user's function panics.
    fn of(&self, parts: &Parts) -> Option<Vec<u8>> {
        catch_unwind(AssertUnwindSafe(|| (self.0)(parts))).unwrap_or_else(|_| {
            tracing::warn!(
                rpc.method = parts.uri.path(),
                "the function that names callers panicked: this call's answer is not kept"
            );
            None
        })
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller").finish_non_exhaustive()
    }
}
