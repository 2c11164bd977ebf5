//! A call, and what the program prints about it.

use crate::explain;
use calculator::{
    client::{Client, Layers, Stack, stack},
    options::Options,
    pb::{
        CounterRequest, IncrementRequest, RangeRequest, calculator_client::CalculatorClient,
        store_client::StoreClient,
    },
};
use cinchona::{balance::Balance, core::DEGRADED, idempotency::record::REPLAYED, retry::Ledger};
use cinchona_plumbing::code;
use clap::Args;
use std::{
    fmt::Display,
    io::{self, Write},
    sync::Arc,
};
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_stream::StreamExt;
use tonic::{Extensions, Request, Response, Status};

/// What all calls of one command line share.
#[derive(Clone)]
pub(crate) struct Call {
    endpoints: Balance,
    layers: Layers,
    options: Arc<Options>,
}

#[derive(Clone, Debug, Args)]
#[command(allow_negative_numbers = true)]
pub(crate) struct Increment {
    /// The amount to add; 0 means 1
    #[arg(default_value_t = 1)]
    by: i32,
    /// Add to the number of this key, in place of the counter
    #[arg(long)]
    key: Option<String>,
    /// The number of calls
    #[arg(long, value_name = "N", default_value_t = 1)]
    times: u32,
    /// The most calls in progress at a time
    #[arg(short, long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: u32,
}

/// The outcomes of several calls.
#[derive(Debug, Default)]
struct Tally {
    highest: Option<i64>,
    succeeded: u32,
    duplicates: u32,
    attempts: usize,
    failure: Option<Status>,
}

// === impl Call ===

impl Call {
    pub(crate) fn new(endpoints: Balance, layers: Layers, options: Options) -> Self {
        Self { endpoints, layers, options: options.into() }
    }

    /// Prints the answer, and what the ledger has of the call.
    pub(crate) fn answered<T>(&self, response: Response<T>, print: impl FnOnce(T)) {
        self.print_attempts(response.extensions());
        if let Some(degraded) = degraded(&response) {
            eprintln!("degraded: {degraded}");
        }
        print(response.into_inner());
    }

    /// Prints the attempts behind an answer.
    pub(crate) fn print_attempts(&self, extensions: &Extensions) {
        match explain::story(extensions) {
            Some(ledger) if self.options.explain => eprint!("{}", explain::drawn(ledger)),
            Some(ledger) => tracing::info!("{ledger}"),
            None => {}
        }
    }

    /// Prints why the call has failed.
    pub(crate) fn report(&self, status: &Status) {
        eprintln!("{}: {}", code::name(status.code()), status.message());
        match Ledger::of(status) {
            Some(ledger) if self.options.explain => eprint!("{}", explain::drawn(ledger)),
            Some(ledger) => eprintln!("{ledger}"),
            None => {}
        }
    }

    pub(crate) fn calculator(&self) -> Client<Balance> {
        CalculatorClient::new(stack(self.endpoints.clone(), &self.layers))
    }

    pub(crate) fn store(&self) -> StoreClient<Stack<Balance>> {
        StoreClient::new(stack(self.endpoints.clone(), &self.layers))
    }

    /// A request that carries --request-id, if there is one.
    pub(crate) fn request<T>(&self, message: T) -> Result<Request<T>, Status> {
        self.options.request(message)
    }

    /// The --request-id, which is empty if there is none.
    pub(crate) fn request_id(&self) -> String {
        self.options.request_id.clone().unwrap_or_default()
    }

    pub(crate) async fn range(&self, first: f64, last: f64, step: f64) -> Result<(), Status> {
        let range = RangeRequest { first, last, step: Some(step) };
        let response = self.calculator().range(self.request(range)?).await?;
        self.print_attempts(response.extensions());
        let mut values = response.into_inner();
        while let Some(result) = values.try_next().await? {
            print(result.value);
        }
        Ok(())
    }

    /// Calls as often as the options say, and sums the outcomes up on standard error if that is
    /// more than once.
    pub(crate) async fn increment(&self, increment: Increment) -> Result<(), Status> {
        let times = increment.times;
        let places = Arc::new(Semaphore::new(increment.concurrency as usize));
        let mut calls = JoinSet::new();
        for _ in 0..times {
            let (call, increment, places) = (self.clone(), increment.clone(), places.clone());
            calls.spawn(async move {
                let _place = places.acquire_owned().await;
                call.increment_once(increment).await
            });
        }
        let tally = calls.join_all().await.into_iter().fold(Tally::default(), Tally::with);
        if let Some(highest) = tally.highest {
            print(highest);
        }
        if times > 1 {
            let Tally { succeeded, attempts, duplicates, .. } = tally;
            eprintln!(
                "{succeeded} of {times} calls succeeded, in {attempts} attempts; \
                 {duplicates} were answered as an earlier attempt was"
            );
        }
        tally.failure.map_or(Ok(()), Err)
    }

    /// The value, whether an earlier attempt had set it, and the number of attempts.
    pub(crate) async fn increment_once(
        &self,
        increment: Increment,
    ) -> Result<(i64, bool, usize), Status> {
        let request_id = self.request_id();
        let Increment { by, key, .. } = increment;
        let Some(key) = key else {
            let request = CounterRequest { request_id, increment: by };
            let response = self.calculator().increment_counter(self.request(request)?).await?;
            return Ok(seen(&response, i64::from(response.get_ref().value)));
        };
        let request = IncrementRequest { request_id, key, by: by.into() };
        let response = self.store().increment(self.request(request)?).await?;
        Ok(seen(&response, response.get_ref().value))
    }
}

// === impl Tally ===

impl Tally {
    fn with(mut self, outcome: Result<(i64, bool, usize), Status>) -> Self {
        match outcome {
            Ok((value, is_duplicate, attempts)) => {
                self.highest = self.highest.max(Some(value));
                self.succeeded += 1;
                self.duplicates += u32::from(is_duplicate);
                self.attempts += attempts;
            }
            Err(status) => {
                self.attempts += Ledger::of(&status).map_or(1, |ledger| ledger.attempts().len());
                self.failure = Some(status);
            }
        }
        self
    }
}

fn seen<T>(response: &Response<T>, value: i64) -> (i64, bool, usize) {
    let attempts =
        response.extensions().get::<Ledger>().map_or(1, |ledger| ledger.attempts().len());
    (value, response.metadata().contains_key(REPLAYED.as_str()), attempts)
}

/// The kind of a degraded answer, and its age.
fn degraded<T>(response: &Response<T>) -> Option<String> {
    let said = |name: &str| response.metadata().get(name)?.to_str().ok();
    let degraded = said(DEGRADED.as_str())?;
    Some(match said("age") {
        Some(age) => format!("{degraded}, {age} s old"),
        None => degraded.to_owned(),
    })
}

/// A closed pipe means that the reader has seen enough, and is no error.
pub(crate) fn print(value: impl Display) {
    if writeln!(io::stdout(), "{value}").is_err() {
        std::process::exit(0);
    }
}
