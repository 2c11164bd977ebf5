//! The permanent settings, and a decision that depends only on them and the request.

use cinchona_core::{IDEMPOTENCY_KEY, Invalid};
use cinchona_plumbing::{
    code,
    headers::{self, REQUEST_ID},
    is_of_the_server,
    status::PREVIOUS_ATTEMPTS,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::time::Duration;
use tonic::Code;

/// Which faults are injected, how often, and into what; the default injects nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Faults {
    /// The share of requests that fail, 0 to 1. Default 0.
    pub failure_rate: f64,
    /// The code they fail with; any but `OK`. Default `UNAVAILABLE`.
    pub code: Code,
    /// The message they fail with. Default "simulated failure".
    pub message: String,
    /// Whether a request fails before it is executed, or after. Default before.
    pub when: When,
    /// The share of requests that are delayed, 0 to 1. Default 0.
    pub slow_rate: f64,
    /// The length of the delay. Default 3 s; `Duration::MAX`: without end.
    pub slow_delay: Duration,
    /// Decides, with the request's id or number, which requests are hit. Default 0.
    pub seed: u64,
    /// Prefixes of the paths that are eligible, such as `/calculator.Calculator/`; none for all.
    /// Default none.
    pub paths: Vec<String>,
    /// Whether health checks and reflection are eligible as well. Default false.
    pub health_too: bool,
}

/// When a request fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum When {
    /// It is answered without being executed.
    #[default]
    Before,
    /// It is executed, and its reply is discarded: the client sees the same.
    After,
}

/// What happens to one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) delay: Option<Duration>,
    pub(crate) fail: Option<When>,
}

/// The service that controls the rules: it must work whatever they are.
pub(crate) const CONTROL: &str = "/cinchona.fault.v1.FaultControl/";

/// The header with the id of a call.
static IDS: [HeaderName; 2] = [REQUEST_ID, IDEMPOTENCY_KEY];

// === impl Faults ===

impl Faults {
    /// A delay of `seconds`.
    ///
    /// # Errors
    /// When `seconds` is negative, not finite, or too long for a `Duration`.
    pub fn delay_from_secs(seconds: f64) -> Result<Duration, Invalid> {
        let invalid = |_| Invalid::new("slow_delay", seconds, "0 or more seconds, finite");
        Duration::try_from_secs_f64(seconds).map_err(invalid)
    }

    pub(crate) fn checked(self) -> Result<Self, Invalid> {
        for (field, rate) in [("failure_rate", self.failure_rate), ("slow_rate", self.slow_rate)] {
            if !(0.0..=1.0).contains(&rate) {
                return Err(Invalid::new(field, rate, "0 to 1"));
            }
        }
        if self.code == Code::Ok {
            return Err(Invalid::new("code", code::name(self.code), "any code but OK"));
        }
        Ok(self)
    }

    /// Whether nothing is ever injected.
    pub(crate) fn is_none(&self) -> bool {
        self.failure_rate == 0.0 && self.slow_rate == 0.0
    }

    /// Whether a request to `path` is eligible at all.
    pub(crate) fn concern(&self, path: &str) -> bool {
        if path.starts_with(CONTROL) {
            return false;
        }
        let health = is_of_the_server(path);
        let listed = self.paths.iter().any(|prefix| path.starts_with(&**prefix));
        (self.health_too || !health) && (self.paths.is_empty() || listed)
    }

    /// The decision for a request with these headers, the `number`th to arrive.
    ///
    /// The two draws are independent. A request hit by both is delayed first and then fails, as in
    /// gRFC A33.
    pub(crate) fn plan(&self, path: &str, headers: &HeaderMap, number: u64) -> Plan {
        if self.is_none() {
            return Plan::default();
        }
        let request = identity(path, headers, number);
        let hits = |rate: f64, kind: &str| rate > 0.0 && draw(self.seed, request, kind) < rate;
        Plan {
            delay: hits(self.slow_rate, "slow").then_some(self.slow_delay),
            fail: hits(self.failure_rate, "fail").then_some(self.when),
        }
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            failure_rate: 0.0,
            code: Code::Unavailable,
            message: "simulated failure".to_owned(),
            when: When::Before,
            slow_rate: 0.0,
            slow_delay: Duration::from_secs(3),
            seed: 0,
            paths: Vec::new(),
            health_too: false,
        }
    }
}

/// A uniform number in 0..1: the upper 53 bits of the hash.
pub(crate) fn draw(seed: u64, request: u64, kind: &str) -> f64 {
    let hash = finish(fnv(finish(seed) ^ request, kind.as_bytes()));
    (hash >> 11) as f64 / (1u64 << 53) as f64
}

/// The id that the request carries, if any.
pub(crate) fn id(headers: &HeaderMap) -> Option<&HeaderValue> {
    IDS.iter().find_map(|name| headers::get(headers, name))
}

/// A request with an id is identified by it and by its attempt, so that neither other requests nor
/// their order affect its faults; one without, by its number.
pub(crate) fn identity(path: &str, headers: &HeaderMap, number: u64) -> u64 {
    let path = fnv(FNV_OFFSET, path.as_bytes());
    match id(headers) {
        Some(id) => {
            let attempt = headers::get(headers, &PREVIOUS_ATTEMPTS);
            let attempt = attempt.map_or(&b""[..], HeaderValue::as_bytes);
            // The zero byte keeps the id and the attempt apart.
            fnv(fnv(fnv(path, id.as_bytes()), &[0]), attempt)
        }
        None => fnv(path, &number.to_le_bytes()),
    }
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, so that a seed means the same on every platform and in every version.
fn fnv(state: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(state, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// The finaliser of splitmix64: FNV alone leaves the upper bits of short inputs alike.
const fn finish(mut hash: u64) -> u64 {
    hash = hash.wrapping_add(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ADD: &str = "/calculator.Calculator/Add";

    fn both(failure_rate: f64, slow_rate: f64, seed: u64) -> Faults {
        Faults { failure_rate, slow_rate, seed, ..Faults::default() }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let value = |text: &&str| text.parse::<HeaderValue>().unwrap();
        pairs
            .iter()
            .map(|(name, text)| (http::HeaderName::from_static(name), value(text)))
            .collect()
    }

    fn numbered(faults: &Faults, numbers: impl Iterator<Item = u64>) -> Vec<Plan> {
        numbers.map(|number| faults.plan(ADD, &HeaderMap::new(), number)).collect()
    }

    #[test]
    fn the_rates_are_as_configured_and_independent() {
        for seed in 0..5 {
            let plans = numbered(&both(0.3, 0.2, seed), 0..20_000);
            let share = |hit: fn(&Plan) -> bool| {
                plans.iter().filter(|plan| hit(plan)).count() as f64 / plans.len() as f64
            };
            // Four standard deviations of a share of 0.3 are 0.013.
            assert!((share(|plan| plan.fail.is_some()) - 0.3).abs() < 0.013);
            assert!((share(|plan| plan.delay.is_some()) - 0.2).abs() < 0.013);
            let two = share(|plan| plan.fail.is_some() && plan.delay.is_some());
            assert!((two - 0.06).abs() < 0.008, "{two}");
        }
    }

    #[test]
    fn a_seed_means_the_same_in_every_version() {
        let hit = |seed| {
            let plans = numbered(&both(0.5, 0.0, seed), 0..16);
            plans.iter().map(|plan| u32::from(plan.fail.is_some()).to_string()).collect::<String>()
        };
        assert_eq!(hit(7), hit(7));
        assert_ne!(hit(7), hit(8));
        assert_eq!(hit(7), "1101011011000011");
    }

    #[test]
    fn a_request_with_an_id_does_not_depend_on_its_number() {
        let faults = both(0.5, 0.5, 7);
        for id in 0..100 {
            let id = headers(&[("x-request-id", &id.to_string())]);
            assert_eq!(faults.plan(ADD, &id, 1), faults.plan(ADD, &id, 2));
        }
    }

    #[test]
    fn each_attempt_is_drawn_anew() {
        let faults = both(0.5, 0.0, 7);
        let attempts = ["", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11"];
        let plans = attempts.map(|attempt| {
            let call =
                headers(&[("idempotency-key", "k"), ("grpc-previous-rpc-attempts", attempt)]);
            faults.plan(ADD, &call, 0).fail.is_some()
        });
        assert!(plans.contains(&true) && plans.contains(&false), "{plans:?}");
    }

    #[test]
    fn health_reflection_and_other_paths_are_exempt() {
        let faults = Faults { paths: vec!["/calculator.".into()], ..both(1.0, 1.0, 0) };
        assert!(faults.concern(ADD));
        assert!(!faults.concern("/other.Service/Call"));
        let all = Faults { paths: Vec::new(), ..faults };
        assert!(all.concern("/other.Service/Call"));
        for exempt in ["/grpc.health.v1.Health/Check", "/grpc.reflection.v1.ServerReflection/Info"]
        {
            assert!(!all.concern(exempt));
            assert!(Faults { health_too: true, ..all.clone() }.concern(exempt));
        }
    }

    #[test]
    fn values_out_of_range_are_refused_by_name() {
        for (faults, said) in [
            (both(1.1, 0.0, 0), "failure_rate: 1.1 is not allowed"),
            (both(f64::NAN, 0.0, 0), "failure_rate: NaN"),
            (both(0.0, -0.1, 0), "slow_rate: -0.1"),
            (Faults { code: Code::Ok, ..Faults::default() }, "code: OK"),
        ] {
            let error = faults.checked().unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        for seconds in [-1.0, f64::NAN, f64::INFINITY] {
            let error = Faults::delay_from_secs(seconds).unwrap_err().to_string();
            assert!(error.starts_with("slow_delay: "), "{error}");
        }
        assert_eq!(Faults::delay_from_secs(0.25), Ok(Duration::from_millis(250)));
    }

    proptest! {
        #[test]
        fn rate_0_never_hits_and_rate_1_always(
            id in "[ -~]{0,40}", path in ".*", number: u64, seed: u64,
        ) {
            let id = headers(&[("x-request-id", &id)]);
            prop_assert_eq!(both(0.0, 0.0, seed).plan(&path, &id, number), Plan::default());
            let plan = both(1.0, 1.0, seed).plan(&path, &id, number);
            prop_assert!(plan.fail.is_some() && plan.delay.is_some());
        }
    }
}
