//! The rules for one Rust file.

use super::{
    lexer::Token,
    rust::{Attribute, RustFile, is_test_attribute},
    violation::Violation,
};
use std::{collections::BTreeSet, ops::Range};

const MOST_LINES: usize = 400;
const MOST_FUNCTION_LINES: usize = 60;
const MOST_FACADE_LINES: usize = 48;
const MOST_COLUMNS: usize = 100;
const FACADE: &str = "crates/cinchona/src/lib.rs";
/// The crates that may have features: the facade, and the Redis store for TLS.
const FEATURED: [&str; 3] = [FACADE, "crates/redis/src/certified.rs", "crates/redis/src/tls.rs"];

impl RustFile<'_> {
    pub(super) fn violations(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        self.check_place_and_head(&mut found);
        self.check_columns(&mut found);
        self.check_length(&mut found);
        self.check_functions(&mut found);
        self.check_words(&mut found);
        self.check_clock(&mut found);
        self.check_attributes(&mut found);
        self.check_builders(&mut found);
        found
    }

    fn check_place_and_head(&self, found: &mut Vec<Violation>) {
        if self.path.ends_with("/mod.rs") {
            found.push(self.violation(1, "`mod.rs`", "a module is `foo.rs` beside `foo/`"));
        }
        let first = self.text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        if first.strip_prefix("//!").is_none_or(|doc| doc.trim().is_empty()) {
            found.push(self.violation(1, "no `//!`", "a file starts with its documentation"));
        }
    }

    fn check_columns(&self, found: &mut Vec<Violation>) {
        for (number, line) in self.text.lines().enumerate() {
            let columns = line.chars().count();
            if columns > MOST_COLUMNS && !is_long_link(line) {
                let what = format!("{columns} columns");
                found.push(self.violation(number + 1, what, "a line has at most 100"));
            }
        }
    }

    fn check_length(&self, found: &mut Vec<Violation>) {
        let docs = self.text.lines().filter(|line| line.trim_start().starts_with("//!")).count();
        let lines = self.text.lines().count();
        if self.path == FACADE && lines - docs > MOST_FACADE_LINES {
            let what = format!("{} lines beside its docs", lines - docs);
            found.push(self.violation(1, what, "the facade has at most 48"));
        }
        let line_range = |item: &Range<usize>| {
            self.tokens[item.start].line..=self.tokens[item.end - 1].last_line
        };
        let tests: BTreeSet<_> = self.tests.iter().flat_map(line_range).collect();
        let lines = lines - tests.len();
        if lines > MOST_LINES && !self.is_test {
            let what = format!("{lines} lines without tests");
            found.push(self.violation(1, what, "a file has at most 400"));
        }
    }

    fn check_functions(&self, found: &mut Vec<Violation>) {
        for (start, end) in self.functions().filter(|(start, _)| !self.is_in_test(*start)) {
            let line = self.tokens[start].line;
            let lines = self.tokens[end].line - line + 1;
            if lines > MOST_FUNCTION_LINES {
                let what = format!("`fn {}` has {lines} lines", self.text_at(start + 1));
                found.push(self.violation(line, what, "a function has at most 60"));
            }
        }
    }

    /// A `with_*` whose value is dropped has done nothing; a `Result` says so by itself.
    fn check_builders(&self, found: &mut Vec<Violation>) {
        for (start, _) in self.functions() {
            let name = self.text_at(start + 1);
            let is_const = start > 0 && self.text_at(start - 1) == "const";
            let head = start - usize::from(is_const);
            let is_public = head > 0 && self.text_at(head - 1) == "pub";
            if !name.starts_with("with_") || !is_public || self.is_in_test(start) {
                continue;
            }
            let returned = self.returned(start);
            let is_kept = self.attributes().any(|attribute| {
                let item = self.item_start(attribute.end + 1);
                item == head - 1 && self.text_at(attribute.start) == "must_use"
            });
            if !matches!(returned, "" | "Result" | "impl") && !is_kept {
                let line = self.tokens[start].line;
                let rule = "what gives a changed copy is `#[must_use]`";
                found.push(self.violation(line, format!("`fn {name}`"), rule));
            }
        }
    }

    fn check_words(&self, found: &mut Vec<Violation>) {
        for (at, token) in self.tokens.iter().enumerate() {
            let around = |offset: usize| self.text_at(at + offset);
            if token.text == "unsafe" {
                found.push(self.violation(token.line, "`unsafe`", "all code is safe"));
            }
            if self.is_in_test(at) || token.text != "." {
                continue;
            }
            let panics = match (around(1), around(2)) {
                ("unwrap", "(") => around(3) == ")",
                ("expect", "(") => true,
                _ => false,
            };
            if panics {
                let (line, what) = (self.tokens[at + 1].line, format!("`.{}(`", around(1)));
                found.push(self.violation(line, what, "only tests panic on an error"));
            }
        }
    }

    /// Sources only: clippy bans the same names by their types, in the tests too.
    fn check_clock(&self, found: &mut Vec<Violation>) {
        // xtask measures how long its own steps take, and has no runtime.
        if self.path.starts_with("xtask/") {
            return;
        }
        for (at, path) in named_paths(&self.tokens) {
            let is_banned = path.ends_with("std::time::Instant") || path.ends_with("thread::sleep");
            if is_banned && !self.is_in_test(at) {
                let (line, what) = (self.tokens[at].line, format!("`{path}`"));
                found.push(self.violation(line, what, "time is `tokio::time`, which tests pause"));
            }
        }
    }

    fn check_attributes(&self, found: &mut Vec<Violation>) {
        for attribute in self.attributes() {
            let words = self.words(attribute.start..attribute.end);
            let line = self.tokens[attribute.start].line;
            let needs = words.get(2).is_some_and(|why| why.trim_matches('"').starts_with("needs "));
            if words.first() == Some(&"ignore") && !needs {
                let rule = "only what needs something is left out: #[ignore = \"needs ...\"]";
                found.push(self.violation(line, "`#[ignore]`", rule));
            }
            if is_test_attribute(&words) {
                self.check_test(attribute, &words, found);
            }
        }
        for (at, window) in self.tokens.windows(2).enumerate() {
            let is_cfg = matches!(window[0].text, "cfg" | "cfg_attr");
            let open = at + if window[1].text == "!" { 2 } else { 1 };
            if !is_cfg || FEATURED.contains(&self.path) || self.text_at(open) != "(" {
                continue;
            }
            let words = self.words(open..self.partners[open]);
            if words.windows(2).any(|pair| pair == ["feature", "="]) {
                let rule = "only the facade has features";
                found.push(self.violation(window[0].line, "`cfg(feature`", rule));
            }
        }
    }

    fn check_test(&self, attribute: Attribute, words: &[&str], found: &mut Vec<Violation>) {
        let item = attribute.end + 1..self.item_end(attribute.end + 1);
        let tokens = &self.tokens[item];
        let name = tokens.windows(2).find(|window| window[0].text == "fn").map(|window| window[1]);
        if let Some(name) = name.filter(|name| name.text.starts_with("test_")) {
            let what = format!("`fn {}`", name.text);
            found.push(self.violation(name.line, what, "a test's name is a sentence that is true"));
        }
        let line = self.tokens[attribute.start].line;
        let is_paused = words.windows(3).any(|window| window == ["start_paused", "=", "true"]);
        if !words.starts_with(&["tokio", ":", ":"]) || is_paused || self.has_clock_reason(line) {
            return;
        }
        for window in tokens.windows(3) {
            let [before, sleep, open] = window else { continue };
            let is_sleep = matches!(sleep.text, "sleep" | "sleep_until") && open.text == "(";
            if is_sleep && !matches!(before.text, "." | "fn") {
                let what = format!("`{}(` on the real clock", sleep.text);
                let rule = "a test has `start_paused = true` or `// real clock: <reason>`";
                found.push(self.violation(sleep.line, what, rule));
            }
        }
    }

    /// Whether the line, or the comment right above it, says why a test needs the real clock.
    fn has_clock_reason(&self, line: usize) -> bool {
        let lines: Vec<_> = self.text.lines().take(line).collect();
        let above = lines.iter().rev().skip(1);
        let above = above.take_while(|line| line.trim_start().starts_with("//"));
        lines.last().into_iter().chain(above).any(|line| {
            let reason = line.split_once("// real clock:").map(|(_, reason)| reason.trim());
            reason.is_some_and(|reason| !reason.is_empty())
        })
    }

    fn violation(&self, line: usize, what: impl Into<String>, rule: &'static str) -> Violation {
        Violation { path: self.path.to_owned(), line, what: what.into(), rule }
    }
}

/// A comment whose last word is a link that starts in time: it cannot be broken.
fn is_long_link(line: &str) -> bool {
    let last = line.split_whitespace().next_back().unwrap_or_default();
    let before = line.chars().count() - last.chars().count();
    line.trim_start().starts_with("//") && last.contains("://") && before <= MOST_COLUMNS
}

/// Each `a::b::c` that the code names, also in the branches of a `use`, at its last word.
fn named_paths(tokens: &[Token<'_>]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut path: Vec<&str> = Vec::new();
    // In a `use`, how long the path was before each open brace.
    let mut groups: Option<Vec<usize>> = None;
    for (at, token) in tokens.iter().enumerate() {
        match token.text {
            // `use<'a>` in a type is no import.
            "use" if tokens.get(at + 1).is_some_and(|next| next.text != "<") => {
                (path, groups) = (Vec::new(), Some(Vec::new()));
            }
            ";" => (path, groups) = (Vec::new(), None),
            ":" => {}
            word if token.is_word() => {
                let follows = at > 1 && tokens[at - 2..at].iter().all(|token| token.text == ":");
                if groups.is_none() && !follows {
                    path.clear();
                }
                path.push(word);
                found.push((at, path.join("::")));
            }
            punctuation => match (punctuation, &mut groups) {
                (_, None) => path.clear(),
                ("{", Some(groups)) => groups.push(path.len()),
                ("}", Some(groups)) => path.truncate(groups.pop().unwrap_or_default()),
                (",", Some(groups)) => path.truncate(groups.last().copied().unwrap_or_default()),
                _ => {}
            },
        }
    }
    found
}
