//! A layer that runs, and its decision for one request.

use crate::{
    Faults, Rules,
    counters::Counted,
    plan::{self, Plan},
    rule::Asked,
    rules::Hit,
};
use cinchona_core::{Mode, Switch};
use cinchona_plumbing::code;
use std::time::Duration;

/// A layer that runs.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    pub(crate) faults: Faults,
    pub(crate) rules: Option<Rules>,
    pub(crate) counted: Counted,
    pub(crate) switch: Switch,
    pub(crate) is_marking: bool,
    /// Below a client, a fault of the connection is an error of the call.
    pub(crate) is_client: bool,
}

/// The decision for one request.
#[derive(Default)]
pub(crate) struct Fate {
    pub(crate) is_counted: bool,
    pub(crate) plan: Plan,
    pub(crate) hit: Option<Box<Hit>>,
}

// === impl Running ===

impl Running {
    /// Whether nothing can be injected now, into any request.
    pub(crate) fn is_idle(&self) -> bool {
        self.faults.is_none() && self.rules.as_ref().is_none_or(Rules::is_idle)
    }

    /// Counts a request to `path` into which nothing is injected; returns whether it is eligible.
    pub(crate) fn pass(&self, path: &str) -> bool {
        let (cells, is_counted) = (self.counted.cells(), self.faults.concern(path));
        let cell = if is_counted { &cells.passed } else { &cells.exempt };
        cell.count();
        is_counted
    }

    pub(crate) fn fate<B>(&self, request: &http::Request<B>, mode: Mode) -> Fate {
        let (path, headers) = (request.uri().path(), request.headers());
        let cells = self.counted.cells();
        let is_concerned = self.faults.concern(path);
        let mut plan = Plan::default();
        if is_concerned {
            plan = self.faults.plan(path, headers, cells.requests.count());
        }
        if mode == Mode::Shadow && plan != Plan::default() {
            self.switch.count();
            plan = Plan::default();
        }
        let extensions = request.extensions();
        let asked = Asked { path, headers, extensions, is_failing: plan.fail.is_some() };
        let hit = self.rules.as_ref().and_then(|rules| rules.draw(asked, mode, cells));
        let is_counted = is_concerned || hit.is_some();
        let cell = if is_counted { &cells.matched } else { &cells.exempt };
        cell.count();
        Fate { is_counted, plan, hit }
    }

    pub(crate) fn report<B>(&self, request: &http::Request<B>, fate: &Fate) {
        let Fate { plan: Plan { delay, fail }, hit, .. } = fate;
        if delay.is_none() && fail.is_none() && hit.is_none() {
            return;
        }
        tracing::debug!(
            rpc.method = request.uri().path(),
            request_id = plan::id(request.headers()).and_then(|id| id.to_str().ok()),
            delay = fate.delay().map(tracing::field::debug),
            code = fail.map(|_| code::name(self.faults.code)),
            when = fail.map(tracing::field::debug),
            rules = hit.as_ref().map(|hit| tracing::field::debug(&hit.ids)),
            "injecting a fault"
        );
    }
}

// === impl Fate ===

impl Fate {
    /// How long the request waits before it is executed or answered.
    pub(crate) fn delay(&self) -> Option<Duration> {
        let ruled = self.hit.as_ref().map(|hit| hit.before).filter(|before| !before.is_zero());
        match (self.plan.delay, ruled) {
            (Some(one), Some(other)) => Some(one.saturating_add(other)),
            (one, other) => one.or(other),
        }
    }
}
