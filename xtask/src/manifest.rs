//! As much of `Cargo.toml` as the tasks need: which key stands in which section.
//!
//! Not a TOML parser: multi-line strings and keys with escapes are not understood, and no
//! manifest of this workspace has any.

/// The `key = value` lines of a manifest, in order.
#[derive(Debug)]
pub(crate) struct Manifest<'a> {
    pub(crate) entries: Vec<Entry<'a>>,
}

/// One `key = value`, or one `[section]` alone, which has an empty key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    /// Between the brackets: `dependencies`, `workspace.package`.
    pub(crate) section: &'a str,
    /// Before the first `=` and without quotes: `tokio`, `tonic.workspace`.
    pub(crate) key: String,
    /// Arrays over several lines are joined; comments are gone.
    pub(crate) value: String,
    /// Counted from 1.
    pub(crate) line: usize,
}

/// One crate that a manifest names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Dependency {
    /// The package's own name, whatever this manifest calls it.
    pub(crate) package: String,
    pub(crate) dev: bool,
    pub(crate) line: usize,
}

// === impl Manifest ===

impl<'a> Manifest<'a> {
    pub(crate) fn parse(text: &'a str) -> Self {
        let mut entries: Vec<Entry<'a>> = Vec::new();
        let mut section = "";
        let mut open = 0;
        for (number, line) in text.lines().enumerate() {
            let content = without_comment(line).trim();
            if let (true, Some(entry)) = (open > 0, entries.last_mut()) {
                entry.value.push_str(content);
                open += nesting(content);
            } else if content.starts_with('[') {
                section = content.trim_matches(['[', ']']).trim();
                entries.push(Entry::new(section, "", "", number + 1));
            } else if let Some((key, value)) = content.split_once('=') {
                entries.push(Entry::new(section, key, value, number + 1));
                open = nesting(value);
            }
        }
        Self { entries }
    }

    /// The package's name; none for a manifest that is only a workspace.
    pub(crate) fn package(&self) -> Option<&str> {
        let mut entries = self.entries.iter();
        let name = entries.find(|entry| entry.section == "package" && entry.key == "name")?;
        Some(unquoted(&name.value))
    }

    /// What the package is built with or tested with, on any target.
    pub(crate) fn dependencies(&self) -> Vec<Dependency> {
        let mut found: Vec<Dependency> = Vec::new();
        for entry in &self.entries {
            let Some((dev, table)) = dependency_section(entry.section) else { continue };
            let line = entry.line;
            match (table, entry.key.as_str()) {
                (None, "") => {}
                // `cinchona-core.workspace = true` and `cinchona-core = { .. }`
                (None, key) => {
                    let name = key.split('.').next().unwrap_or(key);
                    let package = renamed(&entry.value).unwrap_or_else(|| unquoted(name).into());
                    found.push(Dependency { package, dev, line });
                }
                // `[dependencies.cinchona-core]`, and then perhaps `package = ".."`
                (Some(name), "") => {
                    found.push(Dependency { package: unquoted(name).into(), dev, line });
                }
                (Some(_), "package") => {
                    if let Some(last) = found.last_mut() {
                        last.package = unquoted(&entry.value).into();
                    }
                }
                (Some(_), _) => {}
            }
        }
        found
    }
}

// === impl Entry ===

impl<'a> Entry<'a> {
    fn new(section: &'a str, key: &str, value: &str, line: usize) -> Self {
        let (key, value) = (unquoted(key).to_owned(), value.trim().to_owned());
        Self { section, key, value, line }
    }
}

/// Whether the section lists dependencies: are they for tests only, and is it one crate's table?
fn dependency_section(section: &str) -> Option<(bool, Option<&str>)> {
    // `target.'cfg(unix)'.dependencies` is a list of dependencies like any other.
    let section = match section.strip_prefix("target.") {
        Some(rest) => &rest[rest.rfind("'.").or_else(|| rest.find('.')).map_or(0, |at| at + 1)..],
        None => section,
    };
    let section = section.trim_start_matches('.');
    let (kind, table) = match section.split_once('.') {
        Some((kind, table)) => (kind, Some(table)),
        None => (section, None),
    };
    match kind {
        "dependencies" | "build-dependencies" => Some((false, table)),
        "dev-dependencies" => Some((true, table)),
        _ => None,
    }
}

/// The `package = ".."` of an inline table.
fn renamed(value: &str) -> Option<String> {
    let table = value.strip_prefix('{')?.strip_suffix('}')?;
    let pairs = table.split(',').filter_map(|pair| pair.split_once('='));
    pairs
        .filter(|(key, _)| key.trim() == "package")
        .map(|(_, name)| unquoted(name).to_owned())
        .next()
}

fn unquoted(text: &str) -> &str {
    text.trim().trim_matches(['"', '\''])
}

fn without_comment(line: &str) -> &str {
    outside_strings(line).find(|(_, c)| *c == '#').map_or(line, |(at, _)| &line[..at])
}

/// How many more brackets `text` opens than it closes.
fn nesting(text: &str) -> i32 {
    outside_strings(text)
        .map(|(_, c)| match c {
            '[' | '{' => 1,
            ']' | '}' => -1,
            _ => 0,
        })
        .sum()
}

fn outside_strings(line: &str) -> impl Iterator<Item = (usize, char)> {
    let mut quote = None;
    line.char_indices().filter(move |(_, c)| match quote {
        Some(open) => {
            if *c == open {
                quote = None;
            }
            false
        }
        None => {
            if matches!(c, '"' | '\'') {
                quote = Some(*c);
            }
            quote.is_none()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn dependencies(text: &str) -> Vec<(String, bool, usize)> {
        let found = Manifest::parse(text).dependencies();
        found.into_iter().map(|found| (found.package, found.dev, found.line)).collect()
    }

    #[test]
    fn a_package_has_the_name_of_its_own_section() {
        let text = "[lib]\nname = 'x'\n[package]\nname = \"cinchona-core\" # core\n";
        assert_eq!(Manifest::parse(text).package(), Some("cinchona-core"));
        assert_eq!(Manifest::parse("[workspace]\nmembers = []\n").package(), None);
    }

    #[test]
    fn every_spelling_of_a_dependency_is_found() {
        let text = "[dependencies]\na.workspace = true\nb = '1'\nc = { package = \"d\" }\n\
                    [dev-dependencies]\ne = { version = '1' }\n\
                    [target.'cfg(unix)'.dependencies]\nf = '1'\n\
                    [build-dependencies.g]\nversion = '1'\npackage = 'h'\n";
        let found = dependencies(text);
        let expected = [("a", false, 2), ("b", false, 3), ("d", false, 4), ("e", true, 6)];
        let expected = expected.into_iter().chain([("f", false, 8), ("h", false, 9)]);
        assert_eq!(found, expected.map(|(n, dev, line)| (n.into(), dev, line)).collect::<Vec<_>>());
    }

    #[test]
    fn what_a_workspace_offers_is_no_dependency() {
        assert_eq!(dependencies("[workspace.dependencies]\na = '1'\n[features]\nb = []\n"), []);
    }

    #[test]
    fn an_array_over_several_lines_is_one_entry() {
        let manifest = Manifest::parse("a = [\n  \"x = 1\", # no key\n  \"]\",\n]\nb = 2\n");
        let keys: Vec<_> = manifest.entries.iter().map(|e| (e.key.as_str(), e.line)).collect();
        assert_eq!(keys, [("a", 1), ("b", 5)]);
    }
}
