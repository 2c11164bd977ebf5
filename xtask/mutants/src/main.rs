//! All mutants of a crate in one build, each switched on by a variable: `cargo xtask mutants`.
//!
//! cargo-mutants says which mutants there are. It builds the crate anew for each of them, which
//! takes far longer than the tests. Here each is written beside the code that it replaces, and a
//! number that is read when the tests begin chooses; so a mutant costs a run of the tests of its
//! module. Those that cannot be written so, and those that survive, are built one by one, as
//! cargo-mutants does.

mod mutant;
mod place;
mod record;
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
use test::{Outcome, Tests};
use tree::{Built, Tree};
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
    let (one_by_one, tests) = at_once(&tree, name, &rest, is_short, &mut record)?;
    if is_short {
        record.print(name);
        return Ok(());
    }
    println!("{} one by one", one_by_one.len());
    let mutants = rest.iter().filter(|mutant| one_by_one.contains(&mutant.id));
    each(&tree, name, mutants, &tests, &mut record)?;
    record.print(name);
    Ok(())
}

fn list(tree: &Tree, name: &str) -> io::Result<Vec<Mutant>> {
    let mut command = Command::new("cargo");
    command.current_dir(tree.root()).args(["mutants", "--list", "--json", "--package"]);
    let listed = command.arg(format!("cinchona-{name}")).output()?.stdout;
    let listed = String::from_utf8_lossy(&listed);
    Mutant::read(&listed).ok_or_else(|| io::Error::other("cargo-mutants lists nothing"))
}

/// A file with its mutants.
struct File {
    text: String,
    places: Vec<Place>,
    written: Written,
}

/// Runs all that can be in one build; says which are left: those that cannot, and those that nobody
/// killed, which may be because they are not on where the compiler calls them.
fn at_once(
    tree: &Tree,
    name: &str,
    mutants: &[Mutant],
    is_short: bool,
    record: &mut Record,
) -> io::Result<(BTreeSet<usize>, Tests)> {
    let mut files = BTreeMap::new();
    let paths: BTreeSet<&String> = mutants.iter().map(|mutant| &mutant.file).collect();
    for path in paths {
        let text = tree.original(path)?.to_owned();
        let of_file: Vec<&Mutant> = mutants.iter().filter(|it| it.file == *path).collect();
        let places = place::find(&text, &of_file).map_err(io::Error::other)?;
        files.insert(path.clone(), File { text, places, written: Written::default() });
    }
    let program = build(tree, name, &mut files)?;
    let directory = tree.of_crate(name);
    let mut tests = Tests { program, directory, limit: 90, slow: Vec::new() };
    tests.measure()?;
    let there = ids(&files);
    let mut left: BTreeSet<usize> = mutants.iter().map(|mutant| mutant.id).collect();
    left.retain(|id| !there.contains(id));
    let there: Vec<&Mutant> = mutants.iter().filter(|it| there.contains(&it.id)).collect();
    let of_module = |mutant: &Mutant| tests.run(mutant.id, &test::module(&mutant.file));
    let survivors = side_by_side(&there, record, &of_module)?;
    println!("{} survive the short tests", survivors.len());
    let survivors = match is_short {
        // Until they have been built one by one.
        true => {
            survivors.iter().try_for_each(|mutant| record.add(mutant, Outcome::Survived))?;
            survivors
        }
        false => side_by_side(&survivors, record, &|mutant| tests.run_slow(mutant.id))?,
    };
    left.extend(survivors.iter().map(|mutant| mutant.id));
    Ok((left, tests))
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

/// Builds the tests with all mutants that can be compiled; the others are taken out of `files`.
fn build(tree: &Tree, name: &str, files: &mut BTreeMap<String, File>) -> io::Result<PathBuf> {
    let lib = test::lib(name);
    let root = tree.original(&lib)?;
    loop {
        tree.write(&lib, &format!("{FEATURES}{root}{SWITCH}"))?;
        for (path, file) in &mut *files {
            file.written = write::write(&file.text, &file.places);
            tree.write(path, &file.written.text)?;
        }
        let errors = match tree.build(name)? {
            Built::Tests(program) => return Ok(program),
            Built::Errors(errors) => errors,
        };
        let before = ids(files).len();
        for (path, byte) in &errors {
            let Some(file) = files.get_mut(path) else { continue };
            let wrong = file.written.at(*byte).unwrap_or_default();
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
    mutants: impl Iterator<Item = &'a Mutant>,
    tests: &Tests,
    record: &mut Record,
) -> io::Result<()> {
    // All that were together in one build are still there.
    tree.restore()?;
    let mut before: Option<&Mutant> = None;
    for mutant in mutants {
        if let Some(Mutant { file, .. }) = before.replace(mutant) {
            tree.write(file, tree.original(file)?)?;
        }
        tree.write(&mutant.file, &mutant.in_text(tree.original(&mutant.file)?))?;
        let outcome = match tree.build(name)? {
            Built::Errors(_) => Outcome::Unviable,
            Built::Tests(program) => {
                let tests = Tests { program, ..tests.clone() };
                match tests.run(mutant.id, &test::module(&mutant.file))? {
                    Outcome::Survived => tests.run_slow(mutant.id)?,
                    outcome => outcome,
                }
            }
        };
        record.add(mutant, outcome)?;
    }
    Ok(())
}
