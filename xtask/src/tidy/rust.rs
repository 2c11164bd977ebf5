//! The shape of one Rust file: its attributes, items, functions and tests.

use super::lexer::{Token, lex};
use std::ops::Range;

/// A file, its tokens, and which of them are there for tests only.
#[derive(Debug)]
pub(super) struct RustFile<'a> {
    pub(super) path: &'a str,
    /// Whether all of it is compiled for tests or benchmarks only.
    pub(super) is_test: bool,
    pub(super) text: &'a str,
    pub(super) tokens: Vec<Token<'a>>,
    /// For a bracket, where its partner is; for any other token, itself.
    pub(super) partners: Vec<usize>,
    /// The items under `#[cfg(test)]` and `#[test]`.
    pub(super) tests: Vec<Range<usize>>,
}

/// `#[..]`, its brackets not included.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attribute {
    pub(super) start: usize,
    pub(super) end: usize,
}

/// Whether the file is `module.rs` or under `module/`.
pub(super) fn is_file_of(path: &str, module: &str) -> bool {
    path.strip_prefix(module).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

/// `crates/<crate>/<directory>/..`: the crate and the directory.
pub(super) fn place(path: &str) -> Option<(&str, &str)> {
    let mut parts = path.strip_prefix("crates/")?.split('/');
    parts.next().zip(parts.next())
}

// === impl RustFile ===

impl<'a> RustFile<'a> {
    pub(super) fn new(path: &'a str, text: &'a str) -> Self {
        let tokens = lex(text);
        let partners = partners(&tokens);
        let is_test = is_test_path(path);
        let mut file = Self { path, is_test, text, tokens, partners, tests: Vec::new() };
        file.tests = file.items_under(|words| is_cfg_test(words) || is_test_attribute(words));
        file
    }

    /// Where the files of its `#[cfg(test)] mod name;` are, without `.rs`: nothing in those files
    /// says that they are tests.
    pub(super) fn test_modules(&self) -> Vec<String> {
        let stem = self.path.strip_suffix(".rs").unwrap_or(self.path);
        let directory = match stem.rsplit_once('/') {
            Some((parent, "lib" | "main")) => parent,
            _ => stem,
        };
        let modules = self.tests.iter().filter_map(|item| match &self.tokens[item.clone()] {
            [.., module, name, end] if module.text == "mod" && end.text == ";" => Some(name.text),
            _ => None,
        });
        modules.map(|name| format!("{directory}/{name}")).collect()
    }

    /// What it defines as `pub struct`, `enum`, `trait` or `type`, neither hidden nor for tests.
    pub(super) fn public_types(&self) -> Vec<&'a str> {
        let hidden = self.items_under(|words| matches!(words, ["doc", "(", "hidden", ")"]));
        let is_hidden = |at| self.is_in_test(at) || hidden.iter().any(|item| item.contains(&at));
        let found = self.tokens.windows(3).enumerate().filter(|(at, window)| {
            let is_type = matches!(window[1].text, "struct" | "enum" | "trait" | "type");
            window[0].text == "pub" && is_type && window[2].is_word() && !is_hidden(*at)
        });
        found.map(|(_, window)| window[2].text).collect()
    }

    pub(super) fn is_in_test(&self, at: usize) -> bool {
        self.is_test || self.tests.iter().any(|item| item.contains(&at))
    }

    pub(super) fn attributes(&self) -> impl Iterator<Item = Attribute> + '_ {
        self.tokens.windows(2).enumerate().filter_map(|(at, window)| {
            let is_one = window[0].text == "#" && window[1].text == "[";
            // A bracket without a partner, in a file that is being edited, is no attribute.
            (is_one && self.partners[at + 1] > at + 1)
                .then(|| Attribute { start: at + 2, end: self.partners[at + 1] })
        })
    }

    pub(super) fn words(&self, range: Range<usize>) -> Vec<&'a str> {
        self.tokens[range].iter().map(|token| token.text).collect()
    }

    /// The items, from the attribute on, that have an attribute of this kind.
    fn items_under(&self, is_meant: impl Fn(&[&str]) -> bool) -> Vec<Range<usize>> {
        let attributes = self.attributes();
        let meant = attributes.filter(|found| is_meant(&self.words(found.start..found.end)));
        meant.map(|found| found.start - 2..self.item_end(found.end + 1)).collect()
    }

    /// Behind the item, field, variant or statement that starts at `at`, or at its attributes.
    pub(super) fn item_end(&self, mut at: usize) -> usize {
        at = self.item_start(at);
        let commas_end_it = !is_item_start(self.text_at(at));
        while at < self.tokens.len() {
            match self.text_at(at) {
                "{" => return self.partners[at] + 1,
                ";" => return at + 1,
                "," if commas_end_it => return at + 1,
                "}" | ")" | "]" => return at,
                _ => at = self.partners[at] + 1,
            }
        }
        at
    }

    /// Behind the attributes that start at `at`.
    pub(super) fn item_start(&self, mut at: usize) -> usize {
        while self.text_at(at) == "#" && self.text_at(at + 1) == "[" {
            at = self.partners[at + 1] + 1;
        }
        at
    }

    /// The first word of what the function at `start` returns; "" for nothing.
    pub(super) fn returned(&self, start: usize) -> &'a str {
        let mut at = start;
        while !matches!(self.text_at(at), "" | "{" | ";") {
            // Bounds of a generic parameter may have an arrow of their own, in brackets.
            let is_arrow = self.text_at(at) == "-" && self.text_at(at + 1) == ">";
            if is_arrow && self.text_at(at - 1) == ")" && self.partners[at - 1] >= start + 2 {
                let is_own = self.text_at(self.partners[at - 1] - 1) != "Fn";
                let before = self.text_at(self.partners[at - 1] - 1);
                if is_own && !matches!(before, "FnMut" | "FnOnce") {
                    return self.text_at(at + 2);
                }
            }
            at = self.partners[at].max(at) + 1;
        }
        ""
    }

    pub(super) fn text_at(&self, at: usize) -> &'a str {
        self.tokens.get(at).map_or("", |token| token.text)
    }

    /// Each function that has a body: where its `fn` is, and where its last brace.
    pub(super) fn functions(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let named = self.tokens.windows(2).enumerate();
        let named = named.filter(|(_, window)| window[0].text == "fn" && window[1].is_word());
        named.filter_map(|(start, _)| {
            let end = self.item_end(start);
            (end > start && self.text_at(end - 1) == "}").then(|| (start, end - 1))
        })
    }
}

fn is_test_path(path: &str) -> bool {
    let mut parts = path.split('/');
    parts.any(|part| matches!(part, "tests" | "benches" | "tests.rs"))
}

/// `cfg(test)`, or `cfg(all(test, ..))`.
fn is_cfg_test(words: &[&str]) -> bool {
    let ["cfg", "(", "all", "(", all @ ..] = words else {
        return words == ["cfg", "(", "test", ")"];
    };
    let mut depth = 0;
    all.iter().any(|word| {
        match *word {
            "(" => depth += 1,
            ")" => depth -= 1,
            _ => {}
        }
        depth == 0 && *word == "test"
    })
}

/// `test`, `tokio::test(..)`: a path that ends in `test`.
pub(super) fn is_test_attribute(words: &[&str]) -> bool {
    let path = words.split(|word| *word == "(").next().unwrap_or_default();
    path.last() == Some(&"test") && path.iter().rev().skip(1).step_by(3).all(|word| *word == ":")
}

fn is_item_start(word: &str) -> bool {
    const ITEMS: [&str; 16] = [
        "async",
        "const",
        "enum",
        "extern",
        "fn",
        "impl",
        "let",
        "macro_rules",
        "mod",
        "pub",
        "static",
        "struct",
        "trait",
        "type",
        "unsafe",
        "use",
    ];
    ITEMS.contains(&word)
}

fn partners(tokens: &[Token<'_>]) -> Vec<usize> {
    let mut partners: Vec<_> = (0..tokens.len()).collect();
    let mut open = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        match token.text {
            "(" | "[" | "{" => open.push(at),
            ")" | "]" | "}" => {
                if let Some(start) = open.pop() {
                    partners.swap(start, at);
                }
            }
            _ => {}
        }
    }
    partners
}
