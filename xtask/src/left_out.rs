//! The tests that are left out unless they are asked for, as the sources say.

use std::{
    collections::BTreeMap,
    fs, io,
    path::Path,
    process::{Command, Stdio},
};

/// A test that is ignored, and what it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeftOut {
    pub(crate) test: String,
    pub(crate) needs: String,
}

/// What takes minutes is left out by `cargo xtask ci` too.
const MINUTES: &str = "minutes";

/// What tests need, and the command that succeeds where it is to be had.
const PROBES: [(&str, &str); 8] = [
    ("redis-server", "command -v redis-server"),
    ("nginx", "command -v nginx || test -x /usr/sbin/nginx"),
    ("chromium", "command -v chromium"),
    ("prometheus", "command -v prometheus"),
    ("dnsmasq", "command -v dnsmasq || test -x /usr/sbin/dnsmasq"),
    ("python3 with grpcio", "/usr/bin/python3 -c 'import grpc'"),
    ("node with grpc-js", "command -v node && test -d target/node/node_modules/@grpc/grpc-js"),
    (
        "network namespaces",
        "ip netns add cinchona-probe && ip netns exec cinchona-probe iptables -L -n \
         && ip netns del cinchona-probe && unshare --net --mount true",
    ),
];

// === impl LeftOut ===

impl LeftOut {
    /// Whether `cargo xtask ci` leaves it out as well.
    pub(crate) fn takes_minutes(&self) -> bool {
        self.needs.starts_with(MINUTES)
    }

    /// What it needs that is not to be had at `root`.
    pub(crate) fn lacks(&self, root: &Path) -> Option<&'static str> {
        let needed = PROBES.iter().filter(|(what, _)| self.needs.contains(what));
        needed.filter(|(_, probe)| !succeeds(root, probe)).map(|(what, _)| *what).next()
    }
}

fn succeeds(root: &Path, probe: &str) -> bool {
    let mut shell = Command::new("sh");
    shell.current_dir(root).args(["-c", probe]).stdin(Stdio::null());
    let status = shell.stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Those of all packages.
pub(crate) fn all(root: &Path) -> io::Result<Vec<LeftOut>> {
    let mut found = Vec::new();
    let mut folders = ["crates", "xtask/src"].map(|folder| root.join(folder)).to_vec();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            match path.extension() {
                _ if path.is_dir() && !path.ends_with("target") => folders.push(path),
                Some(kind) if kind == "rs" => found.extend(of(&fs::read_to_string(path)?)),
                _ => {}
            }
        }
    }
    Ok(found)
}

/// Those of one file.
fn of(source: &str) -> Vec<LeftOut> {
    let mut found = Vec::new();
    let mut needs = None;
    for line in source.lines().map(str::trim) {
        if let Some(why) = line.strip_prefix("#[ignore = \"needs ") {
            needs = Some(why.trim_end_matches("\"]").to_owned());
        }
        let name = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
        let Some(test) = name.and_then(|name| name.split('(').next()) else { continue };
        found.extend(needs.take().map(|needs| LeftOut { test: test.to_owned(), needs }));
    }
    found
}

/// How many there are, what they need, and how they are run.
pub(crate) fn summary(left_out: &[LeftOut]) -> String {
    let mut kinds = BTreeMap::<&str, usize>::new();
    for test in left_out {
        *kinds.entry(&test.needs).or_default() += 1;
    }
    let mut text = format!("{} tests were left out, for what they need:\n", left_out.len());
    for (needs, count) in kinds {
        text += &format!("{count:>5}  {needs}\n");
    }
    text + "They run with: cargo test --workspace --tests -- --ignored --test-threads 1\n"
}

/// Prints [`summary`]: the exit code.
pub(crate) fn print(root: &Path) -> u8 {
    match all(root) {
        Ok(tests) => {
            print!("{}", summary(&tests));
            0
        }
        Err(error) => {
            eprintln!("cannot read the sources: {error}");
            1
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ignored_test_is_found_with_what_it_needs() {
        let source = "#[test]\n#[ignore = \"needs nginx\"]\nasync fn a() {}\n\
                      #[test]\nfn b() {}\n#[ignore = \"needs minutes, and node\"]\nfn c() {}\n";
        let found = of(source);
        let names: Vec<_> = found.iter().map(|test| (&*test.test, &*test.needs)).collect();
        assert_eq!(names, [("a", "nginx"), ("c", "minutes, and node")]);
        assert!(!found[0].takes_minutes() && found[1].takes_minutes());
        let summary = summary(&found);
        assert!(summary.starts_with("2 tests were left out"), "{summary}");
        assert!(summary.contains("\n    1  nginx\n"), "{summary}");
    }

    #[test]
    fn what_a_test_needs_is_looked_for_at_the_root() {
        let test = |needs: &str| LeftOut { test: "a".into(), needs: needs.into() };
        // Nothing was installed there.
        let elsewhere = crate::root().join("xtask");
        let lacks = test("minutes, and node with grpc-js").lacks(&elsewhere);
        assert_eq!(lacks, Some("node with grpc-js"));
        assert_eq!(test("minutes: builds a crate").lacks(&elsewhere), None);
    }

    #[test]
    fn some_tests_need_redis_and_some_minutes() {
        let found = all(&crate::root()).unwrap();
        assert!(found.iter().any(|test| test.needs == "redis-server"));
        assert!(found.iter().any(LeftOut::takes_minutes));
    }
}
