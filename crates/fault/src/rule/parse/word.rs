//! One word of a rule, and the parsers of its values.

use crate::{
    Malformed, When,
    rule::{
        Action, Broken, Method, Text, Ttl, Wait,
        words::{RESETS, base64, duration, reset},
    },
};
use cinchona_plumbing::code;
use std::{net::IpAddr, num::NonZeroU64, ops::Range, time::Duration};
use tonic::Code;

pub(super) type Parsed<T> = Result<T, Malformed>;

/// `key`, or `key=value`, and their places.
pub(super) struct Word<'a> {
    pub(super) text: &'a str,
    pub(super) key: &'a str,
    pub(super) key_at: Range<usize>,
    pub(super) value: Option<String>,
    value_at: Range<usize>,
}

const DURATION: &str = "a duration such as 250ms, 1.5s or 2m, up to 8760h";
const WEIGHED: &str = "CODE:WEIGHT,CODE:WEIGHT with codes but OK and weights from 1 to 1000000";

// === impl Word ===

impl<'a> Word<'a> {
    /// The word at `at` or after blanks there, and where it ends.
    pub(super) fn next(text: &'a str, at: usize) -> Parsed<Option<(Self, usize)>> {
        let rest = text.get(at..).unwrap_or_default();
        let start = at + (rest.len() - rest.trim_start().len());
        let rest = text.get(start..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(None);
        }
        let key_len = rest.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(rest.len());
        let (key, key_at) = (&rest[..key_len], start..start + key_len);
        if !rest[key_len..].starts_with('=') {
            let value_at = key_at.end..key_at.end;
            let word = Self { text, key, key_at: key_at.clone(), value: None, value_at };
            return Ok(Some((word, key_at.end)));
        }
        let from = key_at.end + 1;
        let (value, end) = unquote(text, from)?;
        let word = Self { text, key, key_at, value: Some(value), value_at: from..end };
        Ok(Some((word, end)))
    }

    pub(super) fn whole(&self) -> Range<usize> {
        self.key_at.start..self.value_at.end
    }

    fn wrong(&self, what: &str, allowed: &str) -> Malformed {
        Malformed::new(self.text, self.value_at.clone(), what, allowed)
    }

    pub(super) fn bare(&self) -> Parsed<()> {
        match self.value {
            None => Ok(()),
            Some(_) => Err(self.wrong("it takes no value", self.key)),
        }
    }

    pub(super) fn value(&self, allowed: &str) -> Parsed<&str> {
        self.value.as_deref().ok_or_else(|| {
            let allowed = format!("{}= and {allowed}", self.key);
            Malformed::new(self.text, self.key_at.clone(), "it needs a value", allowed)
        })
    }

    /// The value, as parsed by `read`.
    pub(super) fn read<T>(
        &self,
        what: &str,
        allowed: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Parsed<T> {
        read(self.value(allowed)?).ok_or_else(|| self.wrong(what, allowed))
    }

    pub(super) fn method(&self) -> Parsed<Method> {
        let allowed = "/package.Service/Method, /package.Service/* or *";
        self.read("not a method", allowed, |value| {
            let path = value.strip_prefix('/').unwrap_or(value);
            let fine = |name: &str| {
                !name.is_empty() && !name.contains(|c: char| "/*\"\\#".contains(c) || c <= ' ')
            };
            match path.split_once('/') {
                None if value == "*" => Some(Method::Any),
                Some((service, "*")) if fine(service) => {
                    Some(Method::Service(format!("/{service}/")))
                }
                Some((service, name)) if fine(service) && fine(name) => {
                    Some(Method::Exact(format!("/{service}/{name}")))
                }
                _ => None,
            }
        })
    }

    pub(super) fn metadata(&self, name: &str) -> Parsed<(http::HeaderName, Text)> {
        let name = name.parse().map_err(|_| {
            let what = "not a metadata key";
            Malformed::new(self.text, self.key_at.clone(), what, "letters, digits, -, _ and .")
        })?;
        let value = self.value("a text, with a * at its end for any rest")?;
        Ok((
            name,
            match value.strip_suffix('*') {
                Some(prefix) => Text::Prefix(prefix.to_owned()),
                None => Text::Whole(value.to_owned()),
            },
        ))
    }

    pub(super) fn caller(&self) -> Parsed<(IpAddr, Option<u16>)> {
        self.read("not an address", "an IP address, or one with a port", |value| {
            let with_port = value.parse::<std::net::SocketAddr>().ok();
            let with_port = with_port.map(|addr| (addr.ip(), Some(addr.port())));
            with_port.or_else(|| value.parse().ok().map(|ip| (ip, None)))
        })
    }

    pub(super) fn attempts(&self) -> Parsed<std::ops::RangeInclusive<u32>> {
        self.read("not an attempt", "1, 2..3 or 2.., from 1", |value| {
            let (from, to) = value.split_once("..").unwrap_or((value, value));
            let from = from.parse::<u32>().ok().filter(|from| *from > 0)?;
            let to = if to.is_empty() { u32::MAX } else { to.parse().ok()? };
            (from <= to).then_some(from..=to)
        })
    }

    pub(super) fn rate(&self) -> Parsed<f64> {
        self.read("not a share", "0 to 1, or 0% to 100%", |value| {
            let rate = match value.strip_suffix('%') {
                Some(percent) => percent.parse::<f64>().ok()? / 100.0,
                None => value.parse().ok()?,
            };
            // A zero has no sign.
            (0.0..=1.0).contains(&rate).then_some(rate.abs())
        })
    }

    pub(super) fn count(&self) -> Parsed<NonZeroU64> {
        self.read("not a number of requests", "a number from 1", |value| value.parse().ok())
    }

    pub(super) fn window(&self) -> Parsed<(Duration, Option<Duration>)> {
        self.read("not a window", "10s..20s or 10s.., the first before the second", |value| {
            let (from, to) = value.split_once("..")?;
            let from = duration(from)?;
            let to = if to.is_empty() { None } else { Some(duration(to)?) };
            to.is_none_or(|to| from < to).then_some((from, to))
        })
    }

    pub(super) fn ttl(&self) -> Parsed<Ttl> {
        self.read("not a lifetime", &format!("{DURATION}, above 0; or none"), |value| match value {
            "none" => Some(Ttl::Forever),
            _ => duration(value).filter(|ttl| *ttl > Duration::ZERO).map(Ttl::For),
        })
    }

    pub(super) fn when(&self) -> Parsed<When> {
        self.read("not a time", "before, after", |value| match value {
            "before" => Some(When::Before),
            "after" => Some(When::After),
            _ => None,
        })
    }

    pub(super) fn delay(&self) -> Parsed<Wait> {
        let allowed = "100ms, 50ms..200ms, normal:MEAN:DEVIATION or lognormal:P50:P99 \
            with 0 < P50 < P99";
        self.read("not a delay", allowed, |value| {
            let pair = |(one, other)| Some((duration(one)?, duration(other)?));
            if let Some(normal) = value.strip_prefix("normal:") {
                let (mean, deviation) = normal.split_once(':').and_then(pair)?;
                return Some(Wait::Normal { mean, deviation });
            }
            if let Some(normal) = value.strip_prefix("lognormal:") {
                let (p50, p99) = normal.split_once(':').and_then(pair)?;
                return (Duration::ZERO < p50 && p50 < p99).then_some(Wait::LogNormal { p50, p99 });
            }
            match value.split_once("..") {
                Some(ends) => pair(ends)
                    .filter(|(from, to)| from <= to)
                    .map(|(from, to)| Wait::Uniform(from, to)),
                None => duration(value).map(Wait::Fixed),
            }
        })
    }

    pub(super) fn code(&self, name: &str) -> Parsed<Code> {
        let by_number = |name: &str| name.parse().ok().filter(|n| *n <= 16).map(Code::from_i32);
        let found = code::from_name(name).or_else(|| by_number(name));
        found.filter(|code| *code != Code::Ok).ok_or_else(|| {
            let names = code::all().filter(|code| *code != Code::Ok).map(code::name);
            let at = self.value_at.start..self.value_at.start + name.len();
            let at = if at.end > self.value_at.end { self.value_at.clone() } else { at };
            let what = format!("`{name}` is no code to fail with");
            Malformed::new(self.text, at, what, names.collect::<Vec<_>>().join(", "))
        })
    }

    pub(super) fn mix(&self) -> Parsed<Vec<(Code, u32)>> {
        let weigh = |part: &str| -> Parsed<(Code, u32)> {
            let (name, weight) = part.split_once(':').unwrap_or((part, "1"));
            let weight = weight.parse().ok().filter(|weight| (1..=1_000_000).contains(weight));
            Ok((self.code(name)?, weight.ok_or_else(|| self.wrong("not a weight", WEIGHED))?))
        };
        self.value(WEIGHED)?.split(',').map(weigh).collect()
    }

    pub(super) fn details(&self) -> Parsed<Vec<u8>> {
        self.read("not base64", "bytes in base64", base64)
    }

    pub(super) fn hang(&self) -> Parsed<Action> {
        match self.value.as_deref() {
            None => Ok(Action::Hang),
            Some("headers") => Ok(Action::HeadersThenHang),
            Some(_) => Err(self.wrong("not a way to hang", "hang, or hang=headers")),
        }
    }

    pub(super) fn reset(&self, name: &str) -> Parsed<u32> {
        reset(name).ok_or_else(|| self.wrong("not an HTTP/2 error code", &RESETS.join(", ")))
    }

    pub(super) fn cut(&self) -> Parsed<Action> {
        let allowed = "the number of messages; after a colon, drop or an HTTP/2 error code";
        let value = self.value(allowed)?;
        let (after, end) = value.split_once(':').unwrap_or((value, "INTERNAL_ERROR"));
        let after = after.parse().map_err(|_| self.wrong("not a number of messages", allowed))?;
        let end = if end == "drop" { None } else { Some(self.reset(end)?) };
        Ok(Action::Cut { after, end })
    }

    pub(super) fn trailers(&self) -> Parsed<Broken> {
        let names = Broken::ALL.map(Broken::name).join(", ");
        self.read("not a way to break trailers", &names, |value| {
            Broken::ALL.into_iter().find(|broken| broken.name() == value)
        })
    }

    pub(super) fn drip(&self) -> Parsed<Action> {
        self.read("not a drip", "BYTES/DURATION such as 16/50ms, both above 0", |value| {
            let (bytes, every) = value.split_once('/')?;
            let every = duration(every).filter(|every| *every > Duration::ZERO)?;
            Some(Action::Drip { bytes: bytes.parse().ok()?, every })
        })
    }
}

/// The value that begins at `from`, without its quotes, and where it ends.
fn unquote(text: &str, from: usize) -> Parsed<(String, usize)> {
    let (mut value, mut open) = (String::new(), None);
    let mut chars = text.get(from..).unwrap_or_default().char_indices();
    while let Some((at, c)) = chars.next() {
        match (c, open) {
            ('"', None) => open = Some(from + at),
            ('"', Some(_)) => open = None,
            ('\\', Some(_)) => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 'r')) => value.push('\r'),
                Some((_, 't')) => value.push('\t'),
                Some((_, c @ ('"' | '\\'))) => value.push(c),
                other => {
                    let end = other.map_or(from + at + 1, |(at, c)| from + at + c.len_utf8());
                    let allowed = r#"\", \\, \n, \r, \t"#;
                    return Err(Malformed::new(text, from + at..end, "no such escape", allowed));
                }
            },
            (c, None) if c.is_whitespace() => return Ok((value, from + at)),
            (c, _) => value.push(c),
        }
    }
    match open {
        None => Ok((value, text.len())),
        Some(at) => Err(Malformed::new(text, at..text.len(), "the quote is not closed", "\"")),
    }
}
