//! The shortest form of a rule: parsing it gives the same rule.

use super::{
    Action, Broken, MESSAGE, Method, Rule, Scope, Text, Trigger, Ttl, Wait,
    words::{code_of_reset, show_base64, show_duration},
};
use crate::When;
use cinchona_plumbing::code;
use std::{
    fmt::{self, Write},
    time::Duration,
};

/// A value, in quotes where it needs them.
struct Quoted<'a>(&'a str);

/// Puts a blank between words.
struct Words<'a, 'f> {
    f: &'a mut fmt::Formatter<'f>,
    first: bool,
}

// === impl Rule ===

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Words { f, first: true };
        self.scope.show(&mut words)?;
        self.trigger.show(&mut words)?;
        match self.ttl {
            Ttl::Unsaid => {}
            Ttl::Forever => words.put("ttl=none")?,
            Ttl::For(ttl) => words.put(format_args!("ttl={}", show_duration(ttl)))?,
        }
        if self.when == When::After {
            words.put("when=after")?;
        }
        if let Some(delay) = self.delay {
            words.put(format_args!("delay={delay}"))?;
        }
        self.action.iter().try_for_each(|action| action.show(&mut words))
    }
}

// === impl Scope ===

impl Scope {
    fn show(&self, words: &mut Words<'_, '_>) -> fmt::Result {
        match &self.method {
            Method::Any => {}
            Method::Service(prefix) => words.put(format_args!("method={prefix}*"))?,
            Method::Exact(path) => words.put(format_args!("method={path}"))?,
        }
        for (key, text) in &self.metadata {
            match text {
                Text::Whole(text) => {
                    words.put(format_args!("metadata.{key}={}", Quoted(text)))?;
                }
                Text::Prefix(text) => {
                    words.put(format_args!("metadata.{key}={}", Quoted(&format!("{text}*"))))?;
                }
            }
        }
        match self.caller {
            None => {}
            Some((ip, None)) => words.put(format_args!("caller={ip}"))?,
            Some((ip, Some(port))) => {
                words.put(format_args!("caller={}", std::net::SocketAddr::new(ip, port)))?;
            }
        }
        if let Some(attempt) = &self.attempt {
            match (*attempt.start(), *attempt.end()) {
                (from, to) if from == to => words.put(format_args!("attempt={from}"))?,
                (from, u32::MAX) => words.put(format_args!("attempt={from}.."))?,
                (from, to) => words.put(format_args!("attempt={from}..{to}"))?,
            }
        }
        if self.health { words.put("health") } else { Ok(()) }
    }
}

// === impl Trigger ===

impl Trigger {
    fn show(&self, words: &mut Words<'_, '_>) -> fmt::Result {
        if self.rate < 1.0 {
            words.put(format_args!("rate={}", self.rate))?;
        }
        if let Some(every) = self.every {
            words.put(format_args!("every={every}"))?;
        }
        if let Some(first) = self.first {
            words.put(format_args!("first={first}"))?;
        }
        if let Some((from, to)) = self.window {
            let to = to.map(show_duration).unwrap_or_default();
            words.put(format_args!("window={}..{to}", show_duration(from)))?;
        }
        Ok(())
    }
}

// === impl Wait ===

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |one: &Duration| show_duration(*one);
        match self {
            Self::Fixed(delay) => write!(f, "{}", show(delay)),
            Self::Uniform(from, to) => write!(f, "{}..{}", show(from), show(to)),
            Self::Normal { mean, deviation } => {
                write!(f, "normal:{}:{}", show(mean), show(deviation))
            }
            Self::LogNormal { p50, p99 } => write!(f, "lognormal:{}:{}", show(p50), show(p99)),
        }
    }
}

// === impl Action ===

impl Action {
    fn show(&self, words: &mut Words<'_, '_>) -> fmt::Result {
        match self {
            Self::Status { codes, message, details } => {
                Self::show_status(words, codes, message, details)
            }
            Self::Hang => words.put("hang"),
            Self::HeadersThenHang => words.put("hang=headers"),
            Self::Cut { after, end: None } => words.put(format_args!("cut={after}:drop")),
            Self::Cut { after, end: Some(code) } => {
                words.put(format_args!("cut={after}:{}", code_of_reset(*code)))
            }
            Self::Reset(code) => words.put(format_args!("reset={}", code_of_reset(*code))),
            Self::Drop => words.put("drop"),
            Self::GoAway(None) => words.put("goaway"),
            Self::GoAway(Some(code)) => words.put(format_args!("goaway={}", code_of_reset(*code))),
            Self::Trailers(broken) => words.put(format_args!("trailers={}", broken.name())),
            Self::Drip { bytes, every } => {
                words.put(format_args!("drip={bytes}/{}", show_duration(*every)))
            }
            Self::Panic => words.put("panic"),
        }
    }

    fn show_status(
        words: &mut Words<'_, '_>,
        codes: &[(tonic::Code, u32)],
        message: &str,
        details: &[u8],
    ) -> fmt::Result {
        match codes {
            [(only, 1)] if message == MESSAGE => {
                words.put(format_args!("status={}", code::name(*only)))?;
            }
            [(only, 1)] => {
                words.put(format_args!("status={}:{}", code::name(*only), Quoted(message)))?;
            }
            _ => {
                let weighed = codes.iter().map(|(code, w)| format!("{}:{w}", code::name(*code)));
                words.put(format_args!("mix={}", weighed.collect::<Vec<_>>().join(",")))?;
                if message != MESSAGE {
                    words.put(format_args!("message={}", Quoted(message)))?;
                }
            }
        }
        if details.is_empty() {
            return Ok(());
        }
        words.put(format_args!("details={}", show_base64(details)))
    }
}

// === impl Broken ===

impl Broken {
    pub(super) const ALL: [Self; 4] = [Self::Missing, Self::Status, Self::Message, Self::Details];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Status => "bad-status",
            Self::Message => "bad-message",
            Self::Details => "bad-details",
        }
    }
}

// === impl Words ===

impl Words<'_, '_> {
    fn put(&mut self, word: impl fmt::Display) -> fmt::Result {
        if !std::mem::take(&mut self.first) {
            self.f.write_char(' ')?;
        }
        write!(self.f, "{word}")
    }
}

// === impl Quoted ===

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let needs = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '\\' | '#');
        if !self.0.is_empty() && !self.0.contains(needs) {
            return f.write_str(self.0);
        }
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}
