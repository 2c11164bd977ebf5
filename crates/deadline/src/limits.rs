//! How long calls and attempts may take: by method, by kind of method, or all alike.

use cinchona_core::{Call, MethodKind, Methods, PerMethod};
use hashbrown::HashMap;
use std::{sync::Arc, time::Duration};

/// A duration for each method: its own, else that of its kind, else that of all; `None` is for
/// ever.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times {
    pub(crate) all: Option<Duration>,
    pub(crate) kinds: [Option<Option<Duration>>; 4],
    pub(crate) methods: PerMethod<Option<Duration>>,
}

/// What methods stream, by length of the path and then the path: that is as fast to look up as can
/// be, and is done for every call.
#[derive(Clone, Debug)]
pub(crate) struct Kinds(Arc<HashMap<Box<str>, MethodKind>>);

// === impl Times ===

impl Times {
    pub(crate) const fn set_kind(&mut self, kind: MethodKind, time: Option<Duration>) {
        self.kinds[kind as usize] = Some(time);
    }

    pub(crate) fn of(&self, path: &str, kind: Option<MethodKind>) -> Option<Duration> {
        let own = self.methods.get(path).copied();
        let of_kind = || kind.and_then(|kind| self.kinds[kind as usize]);
        own.or_else(of_kind).unwrap_or(self.all)
    }
}

// === impl Kinds ===

impl Kinds {
    /// What `methods` say, and else whatever this process has read.
    pub(crate) fn new(methods: Option<&Methods>) -> Self {
        let mut known = (*Methods::known_kinds()).clone();
        let own = methods.into_iter().flat_map(Methods::kinds);
        known.extend(own.map(|(path, kind)| (path.to_owned(), kind)));
        Self(Arc::new(
            known.into_iter().map(|(path, kind)| (path.into_boxed_str(), kind)).collect(),
        ))
    }

    /// What the request says that its method streams, or what is known of it.
    pub(crate) fn of<B>(&self, request: &http::Request<B>) -> Option<MethodKind> {
        let of_call = Call::find(request).and_then(Call::kind);
        let said = of_call.or_else(|| request.extensions().get().copied());
        said.or_else(|| self.0.get(request.uri().path()).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_methods_own_time_comes_first_then_its_kinds_then_that_of_all() {
        let time = |seconds| Some(Duration::from_secs(seconds));
        let mut times = Times { all: time(1), ..Times::default() };
        times.set_kind(MethodKind::Bidi, None);
        times.methods.insert("a.B", "C", time(3)).unwrap();
        assert_eq!(times.of("/a.B/C", Some(MethodKind::Bidi)), time(3));
        assert_eq!(times.of("/a.B/D", Some(MethodKind::Bidi)), None);
        assert_eq!(times.of("/a.B/D", Some(MethodKind::Unary)), time(1));
        assert_eq!(times.of("/a.B/D", None), time(1));
    }

    #[test]
    fn a_kind_is_known_by_path_or_said_by_the_request() {
        let kinds = Kinds::new(None);
        let mut request = http::Request::new(());
        for (path, kind) in [
            ("/grpc.health.v1.Health/Watch", Some(MethodKind::ServerStreaming)),
            ("/grpc.health.v1.Health/Check", Some(MethodKind::Unary)),
            ("/grpc.health.v1.Health/Other", None),
            ("/", None),
        ] {
            *request.uri_mut() = path.parse().unwrap();
            assert_eq!(kinds.of(&request), kind, "{path}");
        }
        request.extensions_mut().insert(MethodKind::Bidi);
        assert_eq!(kinds.of(&request), Some(MethodKind::Bidi));
    }
}
