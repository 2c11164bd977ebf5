//! The servers of one script, for clients that are not in this package: `suite-server FILE ID`.
//!
//! It prints a line with the addresses. The line `begin` on its standard input says that the first
//! call begins now; `seen` makes it print what the servers have seen so far, and the end of the
//! input ends it.

use cinchona_peers::suite::{File, Serving};
use serde_json::json;
use std::{env, error::Error, fs, process::ExitCode};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let [file, id] = &args[..] else {
        eprintln!("Usage: suite-server FILE ID");
        return ExitCode::from(2);
    };
    match serve(file, id).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(file: &str, id: &str) -> Result<(), Box<dyn Error>> {
    let file: File = serde_json::from_str(&fs::read_to_string(file)?)?;
    let script = file.scripts.iter().find(|script| script.id == id);
    let script = script.ok_or(format!("no script is {id}"))?;
    let serving = Serving::start(script)?;
    println!("{}", json!({ "addresses": serving.addresses }));
    let mut lines = BufReader::new(stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        match line.trim() {
            "begin" => serving.begin(),
            "seen" => println!("{}", serving.seen().json()),
            other => eprintln!("{other} is neither `begin` nor `seen`"),
        }
    }
    Ok(())
}
