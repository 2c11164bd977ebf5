//! What methods stream.

use cinchona_core::{Call, MethodKind, Methods};
use std::sync::Arc;

/// What methods stream, by length of the path and then the path: that is as fast to look up as can
/// be, and is done for every call.
#[derive(Clone, Debug)]
pub(crate) struct Kinds(Arc<[(Box<str>, MethodKind)]>);

// === impl Kinds ===

impl Kinds {
    /// What `methods` say, and else whatever this process has read.
    pub(crate) fn new(methods: Option<&Methods>) -> Self {
        let mut known = (*Methods::known_kinds()).clone();
        let own = methods.into_iter().flat_map(Methods::kinds);
        known.extend(own.map(|(path, kind)| (path.to_owned(), kind)));
        let boxed = |(path, kind): (String, MethodKind)| (path.into_boxed_str(), kind);
        let mut kinds: Vec<_> = known.into_iter().map(boxed).collect();
        kinds.sort_unstable_by(|(a, _), (b, _)| key(a).cmp(&key(b)));
        Self(kinds.into())
    }

    /// What the request says that its method streams, or what is known of it.
    pub(crate) fn of<B>(&self, request: &http::Request<B>) -> Option<MethodKind> {
        let of_call = Call::find(request).and_then(Call::kind);
        let said = of_call.or_else(|| request.extensions().get().copied());
        said.or_else(|| {
            let wanted = key(request.uri().path());
            let found = self.0.binary_search_by(|(path, _)| key(path).cmp(&wanted));
            found.ok().and_then(|found| self.0.get(found)).map(|(_, kind)| *kind)
        })
    }
}

const fn key(path: &str) -> (usize, &str) {
    (path.len(), path)
}
