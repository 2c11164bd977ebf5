//! The state shared by all services of a layer.

use crate::{policies::Policies, warnings::UnsafeToRepeat};
use cinchona_core::{Methods, Rng, Switch};
use cinchona_plumbing::{Misplaced, ReplayBuffer};
use cinchona_policy::retry::{RetryThrottling, SharedBudget};
use std::sync::{Arc, Mutex, PoisonError};

/// The service to clone for further attempts: cloning it for every call would cost those that need
/// no other, which are most.
pub(crate) type Template<S> = Arc<Mutex<S>>;

/// The state shared by all services of a layer.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) policies: Policies,
    pub(crate) methods: Methods,
    pub(crate) rng: Rng,
    pub(crate) throttle: RetryThrottling,
    pub(crate) budget: SharedBudget,
    pub(crate) buffer: ReplayBuffer,
    pub(crate) switch: Switch,
    pub(crate) retries_of_retries: bool,
    pub(crate) explained: bool,
    pub(crate) unsafe_to_repeat: UnsafeToRepeat,
    pub(crate) misplaced: Misplaced,
}

/// A service for one more attempt. Code that holds the lock cannot panic, and does not wait.
pub(crate) fn clone_service<S: Clone>(template: &Template<S>) -> S {
    template.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
