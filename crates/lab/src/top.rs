//! `calculator-demo top`: what a dashboard shows, as text.

mod text;

use bytes::Bytes;
use cinchona::core::BoxError;
use http::{Request, Uri, header::HOST};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::{
    env,
    io::{self, IsTerminal, Write},
    time::Duration,
};
use tokio::{
    net::TcpStream,
    runtime::Builder,
    time::{MissedTickBehavior, interval, timeout},
};

/// Output has no colours where NO_COLOR is set or there is no terminal.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The address of the dashboard
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9090")]
    dashboard: String,

    /// Print the page once, on a terminal too
    #[arg(long)]
    once: bool,
}

const PERIOD: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(5);

/// Moves the cursor home, and clears the screen below it.
const CLEAR: &str = "\x1b[H\x1b[J";

/// Prints what the dashboard shows, once or until Ctrl-C.
///
/// # Errors
/// When there is no dashboard at the address.
pub(crate) fn run(args: &Args) -> Result<bool, BoxError> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let printed = runtime.block_on(args.print());
    printed.map_err(|why| format!("--dashboard {}: {why}", args.dashboard).into())
}

// === impl Args ===

impl Args {
    async fn print(&self) -> Result<bool, String> {
        let is_terminal = io::stdout().is_terminal();
        let has_colours = is_terminal && env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
        let mut period = interval(PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            period.tick().await;
            let state = match timeout(PATIENCE, self.ask()).await {
                Ok(Ok(state)) => state,
                Ok(Err(why)) => return Err(why),
                Err(_) => return Err("no answer in 5 s".to_owned()),
            };
            let page = text::page(&state, has_colours);
            let is_last = self.once || !is_terminal;
            let clear = if is_last { "" } else { CLEAR };
            // A closed pipe means that the reader has seen enough.
            if write!(io::stdout(), "{clear}{page}").is_err() || is_last {
                return Ok(true);
            }
            _ = io::stdout().flush();
        }
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
