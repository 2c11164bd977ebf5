//! `top`: what a dashboard shows, as text.

mod text;

use bytes::Bytes;
use clap::Args;
use http::{Request, Uri, header::HOST};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::{
    env,
    io::{self, IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};
use tokio::{
    net::TcpStream,
    time::{MissedTickBehavior, interval, timeout},
};

/// The colours are left out where NO_COLOR is set or there is no terminal.
#[derive(Clone, Debug, Args)]
pub(crate) struct Top {
    /// Where the dashboard is
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9090")]
    dashboard: String,

    /// Print it once, also on a terminal
    #[arg(long)]
    once: bool,
}

const PERIOD: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(5);

/// Home, and nothing below.
const CLEAR: &str = "\x1b[H\x1b[J";

impl Top {
    /// Prints it once, or until Ctrl-C.
    pub(crate) async fn run(&self) -> ExitCode {
        let is_terminal = io::stdout().is_terminal();
        let has_colours = is_terminal && env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
        let mut period = interval(PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            period.tick().await;
            let state = match timeout(PATIENCE, self.ask()).await {
                Ok(Ok(state)) => state,
                Ok(Err(why)) => return self.fail(&why),
                Err(_) => return self.fail("no answer in 5 s"),
            };
            let page = text::page(&state, has_colours);
            let is_last = self.once || !is_terminal;
            let clear = if is_last { "" } else { CLEAR };
            // A closed pipe is the reader's way of saying that it has seen enough.
            if write!(io::stdout(), "{clear}{page}").is_err() || is_last {
                return ExitCode::SUCCESS;
            }
            _ = io::stdout().flush();
        }
    }

    fn fail(&self, why: &str) -> ExitCode {
        eprintln!("--dashboard {}: {why}", self.dashboard);
        ExitCode::FAILURE
    }

    async fn ask(&self) -> Result<Value, String> {
        let said = |error: &dyn std::fmt::Display| error.to_string();
        let bare = self.dashboard.strip_prefix("http://").unwrap_or(&self.dashboard);
        let bare = bare.trim_end_matches('/');
        let uri: Uri = format!("http://{bare}/api/state").parse().map_err(|error| said(&error))?;
        let host = uri.authority().ok_or("is no address")?.as_str().to_owned();
        let stream = TcpStream::connect(&*host).await.map_err(|error| said(&error))?;
        let connected = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = connected.map_err(|error| said(&error))?;
        tokio::spawn(connection);
        let request = Request::get(uri.path()).header(HOST, &host).body(Empty::<Bytes>::new());
        let answer = sender.send_request(request.map_err(|error| said(&error))?).await;
        let answer = answer.map_err(|error| said(&error))?;
        let status = answer.status();
        if !status.is_success() {
            return Err(format!("is no dashboard: it answers {status}"));
        }
        let body = answer.into_body().collect().await.map_err(|error| said(&error))?.to_bytes();
        serde_json::from_slice(&body).map_err(|error| format!("is no dashboard: {error}"))
    }
}
