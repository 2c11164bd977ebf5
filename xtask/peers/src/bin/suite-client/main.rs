//! The clients of this crate, as programs that make the calls of scripts:
//! `suite-client cinchona|tonic|tower-resilience`. They read tasks and say outcomes.

mod calls;
mod ours;
mod theirs;

use calls::Channel;
use cinchona::core::BoxError;
use cinchona_peers::suite::{Settings, Task};
use serde_json::{Value as Json, json};
use std::{env, process::ExitCode, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, stdin, stdout},
    sync::mpsc,
    task::{LocalSet, spawn_local},
};

/// Makes the channel of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    Cinchona,
    Tonic,
    TowerResilience,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let client = match env::args().nth(1).as_deref() {
        Some("cinchona") => Client::Cinchona,
        Some("tonic") => Client::Tonic,
        Some("tower-resilience") => Client::TowerResilience,
        _ => {
            eprintln!("Usage: suite-client cinchona|tonic|tower-resilience");
            return ExitCode::from(2);
        }
    };
    match LocalSet::new().run_until(run(client)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(client: Client) -> Result<(), BoxError> {
    let (said, mut to_say) = mpsc::unbounded_channel::<Json>();
    said.send(client.hello())?;
    tokio::spawn(async move {
        let mut out = stdout();
        while let Some(line) = to_say.recv().await {
            // Where nobody listens any more, the input has ended.
            _ = out.write_all(format!("{line}\n").as_bytes()).await;
            _ = out.flush().await;
        }
    });
    let mut lines = BufReader::new(stdin()).lines();
    let mut open: Option<(String, Channel)> = None;
    while let Some(line) = lines.next_line().await? {
        let task: Task = serde_json::from_str(&line)?;
        if open.as_ref().is_none_or(|(name, _)| *name != task.channel) {
            drop(open.take());
            open = Some((task.channel.clone(), client.channel(&task).await?));
        }
        let Some((_, channel)) = &open else { continue };
        let (channel, said) = (channel.clone(), said.clone());
        spawn_local(async move {
            if is_to_connect(&task) {
                channel.is_connected(Duration::from_secs(10)).await;
            }
            let outcome = channel.call(&task).await;
            // As above.
            _ = said.send(json!(outcome));
        });
    }
    Ok(())
}

fn is_to_connect(task: &Task) -> bool {
    let Settings { connect, .. } = task.settings;
    task.call.connect.or(connect).unwrap_or(true)
}

// === impl Client ===

impl Client {
    fn hello(self) -> Json {
        let basic =
            ["deadline", "streams", "keepalive", "many", "unix", "send-limit", "header-limit"];
        let (name, version, more): (_, _, &[&str]) = match self {
            Self::Cinchona => ("cinchona", "0.1.0", &ours::ABILITIES),
            Self::Tonic => ("tonic", "0.14.9", &[]),
            Self::TowerResilience => ("tower-resilience", "0.13.0", &["retry"]),
        };
        let can: Vec<_> = basic.into_iter().chain(more.iter().copied()).collect();
        json!({ "client": name, "version": version, "can": can })
    }

    async fn channel(self, task: &Task) -> Result<Channel, BoxError> {
        match self {
            Self::Cinchona => ours::channel(task),
            Self::Tonic => theirs::tonic(task, is_to_connect(task)).await,
            Self::TowerResilience => theirs::tower_resilience(task, is_to_connect(task)).await,
        }
    }
}
