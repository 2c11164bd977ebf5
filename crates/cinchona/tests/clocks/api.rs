//! Every name of the public API that takes a `Duration` or an `f64`, as the sources have it.
//!
//! It reads lines and not Rust, which is enough for what rustfmt has formatted: items begin in the
//! first column, and their methods, fields and variants in the fifth.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Tests and examples.
const NOT_READ: [&str; 3] = ["testkit", "calculator", "lab"];

/// The names, such as `balance::Options::patience`.
pub(crate) fn names() -> BTreeSet<String> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut names = BTreeSet::new();
    for library in fs::read_dir(crates).unwrap() {
        let library = library.unwrap();
        let name = library.file_name().into_string().unwrap();
        if !NOT_READ.contains(&name.as_str()) && library.path().join("src").is_dir() {
            for file in sources(&library.path().join("src")) {
                names.extend(of_file(&name, &fs::read_to_string(file).unwrap()));
            }
        }
    }
    names
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "tests" {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|end| end == "rs") && name != "tests" {
            found.push(path);
        }
    }
    found
}

/// What a line stands in.
#[derive(Clone, Debug, PartialEq)]
enum Place {
    Other,
    /// An `impl`, or a struct with fields, by its name.
    Type(String),
    Enum(String),
    Trait(String),
}

pub(crate) fn of_file(library: &str, text: &str) -> Vec<String> {
    let text = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
    let mut names = Vec::new();
    let mut place = Place::Other;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let rest = &text[at..];
        at += line.len();
        let line = line.trim_end();
        if line.starts_with("    ") {
            names.extend(member(
                &place,
                line.strip_prefix("    ").unwrap_or(line),
                rest.trim_start(),
            ));
        } else if !line.is_empty() && line != "}" && !line.starts_with(['/', '#', ')']) {
            place = begun(line);
            names.extend(item(line, rest));
        }
    }
    names.into_iter().map(|name| format!("{library}::{name}")).collect()
}

/// What begins at a line that is not indented.
fn begun(line: &str) -> Place {
    let named =
        |after: &str| after.split(|c: char| !is_of_name(c)).next().unwrap_or_default().to_owned();
    if let Some(after) = line.strip_prefix("impl") {
        let after = without_generics(after).trim_start();
        // The methods of a trait are listed with the trait.
        return if after.contains(" for ") { Place::Other } else { Place::Type(named(after)) };
    }
    for (start, place) in [
        ("pub struct ", Place::Type as fn(String) -> Place),
        ("pub enum ", Place::Enum),
        ("pub trait ", Place::Trait),
    ] {
        if let Some(after) = line.strip_prefix(start) {
            return place(named(after));
        }
    }
    Place::Other
}

/// A function of a module, or a struct whose fields have no names.
fn item(line: &str, rest: &str) -> Option<String> {
    if let Some(after) = line.strip_prefix("pub struct ") {
        let fields = after.split_once('(')?.1;
        let name = after.split(|c: char| !is_of_name(c)).next()?;
        let is_public = fields.contains("pub ") && !fields.contains("pub(crate)");
        return (is_public && takes(fields)).then(|| name.to_owned());
    }
    function(line, rest, "pub ")
}

/// A method, a field or a variant.
fn member(place: &Place, line: &str, rest: &str) -> Option<String> {
    let (owner, found) = match place {
        Place::Other => return None,
        Place::Type(owner) => (owner, function(line, rest, "pub ").or_else(|| field(line))),
        Place::Trait(owner) => (owner, function(line, rest, "")),
        Place::Enum(owner) => (owner, variant(line)),
    };
    found.map(|found| format!("{owner}::{found}"))
}

/// A function that takes one, by its parameters, up to where they end.
fn function(line: &str, rest: &str, start: &str) -> Option<String> {
    let mut after = line.strip_prefix(start)?;
    for word in ["const ", "async "] {
        after = after.strip_prefix(word).unwrap_or(after);
    }
    let after = after.strip_prefix("fn ")?;
    let name = after.split(|c: char| !is_of_name(c)).next()?;
    let rest = &rest[rest.find(name)? + name.len()..];
    let rest = without_generics(rest);
    let mut depth = 0;
    let end = rest.char_indices().find(|(_, c)| {
        depth += i32::from(*c == '(') - i32::from(*c == ')');
        depth == 0
    })?;
    takes(&rest[..end.0]).then(|| name.to_owned())
}

fn field(line: &str) -> Option<String> {
    let (name, kind) = line.strip_prefix("pub ")?.split_once(": ")?;
    (name.chars().all(is_of_name) && takes(kind)).then(|| name.to_owned())
}

fn variant(line: &str) -> Option<String> {
    if !line.starts_with(|c: char| c.is_ascii_uppercase() || c == ' ') || !takes(line) {
        return None;
    }
    Some(line.trim_start().split(|c: char| !is_of_name(c)).next()?.to_owned())
}

fn takes(text: &str) -> bool {
    text.split(|c: char| !is_of_name(c)).any(|word| matches!(word, "Duration" | "f64" | "f32"))
}

fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// What comes after `<...>`, if that is how `text` begins; an arrow is no bracket.
fn without_generics(text: &str) -> &str {
    if !text.starts_with('<') {
        return text;
    }
    let mut depth = 0;
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        depth += i32::from(c == '<') - i32::from(c == '>' && before != '-');
        before = c;
        if depth == 0 {
            return &text[at + 1..];
        }
    }
    text
}

#[test]
fn every_form_of_a_public_setting_is_seen_and_no_other() {
    let text = "\
pub struct Options {
    /// A doc of a Duration.
    pub patience: Option<Duration>,
    pub(crate) inner: Duration,
    private: f64,
    pub name: String,
}

pub struct Limit(pub Option<Duration>);
pub struct Own(Duration);

pub enum Jitter {
    None,
    Additive(Duration),
    Of {
        share: f64,
    },
}

impl<T> Options<T> {
    pub const fn with_limit(
        self,
        limit: PerMethod<Option<Duration>>,
    ) -> Self {
    }
    pub fn told(&self) -> Option<Duration> {}
    pub fn gauge<F: Fn() -> u8>(value: impl Fn() -> f64) {}
    pub(crate) fn hidden(limit: Duration) {}
    pub async fn leave(&self, drain: Duration) {}
}

impl Gate for Options {
    fn leave(&self, took: Duration) {}
}

pub trait Gate {
    fn leave(&self, took: Duration, now: Instant);
    fn told(&self) -> Duration;
}

pub fn export(each: Duration) -> Self {
}

#[cfg(test)]
mod tests {
    pub fn helper(each: Duration) {}
}
";
    let expected = [
        "a::Options::patience",
        "a::Limit",
        "a::Jitter::Additive",
        "a::Jitter::share",
        "a::Options::with_limit",
        "a::Options::gauge",
        "a::Options::leave",
        "a::Gate::leave",
        "a::export",
    ];
    assert_eq!(of_file("a", text), expected);
}
