//! No circles of modules: at every level, the uses between modules are an order.
//!
//! *Rule:* a level is a module that has files below it, with its children. An item of one of them
//! (or of a module below it) that names an item of another makes an edge. The parent is one of the
//! level: what its children use, and what uses its children, cannot both stand in it. A `mod` and
//! a re-export (`pub use`) make no edge: a name leads to the module that defines it. Tests do not
//! count.

use super::{rust::RustFile, uses::Uses, violation::Violation};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The names from the root of the crate on; the root's has none.
type Module<'a> = Vec<&'a str>;

/// One crate: its modules, by what they are called.
struct Modules<'a> {
    files: BTreeMap<Module<'a>, (&'a RustFile<'a>, Uses<'a>)>,
}

/// The uses between the children of one module, and the line of each.
type Level<'a> = BTreeMap<Module<'a>, BTreeMap<Module<'a>, (&'a str, usize)>>;

/// Each circle once, where it is shortest.
pub(super) fn check(sources: &[RustFile<'_>]) -> Vec<Violation> {
    let is_root = |source: &&RustFile<'_>| {
        !source.is_test && matches!(split(source.path).1, "lib.rs" | "main.rs")
    };
    let roots: BTreeSet<_> = sources.iter().filter(is_root).map(|s| split(s.path).0).collect();
    let roots: Vec<_> = roots.into_iter().collect();
    roots.iter().flat_map(|root| Modules::new(root, &roots, sources).circles()).collect()
}

/// The directory and the name of a file.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

// === impl Modules ===

impl<'a> Modules<'a> {
    /// The files below `root` that are below no other root in it.
    fn new(root: &str, roots: &[&str], sources: &'a [RustFile<'a>]) -> Self {
        let below = |path: &str, root: &str| {
            path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'))
        };
        let is_own = |path: &str| {
            let inner = |other: &&&str| below(other, root) && below(path, other);
            below(path, root) && !roots.iter().any(|other| inner(&other))
        };
        let own = sources.iter().filter(|source| !source.is_test && is_own(source.path));
        let file = |source: &'a RustFile<'a>| {
            let name = source.path[root.len() + 1..].trim_end_matches(".rs");
            let name = if matches!(name, "lib" | "main") { "" } else { name };
            let module = name.split('/').filter(|part| !part.is_empty()).collect();
            (module, (source, Uses::new(source)))
        };
        Self { files: own.map(file).collect() }
    }

    fn circles(&self) -> Vec<Violation> {
        let mut levels: BTreeMap<Module<'a>, Level<'a>> = BTreeMap::new();
        for (module, (source, uses)) in &self.files {
            let named = uses.named(|first| self.has_child(module, first));
            for (path, line) in named {
                let Some(target) = self.resolve(module, &path, 0) else { continue };
                let common = module.iter().zip(&target).take_while(|(a, b)| a == b).count();
                let at_level = |of: &[&'a str]| of[..of.len().min(common + 1)].to_vec();
                let (from, to) = (at_level(module), at_level(&target));
                if from != to {
                    let level = levels.entry(module[..common].to_vec()).or_default();
                    level.entry(from).or_default().entry(to).or_insert((source.path, line));
                }
            }
        }
        levels.values().flat_map(circles_of).collect()
    }

    fn has_child(&self, module: &[&'a str], name: &str) -> bool {
        self.child(module, name).is_some()
    }

    fn child(&self, module: &[&'a str], name: &str) -> Option<Module<'a>> {
        let is_child = |other: &&Module<'a>| {
            other.split_last().is_some_and(|(last, parent)| *last == name && parent == module)
        };
        self.files.keys().find(is_child).cloned()
    }

    /// The module that defines what `path` means in `module`; none if it is of another crate.
    fn resolve(&self, module: &[&'a str], path: &[&str], depth: usize) -> Option<Module<'a>> {
        // Re-exports that go round and round are the compiler's business.
        if depth > 8 {
            return None;
        }
        let mut at = match *path.first()? {
            "crate" => Vec::new(),
            "self" => module.to_vec(),
            "super" => module.split_last()?.1.to_vec(),
            name => self.child(module, name)?,
        };
        for name in &path[1..] {
            if *name == "super" {
                at.pop()?;
            } else if let Some(child) = self.child(&at, name) {
                at = child;
            } else {
                let imported = self.files.get(&at).and_then(|(_, uses)| uses.imported(name));
                return match imported {
                    Some(path) => self.resolve(&at, path, depth + 1),
                    None => Some(at),
                };
            }
        }
        Some(at)
    }
}

/// The shortest circle through each module that is in one, each module in one of them at most.
fn circles_of(level: &Level<'_>) -> Vec<Violation> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for start in level.keys() {
        let Some(circle) = circle(level, start).filter(|_| !seen.contains(start)) else { continue };
        let names: Vec<_> = circle.iter().chain([start]).map(|module| name(module)).collect();
        let (path, line) = level[start][circle.get(1).unwrap_or(start)];
        let what = format!("a circle of modules, {}", names.join(" → "));
        let rule = "the uses between modules are an order";
        found.push(Violation { path: path.to_owned(), line, what, rule });
        seen.extend(circle);
    }
    found
}

/// The shortest way from `start` back to it, without its end.
fn circle<'a>(level: &Level<'a>, start: &Module<'a>) -> Option<Vec<Module<'a>>> {
    let mut ways = VecDeque::from([vec![start.clone()]]);
    let mut reached = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        for next in way.last().and_then(|last| level.get(last)).into_iter().flat_map(|to| to.keys())
        {
            if next == start {
                return Some(way);
            }
            if reached.insert(next.clone()) {
                ways.push_back(way.iter().cloned().chain([next.clone()]).collect());
            }
        }
    }
    None
}

fn name(module: &[&str]) -> String {
    if module.is_empty() { "the root".to_owned() } else { module.join("::") }
}
