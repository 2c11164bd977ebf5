//! The whole story on one page: three servers that find each other, a client that calls them, and
//! faults that come and go.

mod load;
mod server;
mod site;
mod story;

use cinchona::core::BoxError;
use clap::{Args, value_parser};
use load::SECOND;
use site::Site;
use std::{
    future::pending,
    io::{self, IsTerminal, Write},
    net::SocketAddr,
    process::{Command, Stdio},
};
use tokio::{net::TcpListener, runtime, time::sleep};

/// Whether there is a page, and for how long it runs.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Live demo")]
pub(crate) struct Page {
    /// Run three servers and a client that calls them, and show all of them on a page, until Ctrl-C
    #[arg(long, value_name = "HOST:PORT", num_args = 0..=1)]
    #[arg(default_missing_value = "127.0.0.1:9090")]
    dashboard: Option<SocketAddr>,

    /// End after so many seconds
    #[arg(long, value_name = "N", requires = "dashboard")]
    seconds: Option<u32>,

    /// Inject only the faults that are set on the page
    #[arg(long, requires = "dashboard")]
    no_story: bool,

    /// Let each step of the story last so many seconds
    #[arg(long, value_name = "N", default_value_t = 18, requires = "dashboard")]
    #[arg(value_parser = value_parser!(u32).range(1..=3600), conflicts_with = "no_story")]
    each: u32,
}

impl Page {
    /// The address of the page, if there is to be one.
    pub(crate) const fn address(&self) -> Option<SocketAddr> {
        self.dashboard
    }
}

/// Runs until it is stopped.
pub(crate) fn run(args: &Page, address: SocketAddr) -> Result<bool, BoxError> {
    let runtime = runtime::Builder::new_multi_thread().enable_all().build()?;
    let ran = runtime.block_on(show(args, address));
    runtime.shutdown_background();
    ran.map(|()| true)
}

async fn show(args: &Page, address: SocketAddr) -> Result<(), BoxError> {
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|error| format!("--dashboard {address}: {error}"))?;
    let url = format!("http://{}", listener.local_addr()?);
    let site = Site::start().await?;
    tokio::spawn(site.page()?.serve(listener, pending()));
    writeln!(io::stdout(), "dashboard on {url}")?;
    open(&url);
    let ended = async {
        match args.seconds {
            Some(seconds) => sleep(seconds * SECOND).await,
            None => pending().await,
        }
    };
    let story = async {
        match args.no_story {
            true => pending().await,
            false => story::play(&site, args.each * SECOND).await,
        }
    };
    tokio::select! {
        () = load::run(&site.load) => {}
        ended = story => ended?,
        () = ended => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    site.servers.iter().for_each(|server| server.crash());
    Ok(())
}

/// Opens a browser, if there is a desktop.
fn open(url: &str) {
    if io::stdout().is_terminal() {
        let mut command = Command::new("xdg-open");
        command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // Without a browser, the printed address is enough.
        _ = command.spawn();
    }
}
