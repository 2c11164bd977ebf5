//! The policies of a layer while it runs, and what its calls teach those that hedge by load.

use cinchona_core::PerMethod;
use cinchona_plumbing::Reloadable;
use cinchona_policy::retry::{AdaptiveDelay, HedgePolicy, Kind, Policy};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::time::Instant;

/// A policy, and what its calls have shown if it hedges by an extra load.
#[derive(Clone, Debug, Default)]
pub(crate) struct RunningPolicy {
    pub(crate) policy: Policy,
    pub(crate) adaptive: Option<Arc<AdaptiveDelay>>,
}

/// The policies of a layer: for each method, and of single calls.
#[derive(Debug)]
pub(crate) struct Policies {
    by_method: Reloadable<PerMethod<RunningPolicy>>,
    /// What calls with a policy of their own have shown, for each policy by an extra load.
    of_calls: Mutex<Vec<(HedgePolicy, Arc<AdaptiveDelay>)>>,
}

/// Callers may make up any number of policies: those beyond learn nothing, and never hedge by load.
const MOST: usize = 100;

// === impl RunningPolicy ===

impl RunningPolicy {
    /// One that has learned nothing yet.
    fn new(policy: &Policy) -> Self {
        let adaptive = match policy.kind() {
            Kind::Hedge(hedge) => AdaptiveDelay::of(hedge, Instant::now()).map(Arc::new),
            Kind::Once | Kind::Retry(_) => None,
        };
        Self { policy: policy.clone(), adaptive }
    }
}

// === impl Policies ===

impl Policies {
    pub(crate) fn new(policies: &PerMethod<Policy>) -> Self {
        let by_method = Reloadable::new(policies.map(RunningPolicy::new));
        Self { by_method, of_calls: Mutex::default() }
    }

    /// Replaces those of the methods. Without a change they keep what they have learned.
    pub(crate) fn set(&self, policies: &PerMethod<Policy>) {
        if self.by_method.get().map(|running| running.policy.clone()) != *policies {
            self.by_method.set(policies.map(RunningPolicy::new));
        }
    }

    /// That of a call of the method at `path`, which may bring its `own`.
    pub(crate) fn get(&self, path: &str, own: Option<Policy>) -> RunningPolicy {
        match own {
            Some(policy) => self.of_call(policy),
            None => self.by_method.get().get(path).cloned().unwrap_or_default(),
        }
    }

    fn of_call(&self, policy: Policy) -> RunningPolicy {
        let adaptive = match policy.kind() {
            Kind::Hedge(hedge) if hedge.is_adaptive() => self.learned_by_calls(hedge),
            _ => None,
        };
        RunningPolicy { policy, adaptive }
    }

    /// Only a call with its own policy by an extra load takes the lock.
    fn learned_by_calls(&self, hedge: &HedgePolicy) -> Option<Arc<AdaptiveDelay>> {
        let mut known = self.of_calls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, learned)) = known.iter().find(|(policy, _)| policy == hedge) {
            return Some(learned.clone());
        }
        if known.len() == MOST {
            return None;
        }
        let new = Arc::new(AdaptiveDelay::of(hedge, Instant::now())?);
        known.push((hedge.clone(), new.clone()));
        Some(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_hundred_policies_of_single_calls_learn_and_no_more() {
        let policies = Policies::new(&PerMethod::new());
        let learned = |load: u32| {
            let hedge = HedgePolicy::default().with_extra_load(f64::from(load) / 1000.0).unwrap();
            policies.get("/a.B/C", Some(hedge.into())).adaptive
        };
        let first = learned(1).unwrap();
        assert!((2..=100).all(|load| learned(load).is_some()));
        assert!(learned(101).is_none());
        assert!(Arc::ptr_eq(&first, &learned(1).unwrap()), "those before keep theirs");
    }
}
