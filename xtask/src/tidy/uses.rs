//! The paths that a file names: its imports, and what its code says in full.

use super::rust::RustFile;
use std::collections::BTreeMap;

/// What one file names outside of its tests.
#[derive(Debug, Default)]
pub(super) struct Uses<'a> {
    /// By the name that each has here.
    imports: BTreeMap<&'a str, Vec<&'a str>>,
    /// Paths with a `::`, and where: those of imports that are for itself, and those of its code.
    paths: Vec<(Vec<&'a str>, usize)>,
}

// === impl Uses ===

impl<'a> Uses<'a> {
    pub(super) fn new(file: &RustFile<'a>) -> Self {
        let mut uses = Self::default();
        let mut words = Vec::new();
        let mut exported = BTreeMap::new();
        let mut at = 0;
        while at < file.tokens.len() {
            if file.is_in_test(at) {
                at += 1;
            } else if file.text_at(at) == "use" && file.text_at(at + 1) != "<" {
                let end = file.item_end_of_use(at);
                let (imports, line) = (tree(file, at + 1, end), file.tokens[at].line);
                let is_exported = at > 0 && matches!(file.text_at(at - 1), "pub" | ")");
                for (name, path) in imports {
                    if is_exported {
                        exported.insert(name, path.clone());
                    } else {
                        uses.paths.push((path.clone(), line));
                    }
                    uses.imports.insert(name, path);
                }
                at = end;
            } else if file.tokens[at].is_word() {
                let start = at;
                at = path_end(file, at);
                let path = (start..at).step_by(3).map(|at| file.text_at(at)).collect::<Vec<_>>();
                let is_field = start > 0 && file.text_at(start - 1) == ".";
                if !is_field {
                    words.push((path, file.tokens[start].line));
                }
            } else {
                at += 1;
            }
        }
        // What it exports and uses as well is named here after all.
        for (path, line) in words {
            match exported.get(path[0]) {
                Some(meant) => uses.paths.push((meant.clone(), line)),
                None if path.len() > 1 => uses.paths.push((path, line)),
                None => {}
            }
        }
        uses
    }

    /// The path that `name` was imported by.
    pub(super) fn imported(&self, name: &str) -> Option<&[&'a str]> {
        self.imports.get(name).map(Vec::as_slice)
    }

    /// The paths into this crate; `is_child` says whether a name is a module of this one.
    pub(super) fn named(
        &self,
        is_child: impl Fn(&str) -> bool,
    ) -> impl Iterator<Item = (Vec<&'a str>, usize)> {
        let is_ours =
            move |path: &[&str]| matches!(path[0], "crate" | "self" | "super") || is_child(path[0]);
        self.paths.iter().filter(move |(path, _)| is_ours(path)).cloned()
    }
}

impl RustFile<'_> {
    /// At the semicolon of the `use` that starts at `at`.
    fn item_end_of_use(&self, at: usize) -> usize {
        let end = (at..self.tokens.len()).find(|at| self.text_at(*at) == ";");
        end.unwrap_or(self.tokens.len())
    }
}

/// Behind the last word of the `a::b::c` that starts at `at`.
fn path_end(file: &RustFile<'_>, mut at: usize) -> usize {
    let is_word = |at| file.tokens.get(at).is_some_and(super::lexer::Token::is_word);
    while file.text_at(at + 1) == ":" && file.text_at(at + 2) == ":" && is_word(at + 3) {
        at += 3;
    }
    at + 1
}

/// Each name that `use a::{b, c as d, e::{self, *}}` brings, and its path.
fn tree<'a>(file: &RustFile<'a>, start: usize, end: usize) -> Vec<(&'a str, Vec<&'a str>)> {
    let mut found: Vec<(&str, Vec<&str>)> = Vec::new();
    let mut path: Vec<&str> = Vec::new();
    let mut groups = Vec::new();
    let mut alias = None;
    let mut at = start;
    let mut leaf = |path: &[&'a str], alias: &mut Option<&'a str>| {
        let path = match path {
            [before @ .., "self" | "*"] if !before.is_empty() => before,
            path => path,
        };
        if let Some(name) = path.last() {
            found.push((alias.take().unwrap_or(name), path.to_vec()));
        }
    };
    while at < end {
        match file.text_at(at) {
            "as" => {
                at += 1;
                alias = Some(file.text_at(at));
            }
            "{" => groups.push(path.len()),
            close @ ("," | "}") => {
                let before = groups.last().copied().unwrap_or_default();
                if path.len() > before {
                    leaf(&path, &mut alias);
                }
                path.truncate(before);
                if close == "}" {
                    groups.pop();
                    // The group itself was no leaf.
                    path.truncate(groups.last().copied().unwrap_or_default());
                }
            }
            ":" => {}
            word => path.push(word),
        }
        at += 1;
    }
    if !path.is_empty() {
        leaf(&path, &mut alias);
    }
    found
}
