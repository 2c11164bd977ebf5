//! Runs the tests with a mutant that is on.

use std::{
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// What became of a mutant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Killed,
    TimedOut,
    Survived,
    /// It cannot be compiled.
    Unviable,
}

/// A program that runs tests of a crate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    /// That of the crate.
    pub(crate) directory: PathBuf,
}

/// The tests of a program.
#[derive(Debug, Clone)]
pub(crate) struct Tests {
    pub(crate) program: Program,
    /// Seconds of the processor, so that a busy machine makes no difference.
    limit: u64,
    /// Those that take long, and are run last.
    slow: Vec<String>,
}

/// What a test may take, to be run before those that take longer.
const SHORT: f64 = 0.5;

/// Seconds, by the clock on the wall: for what waits for ever, and takes no time of the processor.
const PATIENCE: &str = "120";

/// What `timeout` says then, and where a limit of the processor's time has ended the tests.
const TOO_LONG: [i32; 3] = [124, 128 + 9, 128 + 24];

impl Outcome {
    pub(crate) const ALL: [Self; 4] =
        [Self::Killed, Self::TimedOut, Self::Survived, Self::Unviable];

    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::TimedOut => "timed out",
            Self::Survived => "survived",
            Self::Unviable => "unviable",
        }
    }
}

impl Program {
    /// Whether it is of the crate `name`.
    pub(crate) fn is_of(&self, name: &str) -> bool {
        self.directory.ends_with(Path::new("crates").join(name))
    }
}

impl Tests {
    pub(crate) const fn of(program: Program) -> Self {
        Self { program, limit: 90, slow: Vec::new() }
    }

    /// Another program of the same tests.
    pub(crate) fn in_program(&self, program: Program) -> Self {
        Self { program, ..self.clone() }
    }

    /// The tests of the module first, which know most of it; not those that take long.
    pub(crate) fn run(&self, id: usize, module: &str) -> io::Result<Outcome> {
        match self.short(id, &[module])? {
            Outcome::Survived => self.short(id, &["--skip", module]),
            outcome => Ok(outcome),
        }
    }

    /// All of them but those that take long.
    pub(crate) fn run_short(&self, id: usize) -> io::Result<Outcome> {
        self.short(id, &[])
    }

    fn short(&self, id: usize, args: &[&str]) -> io::Result<Outcome> {
        let slow: Vec<&str> = self.slow.iter().flat_map(|name| ["--skip", name]).collect();
        self.some(id, &[args, &slow[..]].concat())
    }

    /// Those that take long.
    pub(crate) fn run_slow(&self, id: usize) -> io::Result<Outcome> {
        if self.slow.is_empty() {
            return Ok(Outcome::Survived);
        }
        let slow = self.slow.iter().map(String::as_str);
        self.some(id, &["--exact"].into_iter().chain(slow).collect::<Vec<_>>())
    }

    fn some(&self, id: usize, args: &[&str]) -> io::Result<Outcome> {
        let mut command = self.command(id);
        command.args(args).args(["--fail-fast", "--quiet"]).stdout(Stdio::null());
        Ok(match command.status()?.code() {
            Some(0) => Outcome::Survived,
            Some(code) if !TOO_LONG.contains(&code) => Outcome::Killed,
            _ => Outcome::TimedOut,
        })
    }

    /// Runs all without a mutant, and remembers which take long.
    pub(crate) fn measure(&mut self) -> io::Result<()> {
        let output = self.command(0).arg("--report-time").output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            return Err(io::Error::other(format!("the tests fail without a mutant: {text}")));
        }
        let slow = |line: &str| {
            let (name, took) = line.strip_prefix("test ")?.split_once(" ... ok <")?;
            let took: f64 = took.trim_end_matches("s>").parse().ok()?;
            (took > SHORT).then(|| name.trim_end_matches(" - should panic").to_owned())
        };
        self.slow = text.lines().filter_map(slow).collect();
        println!("tests that take long: {:?}", self.slow);
        Ok(())
    }

    fn command(&self, id: usize) -> Command {
        // What takes all memory shall take none of the others'.
        let limited = format!("ulimit -v 12000000; ulimit -t {}; exec \"$0\" \"$@\"", self.limit);
        let mut command = Command::new("nice");
        command.args(["timeout", PATIENCE, "sh", "-c", &limited]).arg(&self.program.path);
        command.args(["-Z", "unstable-options"]);
        let directory = &self.program.directory;
        command.current_dir(directory).env("RUSTC_BOOTSTRAP", "1");
        command.env("CARGO_MANIFEST_DIR", directory).env("CINCHONA_MUTANT", id.to_string());
        command.env("PROPTEST_CASES", "32").stdin(Stdio::null()).stderr(Stdio::null());
        command
    }
}

/// The module that a file is: `crates/core/src/methods/wire.rs` is `methods::wire::`.
pub(crate) fn module(file: &str) -> String {
    let within = file.split_once("/src/").map_or(file, |(_, within)| within);
    let path = within.trim_end_matches(".rs").trim_end_matches("/mod");
    format!("{}::", path.replace('/', "::"))
}

/// The root of the crate that a file is of.
pub(crate) fn lib(name: &str) -> String {
    Path::new("crates").join(name).join("src/lib.rs").display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tests_of_a_file_are_those_of_its_module() {
        assert_eq!(module("crates/core/src/methods/wire.rs"), "methods::wire::");
        assert_eq!(module("crates/core/src/deadline.rs"), "deadline::");
        assert_eq!(lib("core"), "crates/core/src/lib.rs");
    }
}
