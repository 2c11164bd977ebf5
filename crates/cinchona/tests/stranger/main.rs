//! The documents as a stranger uses them: the README's blocks, applied in order to a crate outside
//! the workspace, and what the pages name.
#![expect(clippy::unwrap_used, reason = "a test fails where something is missing")]

mod blocks;
mod packages;
mod pages;
mod plain;
mod project;

use blocks::{Block, blocks_of};
use project::{Project, root};

/// The files of the README, in its order.
const FILES: [&str; 6] = [
    "Cargo.toml",
    "proto/orders.proto",
    "build.rs",
    "src/lib.rs",
    "src/bin/client.rs",
    "src/bin/server.rs",
];

/// The one option that makes its server fail three calls in ten.
const FAULTS: &str =
    ".with_faults(cinchona::fault::Faults { failure_rate: 0.3, ..Default::default() })?";

/// The blocks of the README that are files, in order.
fn readme() -> Vec<Block> {
    let blocks = blocks_of(&root().join("README.md"));
    let mut files: Vec<Block> = blocks
        .into_iter()
        .filter(|block| matches!(block.language(), "rust" | "toml" | "proto"))
        .collect();
    assert_eq!(files.len(), FILES.len());
    for (block, file) in files.iter().zip(FILES) {
        assert!(block.before.contains(&format!("`{file}`")), "{} is not {file}", block.place);
    }
    files.iter_mut().for_each(|block| assert!(!block.info.contains("ignore")));
    files
}

/// How many lines of `ours` are not in `plain`.
fn changed(ours: &str, plain: &str) -> usize {
    let mut plain: Vec<&str> = plain.lines().collect();
    let is_new = |line: &&str| match plain.iter().position(|known| known == line) {
        Some(known) => {
            plain.remove(known);
            false
        }
        None => !line.is_empty(),
    };
    ours.lines().filter(is_new).count()
}

// catalogue: S-D12
#[test]
fn a_client_of_plain_tonic_changes_in_at_most_five_lines_and_one_for_each_method() {
    let ours = readme();
    let of = |file| ours.iter().zip(FILES).find(|(_, name)| *name == file).unwrap().0;
    let counts = plain::FILES.map(|(file, plain)| (file, changed(&of(file).text, plain)));
    let (proto, code): (Vec<_>, Vec<_>) =
        counts.into_iter().partition(|(file, _)| file.ends_with(".proto"));
    assert_eq!(proto, [("proto/orders.proto", 1)]);
    assert!(code.iter().map(|(_, count)| count).sum::<usize>() <= 5, "{code:?}");
}

// catalogue: S-D12
#[tokio::test]
#[ignore = "needs a build of its own"]
async fn the_blocks_of_the_readme_in_order_make_a_strangers_client_that_survives_faults() {
    let project = Project::new();
    for (file, text) in plain::FILES {
        project.write(file, text);
    }
    project.build();
    project.keep("client", "plain");
    for (block, file) in readme().iter().zip(FILES) {
        project.write(file, &block.text);
    }
    project.build();
    let answer = ("order 7 has 3 items\n".to_owned(), String::new());
    let server = project.serve("server").await;
    assert_eq!(project.run("client"), answer);
    #[cfg(unix)]
    assert!(server.ends_on("TERM"), "as a container stops it");

    // As in the README: the server fails three calls in ten.
    let last = readme().pop().unwrap();
    let failing = last.text.replace(".layers()?", &format!("{FAULTS}.layers()?"));
    assert_ne!(failing, last.text);
    assert!(std::fs::read_to_string(root().join("README.md")).unwrap().contains(FAULTS));
    project.write("src/bin/server.rs", &failing);
    project.build();
    let _server = project.serve("server").await;
    for _ in 0..20 {
        assert_eq!(project.run("client"), answer);
    }
    let failed = (0..20).filter(|_| project.run("plain") != answer).count();
    assert!(failed > 0, "plain tonic survives as well: the server does not fail");
}
