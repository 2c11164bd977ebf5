//! What the README and the guide name is there.

use super::{
    blocks::{Block, blocks_of},
    project::root,
};
use std::{
    fs,
    path::{Path, PathBuf},
};

const GUIDE: &str = "crates/cinchona/src/guide";

/// The README, and the pages of the guide.
fn pages() -> Vec<PathBuf> {
    let pages = fs::read_dir(root().join(GUIDE)).unwrap().map(|page| page.unwrap().path());
    let mut pages: Vec<PathBuf> = pages.collect();
    pages.push(root().join("README.md"));
    pages.sort();
    pages
}

fn blocks() -> Vec<Block> {
    pages().iter().flat_map(|page| blocks_of(page)).collect()
}

/// The names of the facade's features.
fn features() -> Vec<String> {
    let manifest = fs::read_to_string(root().join("crates/cinchona/Cargo.toml")).unwrap();
    let features = manifest.split("[features]").nth(1).unwrap().split("\n[").next().unwrap();
    let lines = features.lines().filter_map(|line| line.split_once(" = "));
    lines.map(|(name, _)| name.to_owned()).collect()
}

// catalogue: S-D12
#[test]
fn the_readme_has_at_most_8_kb() {
    assert!(fs::metadata(root().join("README.md")).unwrap().len() <= 8000);
}

// catalogue: S-D12
#[test]
fn every_snippet_is_shown_whole() {
    for block in blocks().iter().filter(|block| block.language() == "rust") {
        let hidden = block.text.lines().find(|line| *line == "#" || line.starts_with("# "));
        assert_eq!(hidden, None, "{}", block.place);
    }
}

/// `xtask/peers/build.rs` takes it from the page of migrating, and builds it. The build script that
/// needs protoc is compiled with that of the examples.
// catalogue: S-D12
#[test]
fn only_code_of_other_crates_is_built_elsewhere() {
    let protoc = fs::read_to_string(root().join("crates/cinchona/examples/proto/protoc.rs"));
    let (_, protoc) = protoc.as_ref().unwrap().split_once("\n\n").unwrap();
    for block in blocks().iter().filter(|block| block.info.contains("ignore")) {
        let is_built = block.place.contains("migrating.md") || block.text == protoc;
        assert!(is_built, "{}", block.place);
    }
}

// catalogue: S-D12
#[test]
fn every_feature_that_a_manifest_of_the_guide_asks_for_is_one() {
    let known = features();
    for block in blocks().iter().filter(|block| block.language() == "toml") {
        for line in block.text.lines().filter(|line| line.starts_with("cinchona = {")) {
            let Some((_, asked)) = line.split_once("features = [") else { continue };
            for feature in asked.split(']').next().unwrap().split(',') {
                let feature = feature.trim().trim_matches('"');
                assert!(known.iter().any(|known| known == feature), "{}: {feature}", block.place);
            }
        }
    }
}

// catalogue: S-D12
#[test]
fn every_command_is_one() {
    let help = fs::read_to_string(root().join("xtask/src/main.rs")).unwrap();
    let calculator = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let lab = fs::read_to_string(root().join("crates/lab/Cargo.toml")).unwrap();
    for block in blocks().iter().filter(|block| block.language() == "sh") {
        for line in block.text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let is_known = match &words[..] {
                ["cargo", "xtask", task, ..] => help.contains(&format!("\n  {task} ")),
                ["cargo", "run", "-p", "cinchona", "--example", name, ..] => {
                    root().join(format!("crates/cinchona/examples/{name}.rs")).exists()
                }
                ["cargo", "run", "--bin", name, ..] => {
                    matches!(*name, "server" | "client")
                        || calculator.contains(&format!("name = \"{name}\""))
                }
                ["cargo", "run", "-p", "lab", "--bin", name, ..] => {
                    lab.contains(&format!("[[bin]]\nname = \"{name}\""))
                }
                ["cargo", "test" | "add", ..] | ["curl" | "mdbook", ..] => true,
                _ => false,
            };
            assert!(is_known, "{}: {line}", block.place);
        }
    }
}

#[test]
fn every_link_leads_to_a_file() {
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let is_here = !link.contains("://") && !link.starts_with('#');
            let file = link.split('#').next().unwrap();
            let target = page.parent().unwrap().join(file);
            assert!(!is_here || target.exists(), "{}: {link}", page.display());
        }
    }
}

#[test]
fn every_page_is_in_the_summary_and_in_rustdoc() {
    let summary = fs::read_to_string(root().join(GUIDE).join("SUMMARY.md")).unwrap();
    let module = fs::read_to_string(root().join(GUIDE).with_extension("rs")).unwrap();
    for page in fs::read_dir(root().join(GUIDE)).unwrap() {
        let name = page.unwrap().file_name().into_string().unwrap();
        let is_listed = name == "SUMMARY.md" || summary.contains(&format!("]({name})"));
        assert!(is_listed, "{name} is not in the summary");
        let is_shown = name == "SUMMARY.md" || module.contains(&format!("guide/{name}"));
        assert!(is_shown, "{name} is not in rustdoc");
    }
    assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join("book.toml").exists());
}

/// The names of all instruments in the text of a file of the workspace.
fn instruments(text: &str) -> impl Iterator<Item = String> {
    let quoted = text.split('"').skip(1).step_by(2);
    let prefixes = ["cinchona.", "grpc.client.", "grpc.server.", "grpc.lb."];
    let is_name = move |word: &&str| {
        prefixes.iter().any(|prefix| word.starts_with(prefix))
            && !word.ends_with("_method")
            && !word.ends_with("_reason")
    };
    quoted.filter(is_name).map(|name| name.replace('.', "_"))
}

// catalogue: S-D14
#[test]
fn every_series_is_explained_to_operators() {
    let page = fs::read_to_string(root().join(GUIDE).join("operations.md")).unwrap();
    let mut files = vec![root().join("crates/observe/src/names.rs")];
    for folder in fs::read_dir(root().join("crates")).unwrap() {
        let metrics = folder.unwrap().path().join("src/metrics.rs");
        if metrics.exists() && !metrics.ends_with("observe/src/metrics.rs") {
            files.push(metrics);
        }
    }
    let texts = files.iter().map(|file| fs::read_to_string(file).unwrap());
    let names: Vec<String> =
        texts.flat_map(|text| instruments(&text).collect::<Vec<_>>()).collect();
    assert!(names.len() > 50, "{names:?}");
    let missing: Vec<_> = names.iter().filter(|name| !page.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}
