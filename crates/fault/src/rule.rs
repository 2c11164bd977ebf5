//! One rule: which calls it hits, how often, and with what.

mod drawn;
mod parse;
mod scope;
mod show;
mod words;

pub(crate) use scope::Asked;

use crate::When;
use http::HeaderName;
use std::{
    net::IpAddr,
    num::{NonZeroU64, NonZeroUsize},
    ops::RangeInclusive,
    time::Duration,
};
use tonic::Code;

/// A fault, and the requests that it hits: words separated by blanks, in any order.
///
/// | word | meaning | default |
/// |---|---|---|
/// | `method=/a.B/C`, `/a.B/*`, `*` | a method, all of a service, or any | any |
/// | `metadata.KEY=VALUE` | the request's metadata, all of those named; a last `*` is any rest | |
/// | `caller=10.0.0.7`, `10.0.0.7:4242` | the peer's address | any |
/// | `attempt=1`, `2..3`, `2..` | which attempt it is: `grpc-previous-rpc-attempts` + 1 | any |
/// | `health` | health checks and reflection may be hit as well | not |
/// | `rate=0.3`, `30%` | the share that is hit, drawn by the seed | all |
/// | `every=N` | of the requests that match, each Nth | each |
/// | `first=N` | only the first N are hit | all |
/// | `window=10s..20s`, `10s..` | the time since the rule was set | always |
/// | `ttl=60s`, `none` | how long the rule lives; `none` for no limit | unset |
/// | `when=before`, `after` | before it is executed, or after, discarding the reply | before |
/// | `delay=100ms` | a wait | none |
/// | `delay=50ms..200ms` | a uniform one | |
/// | `delay=normal:100ms:20ms` | by mean and standard deviation, never below 0 | |
/// | `delay=lognormal:20ms:400ms` | by p50 and p99 | |
///
/// and, beside or instead of a delay, one of
///
/// | word | effect |
/// |---|---|
/// | `status=CODE`, `CODE:"message"` | that status; by `details=BASE64` with details |
/// | `mix=CODE:WEIGHT,CODE:WEIGHT` | one of these, by weight; `message="..."` for all |
/// | `hang` | never an answer |
/// | `hang=headers` | headers, then nothing |
/// | `cut=N`, `N:CODE`, `N:drop` | after N messages a reset (`INTERNAL_ERROR`), or a drop |
/// | `reset=CODE` | `RST_STREAM` with an HTTP/2 code, before any headers |
/// | `drop` | the connection is lost, with every call on it |
/// | `goaway` | `GOAWAY`: the call is refused, later ones use another connection; others end
///   normally |
/// | `goaway=CODE` | `GOAWAY` with an HTTP/2 error code: the connection and all its calls are lost
///   |
/// | `trailers=missing`, `bad-status`, `bad-message`, `bad-details` | of the reply's trailers |
/// | `drip=16/50ms` | the reply is sent in pieces of so many bytes, at this interval |
/// | `panic` | the handler's task panics |
///
/// Durations are decimal with `h`, `m`, `s`, `ms`, `us` or `ns`, up to `8760h`; rates are 0 to 1 or
/// 0% to 100%; codes are by name (`UNAVAILABLE`) or number. Values with blanks are in double
/// quotes, in which `\"`, `\\`, `\n`, `\r` and `\t` are escapes. `drop`, `goaway` and `cut=N:drop`
/// need [`FaultIo`](crate::FaultIo) around the server's connections, else the stream is reset.
///
/// `cut`, `trailers` and `drip` always execute the request, `goaway` never does.
///
/// ```
/// use cinchona_fault::Rule;
///
/// let rule: Rule = "method=/calculator.Calculator/Add rate=30% status=14:\"gone away\"".parse()?;
/// assert_eq!(
///     rule.to_string(),
///     "method=/calculator.Calculator/Add rate=0.3 status=UNAVAILABLE:\"gone away\""
/// );
///
/// let error = "method=* rat=0.3 status=UNAVAILABLE".parse::<Rule>().unwrap_err();
/// assert!(error.to_string().starts_with("\
/// unknown word `rat`
///   method=* rat=0.3 status=UNAVAILABLE
///            ^^^
///   allowed: attempt, caller, cut,"), "{error}");
/// # Ok::<_, cinchona_fault::Malformed>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub(crate) scope: Scope,
    pub(crate) trigger: Trigger,
    pub(crate) ttl: Ttl,
    pub(crate) when: When,
    pub(crate) delay: Option<Wait>,
    pub(crate) action: Option<Action>,
}

/// Which requests match.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Scope {
    pub(crate) method: Method,
    pub(crate) metadata: Vec<(HeaderName, Text)>,
    pub(crate) caller: Option<(IpAddr, Option<u16>)>,
    pub(crate) attempt: Option<RangeInclusive<u32>>,
    pub(crate) health: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Method {
    #[default]
    Any,
    /// `/a.B/`
    Service(String),
    /// `/a.B/C`
    Exact(String),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Text {
    Whole(String),
    Prefix(String),
}

/// How many of the matching requests are hit, and when.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Trigger {
    pub(crate) rate: f64,
    pub(crate) every: Option<NonZeroU64>,
    pub(crate) first: Option<u64>,
    pub(crate) window: Option<(Duration, Option<Duration>)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Ttl {
    #[default]
    Unsaid,
    Forever,
    For(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Wait {
    Fixed(Duration),
    Uniform(Duration, Duration),
    Normal { mean: Duration, deviation: Duration },
    LogNormal { p50: Duration, p99: Duration },
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    Status { codes: Vec<(Code, u32)>, message: String, details: Vec<u8> },
    Hang,
    HeadersThenHang,
    Cut { after: u64, end: Option<u32> },
    Reset(u32),
    Drop,
    GoAway(Option<u32>),
    Trailers(Broken),
    Drip { bytes: NonZeroUsize, every: Duration },
    Panic,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Broken {
    Missing,
    Status,
    Message,
    Details,
}

pub(crate) const MESSAGE: &str = "simulated failure";

// === impl Rule ===

impl Rule {
    /// The kind of its fault, by its word in the grammar, such as `status` or `delay`.
    pub fn kind(&self) -> &'static str {
        match self.action {
            None => "delay",
            Some(Action::Status { .. }) => "status",
            Some(Action::Hang | Action::HeadersThenHang) => "hang",
            Some(Action::Cut { .. }) => "cut",
            Some(Action::Reset(_)) => "reset",
            Some(Action::Drop) => "drop",
            Some(Action::GoAway(_)) => "goaway",
            Some(Action::Trailers(_)) => "trailers",
            Some(Action::Drip { .. }) => "drip",
            Some(Action::Panic) => "panic",
        }
    }

    /// How long it lives once it is set, if limited.
    pub fn ttl(&self) -> Option<Duration> {
        match self.ttl {
            Ttl::For(ttl) => Some(ttl),
            Ttl::Unsaid | Ttl::Forever => None,
        }
    }
}

// === impl Trigger ===

impl Default for Trigger {
    fn default() -> Self {
        Self { rate: 1.0, every: None, first: None, window: None }
    }
}

// === impl Action ===

impl Action {
    /// Whether it replaces the reply, rather than change it.
    pub(crate) fn replaces_the_reply(&self) -> bool {
        !matches!(self, Self::Cut { .. } | Self::Trailers(_) | Self::Drip { .. })
    }
}

#[cfg(test)]
mod tests;
