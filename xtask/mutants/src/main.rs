//! All mutants of a crate in one build, each switched on by a variable: `cargo xtask mutants`.
//!
//! cargo-mutants says which mutants there are. It builds the crate anew for each of them, which
//! takes far longer than the tests. Here each is written beside the code that it replaces, and a
//! number that is read when the tests begin chooses; so a mutant costs a run of the tests of its
//! module. Those that cannot be written so, and those that survive, are built one by one, as
//! cargo-mutants does. What the tests of their own crate leave is given to those of the crates that
//! serve with it (`serve`), which are built with the same copy.

mod mutant;
mod place;
mod record;
mod serve;
mod test;
mod tree;
mod write;

use mutant::Mutant;
use place::Place;
use record::Record;
use std::{
    collections::{BTreeMap, BTreeSet},
    env, io,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::Mutex,
    thread,
};
use test::{Outcome, Program, Tests};
use tree::{Built, Fault, Tree};
use write::{FEATURES, SWITCH, Written};

/// Mutants at once.
const JOBS: usize = 3;

fn main() -> ExitCode {
    let (flags, crates): (Vec<_>, Vec<_>) = env::args().skip(1).partition(|it| it == "--short");
    let mut root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.pop();
    root.pop();
    // Until the last of them is done.
    let _lock = match tree::lock(&root) {
        Ok(lock) => lock,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    for name in &crates {
        if let Err(error) = run(&root, name, !flags.is_empty()) {
            eprintln!("{name}: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// The mutants of a crate that nobody has killed yet; `is_short`: by the tests that are short, and
/// of those that can be in one build.
fn run(root: &Path, name: &str, is_short: bool) -> io::Result<()> {
    let mut record = Record::open(&root.join("target/mutants").join(format!("{name}.tsv")))?;
    let tree = Tree::copy(root)?;
    let mutants = list(&tree, name)?;
    let (all, known) = (mutants.len(), record.known());
    let rest: Vec<Mutant> = mutants.into_iter().filter(|it| !known.contains(&it.name)).collect();
    println!("== {name}: {} of {all} mutants", rest.len());
    let (left, tests) = at_once(&tree, name, &rest, is_short, &mut record)?;
    if is_short {
        record.print(name);
        return Ok(());
    }
    println!("{} one by one", left.len());
    each(
        &tree,
        name,
        rest.iter().filter_map(|it| Some((it, *left.get(&it.id)?))),
        &tests,
        &mut record,
    )?;
    record.print(name);
    Ok(())
}

fn list(tree: &Tree, name: &str) -> io::Result<Vec<Mutant>> {
    let mut command = Command::new("cargo");
    command.current_dir(tree.root()).args(["mutants", "--list", "--json", "--package"]);
    let output = command.arg(format!("cinchona-{name}")).output()?;
    let [listed, why] = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it));
    Mutant::read(&listed).ok_or_else(|| {
        let why = why.lines().next().unwrap_or("it lists nothing");
        let remedy = "cargo install cargo-mutants --locked";
        io::Error::other(format!("cargo mutants --list: {why} (if it is not there: {remedy})"))
    })
}

/// A file with its mutants.
#[derive(Debug, Default)]
struct File {
    text: String,
    places: Vec<Place>,
    written: Written,
    /// The mutants that are no code, wherever they are.
    no_code: BTreeSet<usize>,
}

/// Why a mutant is to have a build of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// It cannot be in one with others.
    Alone,
    /// Nobody killed it, which may be because it is not on where the compiler calls it.
    Survived,
}

/// Runs all that can be in one build; says which are left.
fn at_once(
    tree: &Tree,
    name: &str,
    mutants: &[Mutant],
    is_short: bool,
    record: &mut Record,
) -> io::Result<(BTreeMap<usize, Left>, Tests)> {
    let mut files = BTreeMap::new();
    let paths: BTreeSet<&String> = mutants.iter().map(|mutant| &mutant.file).collect();
    for path in paths {
        let text = tree.original(path)?.to_owned();
        let of_file: Vec<&Mutant> = mutants.iter().filter(|it| it.file == *path).collect();
        let places = place::find(&text, &of_file).map_err(io::Error::other)?;
        files.insert(path.clone(), File { text, places, ..File::default() });
    }
    let program = only(build(tree, name, &[name], &mut files)?)?;
    let mut tests = Tests::of(program);
    tests.measure()?;
    let there = ids(&files);
    let mut left = BTreeMap::new();
    for mutant in mutants.iter().filter(|it| !there.contains(&it.id)) {
        match files.values().any(|file| file.no_code.contains(&mutant.id)) {
            true => record.add(mutant, Outcome::Unviable)?,
            false => _ = left.insert(mutant.id, Left::Alone),
        }
    }
    let there: Vec<&Mutant> = mutants.iter().filter(|it| there.contains(&it.id)).collect();
    let of_module = |mutant: &Mutant| tests.run(mutant.id, &test::module(&mutant.file));
    let mut survivors = side_by_side(&there, record, &of_module)?;
    println!("{} survive the short tests", survivors.len());
    if !is_short {
        survivors = side_by_side(&survivors, record, &|mutant| tests.run_slow(mutant.id))?;
    }
    let survivors = served(tree, name, &survivors, &mut files, is_short, record)?;
    for mutant in survivors {
        // Until it has been built alone.
        record.add(mutant, Outcome::Survived)?;
        left.insert(mutant.id, Left::Survived);
    }
    Ok((left, tests))
}

/// Runs the tests of the crates that serve with what the mutants are in; says which survive.
fn served<'a>(
    tree: &Tree,
    name: &str,
    mutants: &[&'a Mutant],
    files: &mut BTreeMap<String, File>,
    is_short: bool,
    record: &mut Record,
) -> io::Result<Vec<&'a Mutant>> {
    let serving: BTreeSet<&str> =
        mutants.iter().flat_map(|it| serve::with(&it.file)).copied().collect();
    if serving.is_empty() {
        return Ok(mutants.to_vec());
    }
    let serving: Vec<&str> = serving.into_iter().collect();
    let programs = build(tree, name, &serving, files)?;
    let mut tests: Vec<Tests> = programs.into_iter().map(Tests::of).collect();
    tests.iter_mut().try_for_each(Tests::measure)?;
    let run =
        |mutant: &Mutant| first(serve::with(&mutant.file), &tests, &|it| it.run_short(mutant.id));
    let survivors = side_by_side(mutants, record, &run)?;
    println!("{} survive those of the crates that serve", survivors.len());
    if is_short {
        return Ok(survivors);
    }
    let run =
        |mutant: &Mutant| first(serve::with(&mutant.file), &tests, &|it| it.run_slow(mutant.id));
    side_by_side(&survivors, record, &run)
}

/// What the first of the tests of `crates` says that does not let the mutant survive.
fn first(
    crates: &[&str],
    tests: &[Tests],
    run: &dyn Fn(&Tests) -> io::Result<Outcome>,
) -> io::Result<Outcome> {
    let is_theirs = |tests: &&Tests| crates.iter().any(|name| tests.program.is_of(name));
    for tests in tests.iter().filter(is_theirs) {
        match run(tests)? {
            Outcome::Survived => {}
            outcome => return Ok(outcome),
        }
    }
    Ok(Outcome::Survived)
}

fn only(programs: Vec<Program>) -> io::Result<Program> {
    programs.into_iter().next().ok_or_else(|| io::Error::other("a crate without tests"))
}

/// Runs several at once; says which survive.
fn side_by_side<'a>(
    mutants: &[&'a Mutant],
    record: &mut Record,
    run: &(impl Fn(&Mutant) -> io::Result<Outcome> + Sync),
) -> io::Result<Vec<&'a Mutant>> {
    let queue = Mutex::new(mutants.iter().copied());
    let done = Mutex::new((record, Vec::new()));
    let work = || -> io::Result<()> {
        loop {
            let next = queue.lock().ok().and_then(|mut queue| queue.next());
            let Some(mutant) = next else { return Ok(()) };
            let outcome = run(mutant)?;
            let Ok(mut done) = done.lock() else { return Ok(()) };
            match outcome {
                Outcome::Survived => done.1.push(mutant),
                outcome => done.0.add(mutant, outcome)?,
            }
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..JOBS).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|it| it.join().unwrap_or(Ok(())))
    })?;
    done.into_inner().map(|(_, survivors)| survivors).map_err(|_| io::Error::other("a worker died"))
}

fn ids(files: &BTreeMap<String, File>) -> BTreeSet<usize> {
    let places = files.values().flat_map(|file| &file.places);
    places.flat_map(|place| &place.variants).map(|variant| variant.id).collect()
}

/// Builds the tests of `crates` with all mutants of the crate `name` that can be compiled; the
/// others are taken out of `files`.
fn build(
    tree: &Tree,
    name: &str,
    crates: &[&str],
    files: &mut BTreeMap<String, File>,
) -> io::Result<Vec<Program>> {
    let lib = test::lib(name);
    let root = tree.original(&lib)?;
    loop {
        tree.write(&lib, &format!("{FEATURES}{root}{SWITCH}"))?;
        for (path, file) in &mut *files {
            file.written = write::write(&file.text, &file.places);
            tree.write(path, &file.written.text)?;
        }
        let errors = match tree.build(crates)? {
            Built::Tests(programs) => return Ok(programs),
            Built::Errors(errors) => errors,
        };
        let before = ids(files).len();
        for Fault { file, byte, is_its_own } in &errors {
            let Some(file) = files.get_mut(file) else { continue };
            let wrong = file.written.at(*byte).unwrap_or_default();
            if let (true, [id]) = (is_its_own, wrong) {
                file.no_code.insert(*id);
            }
            for place in &mut file.places {
                place.variants.retain(|variant| !wrong.contains(&variant.id));
            }
        }
        println!("{} cannot be compiled so", before - ids(files).len());
        if before == ids(files).len() {
            return Err(io::Error::other(format!("{errors:?}")));
        }
    }
}

/// Runs each in a build of its own.
fn each<'a>(
    tree: &Tree,
    name: &str,
    mutants: impl Iterator<Item = (&'a Mutant, Left)>,
    tests: &Tests,
    record: &mut Record,
) -> io::Result<()> {
    // All that were together in one build are still there.
    tree.restore()?;
    let mut before: Option<&Mutant> = None;
    for (mutant, left) in mutants {
        if let Some(Mutant { file, .. }) = before.replace(mutant) {
            tree.write(file, tree.original(file)?)?;
        }
        tree.write(&mutant.file, &mutant.in_text(tree.original(&mutant.file)?))?;
        record.add(mutant, alone(tree, name, mutant, left, tests)?)?;
    }
    Ok(())
}

/// What becomes of the one mutant that is written into the tree.
fn alone(
    tree: &Tree,
    name: &str,
    mutant: &Mutant,
    left: Left,
    tests: &Tests,
) -> io::Result<Outcome> {
    let Built::Tests(programs) = tree.build(&[name])? else { return Ok(Outcome::Unviable) };
    let tests = tests.in_program(only(programs)?);
    let module = test::module(&mutant.file);
    let own = match tests.run(mutant.id, &module)? {
        Outcome::Survived => tests.run_slow(mutant.id)?,
        outcome => return Ok(outcome),
    };
    let serving = serve::with(&mutant.file);
    // Those that serve call nothing before it runs, and have seen it if it was with others.
    if own != Outcome::Survived || left == Left::Survived || serving.is_empty() {
        return Ok(own);
    }
    let Built::Tests(programs) = tree.build(serving)? else { return Ok(Outcome::Unviable) };
    let tests: Vec<Tests> = programs.into_iter().map(Tests::of).collect();
    first(serving, &tests, &|it| it.run_short(mutant.id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn the_first_tests_of_the_crates_that_notice_are_the_last_that_run() {
        let program =
            |name| Program { path: PathBuf::new(), directory: Path::new("crates").join(name) };
        let tests = ["shed", "retry", "balance", "retry"].map(|name| Tests::of(program(name)));
        for (crates, outcomes, expected, ran) in [
            (&["retry"][..], [Outcome::Survived; 2], Outcome::Survived, 2),
            (&["retry"], [Outcome::Survived, Outcome::Killed], Outcome::Killed, 2),
            (&["retry"], [Outcome::TimedOut, Outcome::Killed], Outcome::TimedOut, 1),
            (&["balance", "shed"], [Outcome::Survived, Outcome::Killed], Outcome::Killed, 2),
            (&["cluster"], [Outcome::Killed; 2], Outcome::Survived, 0),
        ] {
            let run = Cell::new(0);
            let found = first(crates, &tests, &|tests| {
                assert!(crates.iter().any(|name| tests.program.is_of(name)));
                Ok(outcomes[run.replace(run.get() + 1)])
            });
            assert_eq!((found.unwrap(), run.get()), (expected, ran), "{crates:?}");
        }
    }
}
