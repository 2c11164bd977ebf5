//! The two phases of a layer: settings, of which `with_*` makes a changed copy, and a layer that
//! runs, which `set_*` changes and `counters` reads.

use super::{
    rust::{RustFile, place},
    violation::Violation,
};
use std::{collections::BTreeSet, ops::Range};

/// `impl Name {..}`, or `impl Trait for Name {..}`.
struct Block<'a> {
    of: Option<&'a str>,
    name: &'a str,
    body: Range<usize>,
}

pub(super) fn check(sources: &[RustFile<'_>]) -> Vec<Violation> {
    let sources = || sources.iter().filter(|source| !source.is_test);
    let mut found: Vec<_> = sources().flat_map(builders).collect();
    let counting: BTreeSet<_> = sources()
        .flat_map(|source| {
            let own = blocks(source).filter(|block| block.of.is_none());
            let counting = own.filter(|block| public(source, &block.body, "counters").is_some());
            counting.map(|block| (place(source.path), block.name)).collect::<Vec<_>>()
        })
        .collect();
    for source in sources() {
        for block in blocks(source).filter(|block| block.of == Some("Observable")) {
            let is_layer = block.name.ends_with("Layer");
            if is_layer && !counting.contains(&(place(source.path), block.name)) {
                let what = format!("`{}` has no `counters`", block.name);
                let rule = "what a layer counts is read by `counters()`";
                found.push(violation(source, block.body.start, what, rule));
            }
        }
    }
    found
}

fn builders(source: &RustFile<'_>) -> Vec<Violation> {
    let layers = blocks(source).filter(|block| {
        let is_layer = block.name.ends_with("Layer");
        block.of.is_none() && is_layer
    });
    let found = layers.filter_map(|block| {
        let at = public(source, &block.body, "with_")?;
        let what = format!("`{}::{}`", block.name, source.text_at(at));
        let rule = "`with_*` is of a layer's settings; a layer that runs has `set_*`";
        Some(violation(source, at, what, rule))
    });
    found.collect()
}

/// The name of the first public function in `body` that begins so.
fn public(source: &RustFile<'_>, body: &Range<usize>, begins: &str) -> Option<usize> {
    let names = body.clone().filter(|at| source.text_at(at - 1) == "fn");
    let named = names.filter(|at| source.text_at(*at).starts_with(begins));
    named.into_iter().find(|at| {
        let head = source.words(at.saturating_sub(4)..*at);
        let head = head.iter().rev().skip_while(|word| matches!(**word, "fn" | "const" | "async"));
        head.clone().next() == Some(&"pub") && !source.is_in_test(*at)
    })
}

fn blocks<'a>(source: &RustFile<'a>) -> impl Iterator<Item = Block<'a>> {
    let starts = (0..source.tokens.len()).filter(|at| source.text_at(*at) == "impl");
    starts.filter_map(|start| {
        let is_item = start == 0 || matches!(source.text_at(start - 1), "}" | ";" | "]" | "{");
        let open = (start..source.tokens.len()).find(|at| source.text_at(*at) == "{")?;
        let mut words = names(&source.words(start + 1..open)).into_iter();
        let (first, second) = (words.next()?, words.next());
        let (of, name) = match second {
            Some(name) => (Some(first), name),
            None => (None, first),
        };
        is_item.then(|| Block { of, name, body: open + 1..source.partners[open] })
    })
}

/// The types of the head of a block, without what is in angle brackets, and without bounds.
fn names<'a>(head: &[&'a str]) -> Vec<&'a str> {
    let (mut depth, mut last, mut found) = (0_i32, None, Vec::new());
    for (at, word) in head.iter().enumerate() {
        match *word {
            "<" => depth += 1,
            // The arrow of a bound is no bracket.
            ">" if at > 0 && head[at - 1] != "-" => depth -= 1,
            "for" if depth == 0 => found.extend(last.take()),
            "where" if depth == 0 => break,
            word if depth == 0 && word.starts_with(char::is_alphabetic) => last = Some(word),
            _ => {}
        }
    }
    found.extend(last);
    found
}

fn violation(source: &RustFile<'_>, at: usize, what: String, rule: &'static str) -> Violation {
    let line = source.tokens.get(at).map_or(1, |token| token.line);
    Violation { path: source.path.to_owned(), line, what, rule }
}
