//! What the packages have of others, as cargo resolves it for each of them alone.

use crate::{cargo_command, manifest::Manifest, root};
use std::{fs, thread};

/// Which decide, and serve nobody. A decision in another crate is one that depends on a host.
const DECIDING: [&str; 1] = ["cinchona-policy"];

/// What a decision does not know, nor anything that is called after one of them.
const HOSTS: [&str; 5] = ["tonic", "tower", "hyper", "h2", "http"];

/// Whose simulations play in virtual time, and are no part of a user's programs.
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

/// All that a build of the package has with these features, but for its tests: each package with
/// its own.
fn tree(package: &str, features: &str) -> String {
    let arguments = ["tree", "--offline", features, "--prefix", "none"];
    let mut command = cargo_command();
    command.args(arguments).args(["-e", "normal", "--format", "{p} {f}", "-p", package]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The hosts that a build of the package has, at any distance.
fn hosts(package: &str) -> Vec<String> {
    let tree = tree(package, "--all-features");
    let names = || tree.lines().filter_map(|line| line.split(' ').next());
    assert!(names().any(|name| name == "tokio"), "{tree}");
    let is_host = |name: &&str| {
        let is_it = |host: &&str| {
            name.strip_prefix(host).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        };
        HOSTS.iter().any(is_it)
    };
    names().filter(is_host).map(str::to_owned).collect()
}

#[test]
fn decisions_depend_on_no_host() {
    for package in DECIDING {
        assert_eq!(hosts(package), [""; 0], "{package}");
    }
    assert!(!hosts("cinchona-retry").is_empty(), "it is found where it is");
}

/// With it, every look at the clock takes a lock.
#[test]
fn tokios_test_util_is_in_no_library_and_no_shipped_program() {
    let packages = packages();
    assert!(packages.len() > 20 && packages.iter().any(|name| name == "calculator"));
    let has_it = |package: &str, with: &str| {
        let tree = tree(package, with);
        let tokio = tree.lines().find(|line| line.starts_with("tokio v"));
        tokio.is_some_and(|tokio| tokio.contains("test-util"))
    };
    let check = |package: &String| {
        let virtually = package == IN_VIRTUAL_TIME;
        assert_eq!(has_it(package, "--all-features"), virtually, "{package}");
    };
    let (one, other) = packages.split_at(packages.len() / 2);
    thread::scope(|scope| {
        for half in [one, other] {
            scope.spawn(move || half.iter().for_each(check));
        }
    });
    // Its programs that run in real time are built without.
    assert!(!has_it(IN_VIRTUAL_TIME, "--no-default-features"));
}
