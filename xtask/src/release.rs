//! `cargo xtask release --dry-run`: packs all crates, and builds them from their packages alone.

use crate::{
    ci::facade_features,
    command::{cargo_command, root, run},
    manifest::Manifest,
};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

/// The packages that are not published.
const KEPT: [&str; 5] = ["calculator", "example-proto", "lab", "outside", "xtask"];

/// Packs the crates and builds them; the exit code of what fails first.
pub(crate) fn dry_run() -> u8 {
    prepare().unwrap_or_else(|error| {
        eprintln!("cannot prepare the release: {error}");
        1
    })
}

fn prepare() -> io::Result<u8> {
    let root = root();
    let crates = published(&root)?;
    println!("to be published, in this order:");
    crates.iter().enumerate().for_each(|(n, own)| println!("{:3}. {own}", n + 1));
    let mut pack = cargo_command();
    pack.args(["package", "--workspace", "--no-verify", "--allow-dirty", "--quiet"]);
    KEPT.iter().for_each(|kept| _ = pack.args(["--exclude", kept]));
    let target = target(&root);
    pack.arg("--target-dir").arg(&target);
    match run(&mut pack) {
        0 => {}
        code => return Ok(code),
    }
    let place = target.join("release");
    unpack(&crates, &target, &place)?;
    fs::copy(root.join("Cargo.lock"), place.join("Cargo.lock"))?;
    let features = facade_features(&root)?;
    for arguments in builds(&crates, &features) {
        println!("== cargo {}", arguments.join(" "));
        let mut build = cargo_command();
        build.args(&arguments).arg("--quiet").arg("--target-dir").arg(&target);
        match run(build.current_dir(&place)) {
            0 => {}
            code => return Ok(code),
        }
    }
    println!("{} packages, each builds by itself", crates.len());
    Ok(0)
}

fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}

/// All crates that are published, each after those that it needs.
fn published(root: &Path) -> io::Result<Vec<String>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(root.join("crates"))? {
        let path = entry?.path().join("Cargo.toml");
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let manifest = Manifest::parse(&text);
        let Some(name) = manifest.package().filter(|name| !KEPT.contains(name)) else { continue };
        let needs = manifest.dependencies().into_iter().filter(|needed| !needed.dev);
        let needs = needs.map(|needed| needed.package).collect::<Vec<_>>();
        found.insert(name.to_owned(), needs);
    }
    let ours: Vec<_> = found.keys().cloned().collect();
    let mut ordered: Vec<String> = Vec::new();
    while !found.is_empty() {
        let done = |needed: &String| !ours.contains(needed) || ordered.contains(needed);
        let next = found.iter().find(|(_, needs)| needs.iter().all(done));
        let Some(name) = next.map(|(name, _)| name.clone()) else {
            return Err(io::Error::other("the crates need each other in a circle"));
        };
        found.remove(&name);
        ordered.push(name);
    }
    Ok(ordered)
}

/// Makes a workspace of the packages, in which each finds the others.
fn unpack(crates: &[String], target: &Path, place: &Path) -> io::Result<()> {
    if place.exists() {
        fs::remove_dir_all(place)?;
    }
    fs::create_dir_all(place)?;
    let manifest = fs::read_to_string(root().join("Cargo.toml"))?;
    let manifest = Manifest::parse(&manifest);
    let mut entries = manifest.entries.iter();
    let is_version = |section, key| section == "workspace.package" && key == "version";
    let version = entries.find(|entry| is_version(entry.section, entry.key.as_str()));
    let version = version.map_or("", |entry| entry.value.trim_matches('"'));
    let folder = |own: &String| format!("{own}-{version}");
    for own in crates {
        let package = target.join(format!("package/{}.crate", folder(own)));
        let mut tar = Command::new("tar");
        if run(tar.arg("xzf").arg(&package).arg("-C").arg(place)) != 0 {
            return Err(io::Error::other(format!("cannot unpack {}", package.display())));
        }
    }
    let members: String = crates.iter().map(|own| format!("    \"{}\",\n", folder(own))).collect();
    let paths = crates.iter().map(|own| format!("{own} = {{ path = \"{}\" }}\n", folder(own)));
    let paths: String = paths.collect();
    let text = format!(
        "[workspace]\nresolver = \"3\"\nmembers = [\n{members}]\n\n[patch.crates-io]\n{paths}"
    );
    fs::write(place.join("Cargo.toml"), text)
}

/// What is built of them: each by itself, then with all features, and each feature of the facade.
fn builds(crates: &[String], features: &[String]) -> Vec<Vec<String>> {
    let words = |text: String| text.split(' ').map(String::from).collect();
    let each = crates.iter().map(|own| format!("check -p {own}"));
    let one = |feature| format!("check -p cinchona --no-default-features --features {feature}");
    let features = features.iter().map(one);
    each.chain(["check --workspace --all-features".into()]).chain(features).map(words).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_publishing_is_that_of_releasing_md() {
        let crates = published(&root()).unwrap();
        assert!(crates.len() > 15 && crates.last().unwrap() != "cinchona-plumbing");
        let page = fs::read_to_string(root().join("RELEASING.md")).unwrap();
        let listed = page.lines().filter_map(|line| line.strip_prefix("1. `")?.split('`').next());
        assert_eq!(crates, listed.collect::<Vec<_>>());
    }

    #[test]
    fn what_is_not_published_is_excluded_by_every_command() {
        let page = fs::read_to_string(root().join("RELEASING.md")).unwrap();
        let words: Vec<&str> = page.split_whitespace().map(|word| word.trim_matches('`')).collect();
        let commands = words.split(|word| *word == "--workspace").skip(1);
        let excluded = commands.map(|after| {
            let pairs = after.chunks(2).take_while(|pair| pair[0] == "--exclude");
            pairs.map(|pair| pair[1].trim_matches(['`', '.', ','])).collect::<Vec<_>>()
        });
        assert_eq!(excluded.collect::<Vec<_>>(), [KEPT.to_vec(), KEPT.to_vec()]);
        let ci = fs::read_to_string(root().join(".github/workflows/ci.yml")).unwrap();
        assert!(ci.contains(&format!("exclude: {}\n", KEPT.join(", "))));
    }

    #[test]
    fn every_package_says_what_it_is_and_has_both_licences() {
        for entry in fs::read_dir(root().join("crates")).unwrap() {
            let folder = entry.unwrap().path();
            let Ok(text) = fs::read_to_string(folder.join("Cargo.toml")) else { continue };
            let manifest = Manifest::parse(&text);
            let Some(name) = manifest.package().filter(|name| !KEPT.contains(name)) else {
                continue;
            };
            for key in ["license", "repository", "keywords", "categories"] {
                assert!(text.contains(&format!("{key}.workspace = true")), "{name}: {key}");
            }
            assert!(text.contains("\nreadme"), "{name}: readme");
            assert!(text.contains("\ndescription = \""), "{name}");
            assert!(text.contains("[package.metadata.docs.rs]\nall-features = true"), "{name}");
            for licence in ["LICENSE-APACHE", "LICENSE-MIT"] {
                assert!(folder.join(licence).exists(), "{name}: {licence}");
            }
        }
    }
}
