//! Runs the scripts of `suite/` with clients that are processes, and says who does right:
//! `cargo xtask street`.

mod report;
mod run;

use cinchona_peers::suite::{File, Script};
use report::Report;
use run::Client;
use std::{env, error::Error, fs, path::PathBuf, process::ExitCode};

const HELP: &str = "\
Usage: suite [options]
  --client NAME=COMMAND  a client, and what starts it (words between spaces); more than once
  --absent NAME=WHY      a client that is not here
  --quick                leave out the scripts that take seconds
  --only NAME            this client alone; more than once
  --entry TEXT           the scripts whose id has this in it
  --scripts FOLDER       where the scripts are; default: suite
  --processes N          of each client at a time; default 6
  --out FOLDER           where report.md, report.html and report.json are put
  --summary FILE         where the summary is put
";

/// A script, and the file that it is from.
#[derive(Clone, Debug)]
struct Entry {
    file: String,
    script: Script,
}

#[derive(Debug, Default)]
struct Options {
    clients: Vec<Client>,
    absent: Vec<(String, String)>,
    is_quick: bool,
    only: Vec<String>,
    entry: String,
    scripts: PathBuf,
    processes: usize,
    out: Option<PathBuf>,
    summary: Option<PathBuf>,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    match suite().await {
        Ok(wrong) if wrong.is_empty() => ExitCode::SUCCESS,
        Ok(wrong) => {
            eprintln!("wrong with cinchona: {}", wrong.join(", "));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// Runs everything; says what cinchona does wrong.
async fn suite() -> Result<Vec<String>, Box<dyn Error>> {
    let options = Options::parse(env::args().skip(1))?;
    let entries = entries(&options)?;
    let mut report = Report::new(&entries, options.is_quick);
    // Most of the time they wait.
    let runs = options.clients.iter().map(|client| {
        let (client, entries, processes) = (client.clone(), entries.clone(), options.processes);
        tokio::spawn(async move { run::all(&client, &entries, processes).await })
    });
    for run in runs.collect::<Vec<_>>() {
        report.add(run.await??);
    }
    for (name, why) in &options.absent {
        report.add_absent(name, why);
    }
    println!("{}", report.table());
    println!("{}", report.counts());
    if let Some(folder) = &options.out {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("report.md"), report.markdown())?;
        fs::write(folder.join("report.html"), report.html())?;
        fs::write(folder.join("report.json"), report.json())?;
        println!("in full: {}", folder.join("report.html").display());
    }
    if let Some(file) = &options.summary {
        fs::write(file, report.summary())?;
    }
    Ok(report.wrong_of("cinchona"))
}

/// The scripts that are to be run, by file.
fn entries(options: &Options) -> Result<Vec<Entry>, Box<dyn Error>> {
    let mut paths: Vec<_> =
        fs::read_dir(&options.scripts)?.filter_map(|file| Some(file.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    let mut entries: Vec<Entry> = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path)?;
        let parsed: File =
            serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        let file = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        for script in parsed.scripts {
            if entries.iter().any(|entry| entry.script.id == script.id) {
                return Err(format!("two scripts are {}", script.id).into());
            }
            entries.push(Entry { file: file.clone(), script });
        }
    }
    let is_meant =
        |script: &Script| script.id.contains(&options.entry) && !(options.is_quick && script.slow);
    entries.retain(|entry| is_meant(&entry.script));
    Ok(entries)
}

// === impl Options ===

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let mut options = Self { scripts: "suite".into(), processes: 6, ..Self::default() };
        let pair = |text: String| match text.split_once('=') {
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Err(format!("{text} is not NAME=...")),
        };
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value\n{HELP}"));
            match arg.as_str() {
                "--client" => {
                    let (name, command) = pair(value()?)?;
                    let command = command.split_whitespace().map(String::from).collect();
                    options.clients.push(Client { name, command });
                }
                "--absent" => options.absent.push(pair(value()?)?),
                "--quick" => options.is_quick = true,
                "--only" => options.only.push(value()?),
                "--entry" => options.entry = value()?,
                "--scripts" => options.scripts = value()?.into(),
                "--processes" => options.processes = value()?.parse::<usize>()?.max(1),
                "--out" => options.out = Some(value()?.into()),
                "--summary" => options.summary = Some(value()?.into()),
                _ => return Err(HELP.into()),
            }
        }
        let (only, is_all) = (&options.only, options.only.is_empty());
        let is_meant = |name: &String| is_all || only.contains(name);
        options.clients.retain(|client| is_meant(&client.name));
        options.absent.retain(|(name, _)| is_meant(name));
        Ok(options)
    }
}
