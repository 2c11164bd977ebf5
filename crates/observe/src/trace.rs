//! W3C trace context: which trace a call belongs to, in the headers `traceparent` and `tracestate`.

use cinchona_core::Rng;
use http::{HeaderMap, HeaderName, HeaderValue};
use rand::RngExt;
use std::{cell::RefCell, fmt, sync::Arc};

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Which trace a call belongs to, and which span of it is the one at hand ([W3C Trace Context]).
///
/// The server layer puts that of the caller into the request's extensions; calls that the handler
/// makes in its own task continue it.
///
/// ```
/// use cinchona_observe::TraceContext;
/// use http::{HeaderMap, HeaderValue};
///
/// let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let mut headers = HeaderMap::new();
/// headers.insert("traceparent", HeaderValue::from_static(text));
/// let context = TraceContext::of(&headers).unwrap();
/// assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
/// assert_eq!(context.to_string(), text);
/// ```
///
/// [W3C Trace Context]: https://www.w3.org/TR/trace-context-1/
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace: u128,
    span: u64,
    sampled: bool,
    /// The vendors' entries, passed on unchanged.
    state: Vec<HeaderValue>,
}

/// An id in hexadecimal digits, without an allocation: every span has two or three.
pub(crate) struct Digits<const N: usize>([u8; N]);

thread_local! {
    /// The context of the call which is being served, while its task is polled.
    static SERVED: RefCell<Option<Arc<TraceContext>>> = const { RefCell::new(None) };
}

/// While it lives, the calls that this thread makes continue a trace: see [`TraceContext::enter`].
#[derive(Debug)]
#[must_use = "it ends when it is dropped"]
pub struct Serving {
    before: Option<Arc<TraceContext>>,
}

// === impl TraceContext ===

impl TraceContext {
    /// What `headers` say; `None` when `traceparent` is missing, malformed, or there twice.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        if !cinchona_plumbing::headers::has(headers, &TRACEPARENT) {
            return None;
        }
        let mut values = headers.get_all(&TRACEPARENT).iter();
        let (trace, span, sampled) = match (values.next(), values.next()) {
            (Some(value), None) => parse(value.as_bytes())?,
            _ => return None,
        };
        let state = headers.get_all(&TRACESTATE).iter().cloned().collect();
        Some(Self { trace, span, sampled, state })
    }

    /// That of the call which this task is serving, if it is.
    pub fn current() -> Option<Self> {
        SERVED.with_borrow(|served| served.as_deref().cloned())
    }

    /// Whether this task is serving a call of a known trace.
    pub(crate) fn is_served() -> bool {
        SERVED.with_borrow(Option::is_some)
    }

    /// A span of a trace that is recorded; `None` when one of the two is 0, which is no id.
    pub fn new(trace: u128, span: u64) -> Option<Self> {
        let is_one = trace != 0 && span != 0;
        is_one.then_some(Self { trace, span, sampled: true, state: Vec::new() })
    }

    /// The first span of a new trace.
    pub fn root(rng: &Rng) -> Self {
        let mut rng = rng.draw();
        // All zeros mean that there is none.
        let (trace, span) = (rng.random::<u128>().max(1), rng.random::<u64>().max(1));
        Self { trace, span, sampled: true, state: Vec::new() }
    }

    /// Another span of the same trace.
    pub fn child(&self, rng: &Rng) -> Self {
        Self { span: rng.draw().random::<u64>().max(1), ..self.clone() }
    }

    /// Writes it to `headers`.
    pub fn stamp(&self, headers: &mut HeaderMap) {
        let Ok(parent) = HeaderValue::try_from(self.to_string()) else { return };
        headers.insert(&TRACEPARENT, parent);
        headers.remove(&TRACESTATE);
        for state in &self.state {
            headers.append(&TRACESTATE, state.clone());
        }
    }

    /// Calls that this thread makes until the end of the scope continue this trace.
    pub fn enter(self: &Arc<Self>) -> Serving {
        Serving { before: SERVED.replace(Some(self.clone())) }
    }

    /// The id of the trace.
    pub const fn trace(&self) -> u128 {
        self.trace
    }

    /// The id of the span.
    pub const fn span(&self) -> u64 {
        self.span
    }

    /// 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        self.trace_digits().as_str().to_owned()
    }

    /// 16 hexadecimal digits.
    pub fn span_id(&self) -> String {
        self.span_digits().as_str().to_owned()
    }

    pub(crate) fn trace_digits(&self) -> Digits<32> {
        Digits::of(self.trace)
    }

    pub(crate) fn span_digits(&self) -> Digits<16> {
        Digits::of(self.span.into())
    }

    /// Whether the one who began the trace records it.
    pub const fn is_sampled(&self) -> bool {
        self.sampled
    }
}

// === impl Digits ===

impl<const N: usize> Digits<N> {
    /// The last `N` digits of `id`, in lower case.
    fn of(id: u128) -> Self {
        let mut digits = [0; N];
        let mut left = id;
        for digit in digits.iter_mut().rev() {
            *digit = b"0123456789abcdef"[(left & 0xf) as usize];
            left >>= 4;
        }
        Self(digits)
    }

    pub(crate) fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

// === impl Serving ===

impl Drop for Serving {
    fn drop(&mut self) {
        SERVED.set(self.before.take());
    }
}

impl fmt::Display for TraceContext {
    /// As in `traceparent`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

/// `00-<trace>-<span>-<flags>`; of later versions what they have in common with this one.
fn parse(text: &[u8]) -> Option<(u128, u64, bool)> {
    let is_at = |at: usize| text.get(at) == Some(&b'-');
    if !(is_at(2) && is_at(35) && is_at(52)) {
        return None;
    }
    let version = hex(text.get(..2)?)?;
    let may_go_on = version > 0 && is_at(55);
    if version == 0xff || !(text.len() == 55 || may_go_on) {
        return None;
    }
    let (trace, span) = (hex(text.get(3..35)?)?, hex(text.get(36..52)?)? as u64);
    let flags = hex(text.get(53..55)?)?;
    (trace != 0 && span != 0).then_some((trace, span, flags & 1 == 1))
}

/// A number of lower-case digits; upper case is not allowed.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number: u128, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

    fn of(text: &str) -> Option<TraceContext> {
        TraceContext::of(&HeaderMap::from_iter([(TRACEPARENT.clone(), text.parse().unwrap())]))
    }

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn malformed_parents_are_none() {
        for (bad, why) in [
            ("", "empty"),
            (&GOOD[..54], "cut short"),
            (&format!("{GOOD}-more"), "version 00 ends there"),
            (&GOOD.replace("00-4", "ff-4"), "version ff is forbidden"),
            (&GOOD.to_uppercase(), "upper case"),
            (&GOOD.replace("00f067aa0ba902b7", "0000000000000000"), "no span"),
            (&GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)), "no trace"),
            (&GOOD.replace('-', "_"), "other dashes"),
        ] {
            assert_eq!(of(bad), None, "{why}");
        }
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        let later = of(&format!("{}-more", GOOD.replace("00-4", "cc-4"))).unwrap();
        assert_eq!(later, of(GOOD).unwrap());
        assert_eq!(of(&format!("{}more", GOOD.replace("00-4", "cc-4"))), None);
    }

    #[test]
    fn two_parents_are_none() {
        let mut headers = HeaderMap::new();
        headers.append(&TRACEPARENT, GOOD.parse().unwrap());
        headers.append(&TRACEPARENT, GOOD.parse().unwrap());
        assert_eq!(TraceContext::of(&headers), None);
    }

    proptest! {
        #[test]
        fn no_value_makes_parsing_panic(bytes in prop::collection::vec(any::<u8>(), 0..70)) {
            _ = parse(&bytes);
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                _ = TraceContext::of(&HeaderMap::from_iter([(TRACEPARENT.clone(), value)]));
            }
        }

        #[test]
        fn one_wrong_byte_is_never_read_as_another_trace(at in 0..55_usize, byte in any::<u8>()) {
            let mut bytes = GOOD.as_bytes().to_vec();
            bytes[at] = byte;
            if let Some((trace, span, _)) = parse(&bytes) {
                let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
                prop_assert!(is_digit(byte) || byte == b'-');
                prop_assert!(trace != 0 && span != 0);
            }
        }

        #[test]
        fn what_is_written_is_read_back(seed in any::<u64>()) {
            let rng = Rng::seeded(seed);
            let mut headers = HeaderMap::new();
            headers.append(&TRACESTATE, HeaderValue::from_static("a=1"));
            headers.append(&TRACESTATE, HeaderValue::from_static("b=2"));
            let root = TraceContext::root(&rng);
            root.stamp(&mut headers);
            prop_assert!(!headers.contains_key(&TRACESTATE), "it was of another trace");
            prop_assert_eq!(TraceContext::of(&headers), Some(root.clone()));
            prop_assert_eq!(root.child(&rng).trace, root.trace);
        }
    }
}
