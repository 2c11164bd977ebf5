//! The time limits of calls and attempts: by method, by kind of method, or for all.

use cinchona_core::{MethodKind, PerMethod};
use std::time::Duration;

/// A duration for each method: its own, else that of its kind, else that of all; `None` is
/// unlimited.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Times {
    pub(crate) all: Option<Duration>,
    pub(crate) kinds: [Option<Option<Duration>>; 4],
    pub(crate) methods: PerMethod<Option<Duration>>,
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_methods_own_limit_precedes_its_kinds_and_that_of_all() {
        let time = |seconds| Some(Duration::from_secs(seconds));
        let mut times = Times { all: time(1), ..Times::default() };
        times.set_kind(MethodKind::Bidi, None);
        times.methods.insert("a.B", "C", time(3)).unwrap();
        assert_eq!(times.of("/a.B/C", Some(MethodKind::Bidi)), time(3));
        assert_eq!(times.of("/a.B/D", Some(MethodKind::Bidi)), None);
        assert_eq!(times.of("/a.B/D", Some(MethodKind::Unary)), time(1));
        assert_eq!(times.of("/a.B/D", None), time(1));
    }
}
