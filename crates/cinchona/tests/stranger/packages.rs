//! What docs.rs and crates.io show of each package.

use super::project::root;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The folders of the crates that are published, and their manifests.
fn published() -> Vec<(PathBuf, String)> {
    let folders = fs::read_dir(root().join("crates")).unwrap().map(|folder| folder.unwrap().path());
    let manifests = folders.filter_map(|folder| {
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).ok()?;
        Some((folder, manifest))
    });
    manifests.filter(|(_, manifest)| !manifest.contains("publish = false")).collect()
}

// catalogue: S-D15
#[test]
fn every_package_has_its_metadata_its_readme_and_both_licences() {
    let published = published();
    assert!(published.len() >= 19, "{published:?}");
    for (folder, manifest) in published {
        let at = folder.display();
        for line in [
            "description = ",
            "license.workspace = true",
            "repository.workspace = true",
            "keywords.workspace = true",
            "categories.workspace = true",
            "rust-version",
            "[package.metadata.docs.rs]\nall-features = true",
        ] {
            assert!(manifest.contains(line), "{at}: {line}");
        }
        let own = manifest.contains("readme = \"README.md\"");
        let is_facade = manifest.contains("name = \"cinchona\"");
        assert!(own != is_facade, "{at}: a README of its own, or that of the workspace");
        let files = ["LICENSE-APACHE", "LICENSE-MIT"].into_iter();
        for file in files.chain(own.then_some("README.md")) {
            assert!(folder.join(file).exists(), "{at}: {file}");
        }
    }
}

// catalogue: S-D15
#[test]
fn the_readme_of_each_package_is_short_and_its_snippet_is_built() {
    for (folder, manifest) in published() {
        let Ok(readme) = fs::read_to_string(folder.join("README.md")) else {
            assert!(manifest.contains("name = \"cinchona\""));
            continue;
        };
        let at = folder.display();
        assert!(readme.lines().count() <= 40, "{at}");
        let is_built = |root: &Path| {
            let source = fs::read_to_string(root.join("src/lib.rs")).unwrap();
            source.contains("#[doc = include_str!(\"../README.md\")]")
        };
        assert!(!readme.contains("```rust") || is_built(&folder), "{at}");
    }
}

/// Data without a default, which users make by a function, or by naming all of it.
const MADE_WHOLE: [&str; 7] = [
    "cluster/src/config.rs: Config",
    "cluster/src/node.rs: Node",
    "config/src/model.rs: HedgingPolicy",
    "config/src/model.rs: MethodEntry",
    "config/src/model.rs: RetryPolicy",
    "config/src/model.rs: RetryThrottling",
    "core/src/target.rs: Target",
];

/// All sources of a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let all = entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] });
    all.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

/// The structs in `source` all of whose fields are public, and whether each can get another one.
fn data_of(source: &str) -> Vec<(&str, bool)> {
    source.split("\n\n").filter_map(|block| datum(block, source)).collect()
}

/// The struct in a block of lines, if it is plain data, and whether it can get another field: it is
/// `non_exhaustive`, or has a default, with which users' literals end.
fn datum<'a>(block: &'a str, source: &str) -> Option<(&'a str, bool)> {
    let (attributes, rest) = block.split_once("pub struct ")?;
    let (name, fields) = rest.split_once(" {\n")?;
    let name = name.split('<').next()?;
    let fields = fields.split("\n}").next()?.lines().map(str::trim);
    let mut fields = fields.filter(|line| !line.is_empty() && !line.starts_with(['/', '#']));
    let is_top = attributes.lines().all(|line| line.starts_with(['/', '#']));
    let is_data = is_top && fields.all(|field| field.starts_with("pub "));
    let default = format!("impl Default for {name} ");
    let has_default = attributes.contains("Default") || source.contains(&default);
    is_data.then_some((name, attributes.contains("non_exhaustive") || has_default))
}

// catalogue: S-D15
#[test]
fn all_public_data_can_get_another_field_without_breaking_its_users() {
    let exported = exported_from_policy();
    for (folder, _) in published() {
        let is_api = !folder.ends_with("plumbing") && !folder.ends_with("testkit");
        for path in sources(&folder.join("src")).into_iter().filter(|_| is_api) {
            let text = fs::read_to_string(&path).unwrap();
            let place = path.strip_prefix(root().join("crates")).unwrap().display().to_string();
            for (data, can_grow) in data_of(&text) {
                if folder.ends_with("policy") && !exported.contains(data) {
                    continue;
                }
                let name = format!("{place}: {data}");
                assert!(can_grow != MADE_WHOLE.contains(&&*name), "{name}");
            }
        }
    }
}

/// What the crates around `policy` export again of it: nothing else there is a promise.
fn exported_from_policy() -> String {
    let mut exported = String::new();
    for (folder, _) in published() {
        for path in sources(&folder.join("src")) {
            let text = fs::read_to_string(&path).unwrap();
            for (at, _) in text.match_indices("pub use cinchona_policy") {
                exported.extend(text[at..].split(';').next());
            }
        }
    }
    assert!(exported.contains("BreakerPolicy"));
    exported
}

/// The functions in `source` that turn a value into a changed one, and are not `#[must_use]`.
fn droppable(source: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (at, _) in source.match_indices("pub fn ").chain(source.match_indices("pub const fn ")) {
        let head = source[at..].split([';', '{']).next().unwrap();
        let takes_itself = head.contains("(self") || head.contains("(mut self");
        let before = source[..at].rsplit("\n\n").next().unwrap();
        if takes_itself && head.contains("-> Self") && !before.contains("#[must_use") {
            found.push(head.trim());
        }
    }
    found
}

// catalogue: S-D11
#[test]
fn a_changed_copy_that_is_not_used_is_a_warning_of_the_compiler() {
    assert_eq!(droppable("impl A {\n    pub fn b(self) -> Self {}\n}"), ["pub fn b(self) -> Self"]);
    for (folder, _) in published() {
        for path in sources(&folder.join("src")) {
            let found = fs::read_to_string(&path).unwrap();
            assert_eq!(droppable(&found), Vec::<&str>::new(), "{}", path.display());
        }
    }
}
