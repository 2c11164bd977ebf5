//! What the packages have of others, as cargo resolves it for each of them alone.

use crate::{cargo_command, manifest::Manifest, root};
use std::fs;

/// Whose programs play in virtual time, and are no part of a user's.
const IN_VIRTUAL_TIME: &str = "lab";

/// The names of all packages of the workspace.
fn packages() -> Vec<String> {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let manifest = Manifest::parse(&manifest);
    let mut entries = manifest.entries.iter();
    let members = entries.find(|entry| entry.section == "workspace" && entry.key == "members");
    let members =
        members.unwrap().value.split('"').filter(|path| path.contains(char::is_alphabetic));
    let name = |path: &str| {
        let text = fs::read_to_string(root().join(path).join("Cargo.toml")).unwrap();
        Manifest::parse(&text).package().unwrap().to_owned()
    };
    members.chain(["."]).map(name).collect()
}

/// All that a build of the package has, with all its features, but for its tests.
fn tree(package: &str) -> String {
    let arguments = ["tree", "--offline", "--all-features", "--prefix", "none"];
    let mut command = cargo_command();
    command.args(arguments).args(["-e", "normal,features", "-p", package]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

const WITH: &str = "tokio feature \"test-util\"";

/// With it, every look at the clock takes a lock.
#[test]
fn tokios_test_util_is_in_no_library_and_no_shipped_program() {
    let packages = packages();
    assert!(packages.len() > 20 && packages.iter().any(|name| name == "calculator"));
    for package in packages {
        let has_it = tree(&package).lines().any(|line| line.starts_with(WITH));
        assert_eq!(has_it, package == IN_VIRTUAL_TIME, "{package}");
    }
}
