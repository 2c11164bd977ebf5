//! `calculator-client`: one call through the client's stack.

use calculator::{
    client::{Client, Layers, Settings, client},
    pb::{BinaryOperation, Number, RangeRequest},
};
use cinchona::{
    balance,
    config::ServiceConfig,
    core::{Invalid, Rng, code},
    retry::{Backoff, Jitter, Ledger, RetryPolicy},
};
use clap::{Args, CommandFactory, Parser, Subcommand, error::ErrorKind};
use humantime::parse_duration;
use rand::RngExt;
use std::{
    fmt::Display,
    fs,
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};
use tokio_stream::StreamExt;
use tonic::{Code, Extensions, Request, Status, transport::Endpoint};
use tracing_subscriber::EnvFilter;

/// Asks a calculator server, and does not give up at the first fault.
///
/// The result goes to stdout, the log to stderr (RUST_LOG sets its level). The exit code is 0 when
/// there is a result, 1 when the call failed, 2 when the command line is wrong.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    operation: Operation,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Subcommand)]
enum Operation {
    /// A + B
    Add(Operands),
    /// A - B
    Subtract(Operands),
    /// A * B
    Multiply(Operands),
    /// A / B
    Divide(Operands),
    /// FIRST, FIRST + STEP, ... up to LAST, each on a line as it arrives
    #[command(allow_negative_numbers = true)]
    Range {
        first: f64,
        last: f64,
        #[arg(long, default_value_t = 1.0)]
        step: f64,
    },
    /// The sum of NUMBERS, which are streamed to the server
    #[command(allow_negative_numbers = true)]
    Sum { numbers: Vec<f64> },
}

#[derive(Clone, Copy, Debug, Args)]
#[command(allow_negative_numbers = true)]
struct Operands {
    a: f64,
    b: f64,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every operation")]
struct Options {
    /// The server's address
    #[arg(long, global = true, value_name = "HOST:PORT", default_value = "127.0.0.1:50051")]
    addr: String,

    /// How long one attempt may take, such as 250ms or 2s
    #[arg(long, global = true, default_value = "2s")]
    #[arg(value_name = "TIME", value_parser = parse_duration)]
    timeout: Duration,

    /// How long the call may take in all, with its retries and waits [default: unlimited]
    #[arg(long, global = true, value_name = "TIME", value_parser = parse_duration)]
    deadline: Option<Duration>,

    /// How often the call is tried again
    #[arg(long, global = true, value_name = "N", default_value_t = 3)]
    max_retries: u32,

    /// The wait before the first retry; it doubles with each one, up to 120s
    #[arg(long, global = true, default_value = "1s")]
    #[arg(value_name = "TIME", value_parser = parse_duration)]
    backoff: Duration,

    /// Each wait grows by a random time of up to this
    #[arg(long, global = true, default_value = "1s")]
    #[arg(value_name = "TIME", value_parser = parse_duration)]
    jitter: Duration,

    /// The codes that are tried again, separated by commas
    #[arg(long, global = true, default_value = "deadline-exceeded")]
    #[arg(value_name = "CODES", value_delimiter = ',', value_parser = parse_code)]
    retry_on: Vec<Code>,

    /// A gRPC service config (JSON), in place of --max-retries, --backoff, --jitter and --retry-on
    #[arg(long, global = true, value_name = "FILE")]
    service_config: Option<PathBuf>,
}

/// The layers as the options say, or the service config where there is one.
fn layers(options: &Options) -> Result<Layers, String> {
    let settings = settings(options).map_err(|invalid| invalid.to_string())?;
    let layers = Layers::from(settings);
    if let Some(file) = &options.service_config {
        let refused = |error: &dyn Display| format!("--service-config {}: {error}", file.display());
        let json = fs::read_to_string(file).map_err(|error| refused(&error))?;
        let config = ServiceConfig::parse(&json).map_err(|errors| refused(&errors))?;
        config.apply(&layers.deadline, &layers.retry).map_err(|invalid| refused(&invalid))?;
    }
    Ok(layers)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
    let Cli { operation, options } = Cli::parse();
    let usage =
        |error: String| -> ! { Cli::command().error(ErrorKind::ValueValidation, error).exit() };
    let endpoint = Endpoint::from_shared(format!("http://{}", options.addr))
        .unwrap_or_else(|error| usage(format!("--addr {}: {error}", options.addr)));
    let layers = layers(&options).unwrap_or_else(|error| usage(error));
    let client = client(balance::connect_lazy(endpoint), &layers);
    match call(client, operation).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(status) => {
            report(&status);
            ExitCode::FAILURE
        }
    }
}

fn settings(options: &Options) -> Result<Settings, Invalid> {
    let backoff = Backoff::new(options.backoff, 2.0, Duration::from_secs(120))?
        .with_jitter(Jitter::Additive(options.jitter));
    let retry = RetryPolicy::default()
        .with_max_retries(options.max_retries)
        .with_backoff(backoff)
        .with_codes(options.retry_on.iter().copied())?;
    let Options { deadline, timeout, .. } = *options;
    Ok(Settings { deadline, timeout, retry, rng: Rng::from_os() })
}

async fn call(mut client: Client, operation: Operation) -> Result<(), Status> {
    let result = match operation {
        Operation::Add(operands) => client.add(request(operands)).await?,
        Operation::Subtract(operands) => client.subtract(request(operands)).await?,
        Operation::Multiply(operands) => client.multiply(request(operands)).await?,
        Operation::Divide(operands) => client.divide(request(operands)).await?,
        Operation::Sum { numbers } => {
            let numbers = numbers.into_iter().map(|value| Number { value });
            client.sum(tagged(tokio_stream::iter(numbers))).await?
        }
        Operation::Range { first, last, step } => {
            let range = RangeRequest { first, last, step: Some(step) };
            let response = client.range(tagged(range)).await?;
            report_retries(response.extensions());
            let mut values = response.into_inner();
            while let Some(result) = values.try_next().await? {
                print(result.value);
            }
            return Ok(());
        }
    };
    report_retries(result.extensions());
    print(result.get_ref().value);
    Ok(())
}

fn request(Operands { a, b }: Operands) -> Request<BinaryOperation> {
    tagged(BinaryOperation { a, b })
}

/// A request with an id of its own, by which the logs of client and server are matched.
fn tagged<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let id = format!("{:032x}", Rng::from_os().draw().random::<u128>());
    if let Ok(id) = id.parse() {
        request.metadata_mut().insert("x-request-id", id);
    }
    request
}

/// A closed pipe is the reader's way of saying that it has seen enough.
fn print(value: f64) {
    if writeln!(io::stdout(), "{value}").is_err() {
        std::process::exit(0);
    }
}

fn report_retries(extensions: &Extensions) {
    if let Some(ledger) = extensions.get::<Ledger>() {
        tracing::info!("{ledger}");
    }
}

fn report(status: &Status) {
    eprintln!("{}: {}", code::name(status.code()), status.message());
    if let Some(ledger) = Ledger::of(status) {
        eprintln!("{ledger}");
    }
}

fn parse_code(name: &str) -> Result<Code, String> {
    code::from_name(name).ok_or_else(|| "not a gRPC code".to_owned())
}
