//! Whether what was seen is right.

use super::{
    script::{Ends, Expect, Range, Script},
    seen::Seen,
};
use std::{collections::BTreeMap, fmt::Debug};

/// What is wrong, in words; nothing where all is right.
///
/// `says_number` is whether the client is held to `grpc-previous-rpc-attempts`.
pub fn judge(script: &Script, seen: &Seen, says_number: bool) -> Vec<String> {
    let mut wrong = Wrong(Vec::new());
    let expect = &script.expect;
    wrong.of_calls(expect, seen);
    wrong.of_counts(script, seen);
    wrong.of_requests(expect, seen);
    wrong.of_times(expect, seen);
    if let Some(previous) = expect.previous.as_ref().filter(|_| says_number) {
        let headers = seen.attempts.iter();
        let headers: Vec<_> =
            headers.map(|attempt| attempt.header("grpc-previous-rpc-attempts")).collect();
        wrong.unless(&headers == previous, "previous attempts", &headers, previous);
    }
    wrong.0
}

/// What was seen, in a few words: codes, attempts, and what else the script is about.
pub fn measured(script: &Script, seen: &Seen) -> String {
    let mut codes: Vec<(i64, usize)> = Vec::new();
    for code in seen.codes() {
        match codes.last_mut().filter(|last| last.0 == code) {
            Some(last) => last.1 += 1,
            None => codes.push((code, 1)),
        }
    }
    if codes.len() > 4 {
        let mut counts = BTreeMap::<i64, usize>::new();
        codes.iter().for_each(|(code, count)| *counts.entry(*code).or_default() += count);
        codes = counts.into_iter().collect();
    }
    let times = |(code, count): &(i64, usize)| match count {
        1 => name(*code),
        count => format!("{count}×{}", name(*code)),
    };
    let codes: Vec<_> = codes.iter().map(times).collect();
    let mut text = format!("{}, {} att.", codes.join(" "), seen.attempts.len());
    let expect = &script.expect;
    let longest = seen.outcomes.iter().map(|outcome| outcome.took_ms).fold(0.0, f64::max);
    if expect.calls.iter().any(|ends| ends.took_ms.is_some()) {
        text += &format!(", {longest:.0} ms");
    }
    if !expect.gap_ms.is_empty() {
        let gaps: Vec<_> = seen.gaps().iter().map(|gap| gap.as_millis().to_string()).collect();
        text += &format!(", gaps {} ms", gaps.join(" "));
    }
    if !expect.per_server.is_empty() {
        text += &format!(", servers {:?}", seen.per_server(script));
    }
    if expect.complete.is_some() {
        text += &format!(", {} complete", complete(seen));
    }
    if expect.connections.is_some() {
        text += &format!(", {} conn.", seen.connections);
    }
    if expect.pings.is_some() {
        text += &format!(", {} pings", seen.pings);
    }
    if expect.resets.is_some() {
        text += &format!(", {} resets", resets(seen));
    }
    text
}

/// What was found wrong so far.
struct Wrong(Vec<String>);

/// gRPC's name of a code.
fn name(code: i64) -> String {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    let name = usize::try_from(code).ok().and_then(|code| NAMES.get(code).copied());
    name.unwrap_or(if code == -1 { "NO END" } else { "?" }).to_owned()
}

fn complete(seen: &Seen) -> u64 {
    seen.attempts.iter().filter(|attempt| attempt.is_complete).count() as u64
}

fn resets(seen: &Seen) -> u64 {
    seen.attempts.iter().filter(|attempt| attempt.is_reset).count() as u64
}

/// One for each call: the last stands for those that follow.
fn ends_of_each(expect: &Expect) -> impl Iterator<Item = &Ends> {
    let each = expect.calls.iter();
    each.flat_map(|ends| std::iter::repeat_n(ends, ends.times.unwrap_or(1)))
        .chain(expect.calls.last().into_iter().cycle())
}

// === impl Wrong ===

impl Wrong {
    fn unless(&mut self, is_right: bool, what: &str, seen: impl Debug, right: impl Debug) {
        if !is_right {
            self.0.push(format!("{what}: {seen:?}, not {right:?}"));
        }
    }

    fn within(&mut self, what: &str, seen: u64, range: Option<Range>) {
        if let Some((least, most)) = range {
            let right =
                if least == most { format!("{least}") } else { format!("{least} to {most}") };
            if !(least..=most).contains(&seen) {
                self.0.push(format!("{what}: {seen}, not {right}"));
            }
        }
    }

    fn of_calls(&mut self, expect: &Expect, seen: &Seen) {
        for (n, (outcome, ends)) in seen.outcomes.iter().zip(ends_of_each(expect)).enumerate() {
            let is_right = ends.code.is_empty() || ends.code.contains(&outcome.code);
            if !is_right {
                let right: Vec<_> = ends.code.iter().map(|code| name(*code)).collect();
                let (code, message) = (name(outcome.code), &outcome.message);
                let right = right.join(" or ");
                self.0.push(format!("call {}: {code} {message:?}, not {right}", n + 1));
                continue;
            }
            let what = |what: &str| format!("{what} of call {}", n + 1);
            if let Some(right) = &ends.message {
                self.unless(&outcome.message == right, &what("message"), &outcome.message, right);
            }
            if let Some(right) = &ends.details {
                self.unless(
                    outcome.details.contains(right),
                    &what("details"),
                    &outcome.details,
                    right,
                );
            }
            if let Some(right) = ends.messages {
                self.unless(outcome.messages == right, &what("messages"), outcome.messages, right);
            }
            self.within(&what("milliseconds"), outcome.took_ms as u64, ends.took_ms);
        }
        let ok = seen.codes().iter().filter(|code| **code == 0).count();
        self.within("calls that end with OK", ok as u64, expect.ok);
    }

    fn of_counts(&mut self, script: &Script, seen: &Seen) {
        let expect = &script.expect;
        self.within("attempts", seen.attempts.len() as u64, expect.attempts);
        self.within("complete requests", complete(seen), expect.complete);
        self.within("connections", seen.connections, expect.connections);
        self.within("pings", seen.pings, expect.pings);
        self.within("resets", resets(seen), expect.resets);
        for (index, (count, range)) in
            seen.per_server(script).iter().zip(&expect.per_server).enumerate()
        {
            self.within(&format!("attempts at server {}", index + 1), *count, Some(*range));
        }
    }

    fn of_requests(&mut self, expect: &Expect, seen: &Seen) {
        for (n, attempt) in seen.attempts.iter().enumerate() {
            for (name, right) in &expect.metadata {
                let value = attempt.header(name);
                self.unless(
                    &value == right,
                    &format!("{name} of attempt {}", n + 1),
                    &value,
                    right,
                );
            }
            if let Some(right) = expect.body_bytes {
                let what = format!("bytes of attempt {}", n + 1);
                self.unless(attempt.body_bytes == right, &what, attempt.body_bytes, right);
            }
        }
        if !expect.methods.is_empty() {
            let of = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
            let methods: Vec<_> = seen.attempts.iter().map(|attempt| of(&attempt.path)).collect();
            self.unless(methods == expect.methods, "methods", &methods, &expect.methods);
        }
    }

    fn of_times(&mut self, expect: &Expect, seen: &Seen) {
        let ranges = expect.gap_ms.iter().chain(expect.gap_ms.last().into_iter().cycle());
        for (n, (gap, range)) in seen.gaps().iter().zip(ranges).enumerate() {
            let what = format!("milliseconds before attempt {}", n + 2);
            self.within(&what, gap.as_millis() as u64, Some(*range));
        }
        let ranges = expect.told_ms.iter().chain(expect.told_ms.last().into_iter().cycle());
        for (n, (attempt, range)) in seen.attempts.iter().zip(ranges).enumerate() {
            let told = attempt.told_ms();
            let is_right = told.is_some_and(|told| (range.0..=range.1).contains(&told));
            let what = format!("milliseconds of grpc-timeout in attempt {}", n + 1);
            self.unless(is_right, &what, told, range);
        }
    }
}
