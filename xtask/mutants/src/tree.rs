//! The copy of the workspace that mutants are written into, and what is built of it.

use crate::{mutant::offset, serve, test::Program};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    env,
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A copy of the workspace.
#[derive(Debug)]
pub(crate) struct Tree {
    /// The files of Rust as they were copied: who changes the workspace meanwhile changes nothing.
    originals: BTreeMap<String, String>,
    copy: PathBuf,
    target: PathBuf,
    wrapper: PathBuf,
}

/// What became of a build.
#[derive(Debug)]
pub(crate) enum Built {
    /// The programs that run the tests.
    Tests(Vec<Program>),
    /// What cannot be compiled.
    Errors(Vec<Fault>),
}

/// Where the compiler finds an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) file: String,
    pub(crate) byte: usize,
    /// Whether it is in what the mutant puts there, whatever is around it.
    pub(crate) is_its_own: bool,
}

/// A type has not the trait, mostly `Default`; it has no such function, mostly `new`; a function
/// that the compiler may call itself calls one that it may not.
const ITS_OWN: [&str; 3] = ["E0277", "E0599", "E0015"];

impl Tree {
    /// A copy of what git knows of or would know of, in `target/mutants/tree`.
    pub(crate) fn copy(root: &Path) -> io::Result<Self> {
        let home = root.join("target/mutants");
        let copy = home.join("tree");
        fs::create_dir_all(&copy)?;
        let mut originals = BTreeMap::new();
        let mut list = Command::new("git");
        list.current_dir(root).args(["ls-files", "-z", "--cached", "--others"]);
        let listed = list.arg("--exclude-standard").output()?.stdout;
        for file in String::from_utf8_lossy(&listed).split_terminator('\0') {
            // What is deleted and not yet committed is listed as well.
            if let Ok(bytes) = fs::read(root.join(file)) {
                write(&copy.join(file), &bytes)?;
                if let (true, Ok(text)) = (file.ends_with(".rs"), String::from_utf8(bytes)) {
                    originals.insert(file.to_owned(), text);
                }
            }
        }
        // Only what is ours may use what the switch needs of the compiler.
        let wrapper = home.join("rustc.sh");
        write(&wrapper, b"#!/bin/sh\nRUSTC_BOOTSTRAP=1 exec \"$@\"\n")?;
        Command::new("chmod").arg("+x").arg(&wrapper).status()?;
        let target =
            env::var_os("CARGO_TARGET_DIR").map_or_else(|| home.join("build"), PathBuf::from);
        Ok(Self { originals, copy, target, wrapper })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.copy
    }

    /// A file as it is without a mutant.
    pub(crate) fn original(&self, file: &str) -> io::Result<&str> {
        let found = self.originals.get(file).map(String::as_str);
        found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, file))
    }

    /// Writes all files as they are without a mutant.
    pub(crate) fn restore(&self) -> io::Result<()> {
        self.originals.iter().try_for_each(|(file, text)| self.write(file, text))
    }

    pub(crate) fn write(&self, file: &str, text: &str) -> io::Result<()> {
        write(&self.copy.join(file), text.as_bytes())
    }

    /// Builds the unit tests of crates, and those of `serve::QUICK` that they have.
    pub(crate) fn build(&self, crates: &[&str]) -> io::Result<Built> {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(&self.copy).args(["test", "--no-run", "--lib"]);
        command.args(["--message-format", "json"]);
        for name in crates {
            command.args(["-p", &format!("cinchona-{name}")]);
            let file = |test: &str| format!("crates/{name}/tests/{test}");
            let is_there = |test: &str| {
                [".rs", "/main.rs"].iter().any(|end| self.copy.join(file(test) + end).exists())
            };
            for test in serve::QUICK.into_iter().filter(|test| is_there(test)) {
                command.args(["--test", test]);
            }
        }
        // Tests that play hours take minutes otherwise.
        for package in [&["core", "plumbing", "policy", "testkit"], crates].concat() {
            let level = format!("profile.dev.package.cinchona-{package}.opt-level=1");
            command.args(["--config", &level]);
        }
        command.env("RUSTC_WORKSPACE_WRAPPER", &self.wrapper).env("CARGO_TARGET_DIR", &self.target);
        let output = command.stderr(Stdio::null()).output()?;
        let (mut errors, mut programs) = (Vec::new(), Vec::new());
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
            programs.extend(program(&line));
            if line["message"]["level"] == "error" {
                errors.extend(self.places(&line["message"]));
            }
        }
        match (errors.is_empty(), output.status.success()) {
            (true, true) => Ok(Built::Tests(programs)),
            (true, false) => Err(io::Error::other(format!("{crates:?} cannot be built"))),
            (false, _) => Ok(Built::Errors(errors)),
        }
    }

    /// Where an error is: what it points at first.
    fn places(&self, message: &Value) -> Vec<Fault> {
        let spans = message["spans"].as_array().map(Vec::as_slice).unwrap_or_default();
        let primary = spans.iter().filter(|span| span["is_primary"] == true);
        let is_its_own = ITS_OWN.iter().any(|code| message["code"]["code"] == *code);
        let place = |span: &Value| {
            let file = span["file_name"].as_str()?.to_owned();
            let number = |key: &str| usize::try_from(span[key].as_u64()?).ok();
            let text = fs::read_to_string(self.copy.join(&file)).ok()?;
            let byte = offset(&text, (number("line_start")?, number("column_start")?));
            Some(Fault { file, byte, is_its_own })
        };
        primary.filter_map(place).collect()
    }
}

/// What a message of cargo says that it has built.
fn program(message: &Value) -> Option<Program> {
    let path = message["executable"].as_str()?.into();
    let manifest = Path::new(message["manifest_path"].as_str()?);
    Some(Program { path, directory: manifest.parent()?.to_owned() })
}

/// Locks the tree of the workspace at `root` for as long as the file is open.
///
/// # Errors
/// Where another run has it.
pub(crate) fn lock(root: &Path) -> io::Result<File> {
    let home = root.join("target/mutants");
    fs::create_dir_all(&home)?;
    let path = home.join("lock");
    let file = File::create(&path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(io::Error::other(format!(
            "another run has {}: two in one tree would build each other's mutants",
            path.display()
        ))),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Writes what is new, so that what is not is not built again.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// In one build with others, a mutant may also be wrong by what chooses among them.
    #[test]
    fn an_error_is_the_mutants_own_where_a_type_has_not_what_it_calls() {
        let copy = env::temp_dir().join(format!("cinchona-fault-{}", std::process::id()));
        write(&copy.join("f.rs"), b"fn f() {\n    g();\n}\n").unwrap();
        let tree = Tree {
            originals: BTreeMap::new(),
            copy: copy.clone(),
            target: PathBuf::new(),
            wrapper: PathBuf::new(),
        };
        let message = |code: &str| {
            let span = |is_primary, line_start| {
                json!({
                    "file_name": "f.rs",
                    "is_primary": is_primary,
                    "line_start": line_start,
                    "column_start": 5,
                })
            };
            json!({ "code": { "code": code }, "spans": [span(false, 1), span(true, 2)] })
        };
        for (code, is_its_own) in [("E0277", true), ("E0599", true), ("E0308", false)] {
            let fault = Fault { file: "f.rs".into(), byte: 13, is_its_own };
            assert_eq!(tree.places(&message(code)), [fault]);
        }
        fs::remove_dir_all(copy).unwrap();
    }

    #[test]
    fn what_cargo_has_built_is_of_the_crate_of_its_manifest() {
        let library = json!({ "manifest_path": "/w/crates/retry/Cargo.toml", "executable": null });
        assert_eq!(program(&library), None);
        let tests = json!({ "manifest_path": "/w/crates/retry/Cargo.toml", "executable": "/t/a" });
        let tests = program(&tests).unwrap();
        assert_eq!(tests.path, Path::new("/t/a"));
        assert_eq!(
            [tests.is_of("retry"), tests.is_of("try"), tests.is_of("shed")],
            [true, false, false]
        );
    }

    #[test]
    fn a_second_run_is_refused_until_the_first_has_ended() {
        let root = env::temp_dir().join(format!("cinchona-mutants-{}", std::process::id()));
        let first = lock(&root).unwrap();
        let refused = lock(&root).unwrap_err().to_string();
        assert!(refused.starts_with("another run has "), "{refused}");
        drop(first);
        assert!(lock(&root).is_ok());
        fs::remove_dir_all(root).unwrap();
    }
}
