//! The copy of the workspace that mutants are written into, and what is built of it.

use crate::mutant::offset;
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
    /// The program that runs the unit tests.
    Tests(PathBuf),
    /// Which files cannot be compiled, and at which bytes.
    Errors(Vec<(String, usize)>),
}

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

    pub(crate) fn of_crate(&self, name: &str) -> PathBuf {
        self.copy.join("crates").join(name)
    }

    /// Builds the unit tests of a crate.
    pub(crate) fn build(&self, name: &str) -> io::Result<Built> {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(&self.copy).args(["test", "--no-run", "--lib"]);
        command.args(["--message-format", "json", "-p", &format!("cinchona-{name}")]);
        // Tests that play hours take minutes otherwise.
        for package in ["core", "plumbing", "testkit", name] {
            let level = format!("profile.dev.package.cinchona-{package}.opt-level=1");
            command.args(["--config", &level]);
        }
        command.env("RUSTC_WORKSPACE_WRAPPER", &self.wrapper).env("CARGO_TARGET_DIR", &self.target);
        let output = command.stderr(Stdio::null()).output()?;
        let mut errors = Vec::new();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
            if let Some(tests) = line["executable"].as_str() {
                return Ok(Built::Tests(tests.into()));
            }
            if line["message"]["level"] == "error" {
                errors.extend(self.places(&line["message"]));
            }
        }
        match errors.is_empty() {
            true => Err(io::Error::other(format!("{name} cannot be built: {:?}", output.status))),
            false => Ok(Built::Errors(errors)),
        }
    }

    /// Where an error is: what it points at first.
    fn places(&self, message: &Value) -> Vec<(String, usize)> {
        let spans = message["spans"].as_array().map(Vec::as_slice).unwrap_or_default();
        let primary = spans.iter().filter(|span| span["is_primary"] == true);
        let place = |span: &Value| {
            let file = span["file_name"].as_str()?.to_owned();
            let number = |key: &str| usize::try_from(span[key].as_u64()?).ok();
            let text = fs::read_to_string(self.copy.join(&file)).ok()?;
            Some((file, offset(&text, (number("line_start")?, number("column_start")?))))
        };
        primary.filter_map(place).collect()
    }
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
