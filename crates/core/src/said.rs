//! The properties of a call in its request: in its records, its extensions, its headers.

use crate::{Call, Deadline, Invalid, MethodKind, ServerContext};
use cinchona_plumbing::Paths;
use tokio::time::Instant;

// === impl Deadline ===

impl Deadline {
    /// The deadline from a layer further out ([`Call::deadline`]), or from the request's
    /// extensions, or else from `grpc-timeout` if the call begins `now`; `None` if that is
    /// [unlimited](Self::within).
    ///
    /// # Errors
    /// [`Invalid`] when `grpc-timeout` is malformed.
    pub fn of<B>(request: &http::Request<B>, now: Instant) -> Result<Option<Self>, Invalid> {
        if let Some(deadline) = Self::handed_on(request) {
            return Ok(Some(deadline));
        }
        Ok(Self::parse_timeout(request.headers())?.and_then(|timeout| Self::within(timeout, now)))
    }

    /// The deadline from a layer further out, or from the caller in the request's extensions; for a
    /// request that is being served, that of its record.
    pub fn handed_on<B>(request: &http::Request<B>) -> Option<Self> {
        let of_call = Call::find(request).and_then(Call::deadline);
        let said = of_call.or_else(|| request.extensions().get().copied());
        said.or_else(|| ServerContext::find(request)?.deadline)
    }
}

// === impl MethodKind ===

impl MethodKind {
    /// What the method of `request` streams: from its record, or its extensions, or else `kinds`.
    #[inline]
    pub fn of<B>(request: &http::Request<B>, kinds: &Paths<Self>) -> Option<Self> {
        Self::said_by(request).or_else(|| kinds.get(request.uri().path()).copied())
    }

    fn said_by<B>(request: &http::Request<B>) -> Option<Self> {
        let extensions = request.extensions();
        if extensions.is_empty() {
            return None;
        }
        let served = ServerContext::find(request).and_then(|served| served.kind);
        let called = || Call::find(request).and_then(Call::kind);
        served.or_else(called).or_else(|| extensions.get().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Methods;

    #[test]
    fn a_kind_is_known_by_path_or_from_the_request() {
        let kinds = Methods::all_kinds(None);
        let mut request = http::Request::new(());
        for (path, kind) in [
            ("/grpc.health.v1.Health/Watch", Some(MethodKind::ServerStreaming)),
            ("/grpc.health.v1.Health/Check", Some(MethodKind::Unary)),
            ("/grpc.health.v1.Health/Other", None),
            ("/", None),
        ] {
            *request.uri_mut() = path.parse().unwrap();
            assert_eq!(MethodKind::of(&request, &kinds), kind, "{path}");
        }
        request.extensions_mut().insert(MethodKind::Bidi);
        assert_eq!(MethodKind::of(&request, &kinds), Some(MethodKind::Bidi));
        let served = ServerContext::of(&mut request, Instant::now);
        served.kind = Some(MethodKind::Unary);
        assert_eq!(MethodKind::of(&request, &kinds), Some(MethodKind::Unary));
    }
}
