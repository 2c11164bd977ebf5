//! How a call proceeds after a claim.

use super::{
    claim::{Claim, Wait},
    outcome::Guarantee,
};
use bytes::Bytes;
use std::time::Duration;

/// What happens to a call while another with the same key is being executed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum InFlight {
    /// It waits for the same answer, within its own deadline.
    #[default]
    Join,
    /// It gets `ABORTED`, with this time in `grpc-retry-pushback-ms`.
    Reject(Duration),
}

/// The settings that matter.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Whether calls are refused, waited for and answered, or only counted.
    pub enforces: bool,
    /// What happens to a call while another is executed.
    pub in_flight: InFlight,
    /// What happens after an execution with an unknown effect.
    pub guarantee: Guarantee,
    /// Whether calls are executed while the store fails.
    pub fails_open: bool,
}

/// How a call proceeds.
#[derive(Debug)]
pub enum Next<E> {
    /// It is executed under its claim.
    Execute,
    /// It is executed under its claim, and counted: it would be refused as `Unknown`, but the layer
    /// only observes.
    Observe,
    /// It has a claim, and an earlier one ended without a result: whether there was an effect is
    /// unknown, so it is refused.
    Unknown,
    /// It goes on without a claim, and is counted: the layer only observes.
    Pass,
    /// It claims again after this.
    Wait(Wait),
    /// It is answered by this record.
    Replay(Bytes),
    /// It is refused.
    Refuse(Refused),
    /// The store has failed: it goes on without a claim, or is refused.
    Failed {
        /// Why.
        error: E,
        /// Whether it goes on.
        passes: bool,
    },
}

/// Why a call is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Another with its key is being executed; after this long it may be tried again.
    InFlight(Duration),
    /// Its key was used for another request.
    Mismatch,
    /// It was answered, and the record was evicted.
    Evicted,
    /// No more calls can be remembered.
    Full,
}

/// How a call proceeds after this claim.
pub fn follow<E>(claim: Result<Claim, E>, rules: Rules) -> Next<E> {
    let claim = match claim {
        Ok(Claim::Granted { lapsed: true }) if rules.guarantee == Guarantee::AtMostOnce => {
            return if rules.enforces { Next::Unknown } else { Next::Observe };
        }
        Ok(Claim::Granted { .. }) => return Next::Execute,
        _ if !rules.enforces => return Next::Pass,
        Ok(claim) => claim,
        Err(error) => return Next::Failed { error, passes: rules.fails_open },
    };
    match (claim, rules.in_flight) {
        (Claim::Done(record), _) => Next::Replay(record),
        (Claim::Busy(wait), InFlight::Join) => Next::Wait(wait),
        (Claim::Busy(_), InFlight::Reject(wait)) => Next::Refuse(Refused::InFlight(wait)),
        (Claim::Mismatch, _) => Next::Refuse(Refused::Mismatch),
        (Claim::Evicted, _) => Next::Refuse(Refused::Evicted),
        (Claim::Full, _) => Next::Refuse(Refused::Full),
        (Claim::Granted { .. }, _) => Next::Execute,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules {
        enforces: true,
        in_flight: InFlight::Join,
        guarantee: Guarantee::AtMostOnce,
        fails_open: false,
    };
    const MS: Duration = Duration::from_millis(1);

    fn busy() -> Claim {
        Claim::Busy(Wait::polling(MS))
    }

    fn after(claim: Claim, rules: Rules) -> Next<()> {
        follow(Ok(claim), rules)
    }

    #[test]
    fn a_claim_that_was_granted_is_executed_unless_an_earlier_one_may_have_had_an_effect() {
        let least = Rules { guarantee: Guarantee::AtLeastOnce, ..RULES };
        for (lapsed, rules, is_executed) in
            [(false, RULES, true), (true, RULES, false), (false, least, true), (true, least, true)]
        {
            let next = after(Claim::Granted { lapsed }, rules);
            assert_eq!(matches!(next, Next::Execute), is_executed, "{lapsed} {rules:?}");
            assert_eq!(matches!(next, Next::Unknown), !is_executed, "{lapsed} {rules:?}");
        }
    }

    #[test]
    fn what_was_answered_is_replayed_and_what_is_in_flight_is_joined_or_refused() {
        let record = Bytes::from_static(b"answer");
        let next = after(Claim::Done(record.clone()), RULES);
        assert!(matches!(next, Next::Replay(replayed) if replayed == record));
        assert!(matches!(after(busy(), RULES), Next::Wait(_)));
        let rejecting = Rules { in_flight: InFlight::Reject(7 * MS), ..RULES };
        let next = after(busy(), rejecting);
        assert!(matches!(next, Next::Refuse(Refused::InFlight(wait)) if wait == 7 * MS));
        for (claim, why) in [
            (Claim::Mismatch, Refused::Mismatch),
            (Claim::Evicted, Refused::Evicted),
            (Claim::Full, Refused::Full),
        ] {
            assert!(matches!(after(claim, RULES), Next::Refuse(refused) if refused == why));
        }
    }

    #[test]
    fn a_store_that_fails_lets_calls_through_only_where_that_is_said() {
        for fails_open in [false, true] {
            let next = follow(Err("down"), Rules { fails_open, ..RULES });
            let Next::Failed { error: "down", passes } = next else { unreachable!("{next:?}") };
            assert_eq!(passes, fails_open);
        }
    }

    #[test]
    fn a_layer_that_only_observes_executes_what_is_granted_and_passes_everything_else() {
        let shadow = Rules { enforces: false, ..RULES };
        for claim in [Claim::Done(Bytes::new()), busy(), Claim::Mismatch, Claim::Evicted] {
            assert!(matches!(after(claim, shadow), Next::Pass));
        }
        assert!(matches!(follow(Err(()), shadow), Next::Pass));
        assert!(matches!(after(Claim::Granted { lapsed: false }, shadow), Next::Execute));
        assert!(matches!(after(Claim::Granted { lapsed: true }, shadow), Next::Observe));
    }
}
