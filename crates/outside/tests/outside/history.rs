//! Records what many clients call and are answered: whether one order of the calls explains it.

use calculator::pb::{CounterRequest, Empty, calculator_client::CalculatorClient};
use cinchona_testkit::history::{Model, NotLinearizable, Operation, linearize};
use outside::Server;
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};
use tokio::task::JoinSet;
use tonic::Status;

/// A counter, or an account.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Sum(i64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Read,
    Add(i64),
}

/// The calls to one counter or account, by all clients.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// An order of all begins and ends: no clock is as good.
    instants: Arc<AtomicU64>,
    operations: Arc<Mutex<Vec<Operation<Call, i64>>>>,
}

// === impl Sum ===

impl Model for Sum {
    type Call = Call;
    type Answer = i64;

    fn apply(&mut self, call: &Call) -> i64 {
        if let Call::Add(amount) = call {
            self.0 += amount;
        }
        self.0
    }
}

// === impl History ===

impl History {
    /// Makes the call, and records what it is answered. One that fails may have been executed at
    /// any time since, or never.
    pub(crate) async fn record<T>(
        &self,
        call: Call,
        answer: impl Future<Output = Result<tonic::Response<T>, Status>>,
        value: impl FnOnce(&T) -> i64,
    ) -> Result<T, Status> {
        let began = self.now();
        let answer = answer.await.map(tonic::Response::into_inner);
        let ended = answer.as_ref().ok().map(|answer| (self.now(), value(answer)));
        if ended.is_some() || call != Call::Read {
            self.operations.lock().unwrap().push(Operation { call, began, ended });
        }
        answer
    }

    /// How many calls were answered so far.
    pub(crate) fn answered(&self) -> usize {
        let operations = self.operations.lock().unwrap();
        operations.iter().filter(|operation| operation.ended.is_some()).count()
    }

    fn now(&self) -> u64 {
        self.instants.fetch_add(1, Ordering::SeqCst)
    }

    /// Whether one order explains all answers, from `initial` on: how many calls there were.
    pub(crate) fn check(&self, initial: i64) -> Result<usize, NotLinearizable> {
        let operations = self.operations.lock().unwrap();
        linearize(Sum(initial), &operations).map(|_| operations.len())
    }
}

/// The history of four clients that increment at a server which loses every third reply, and retry.
async fn counted_at(store: &str) -> History {
    let losing = ["--failure-rate", "0.3", "--fail-when", "after", "--seed", "1"];
    let server = Server::start(&[&losing[..], &["--store", store]].concat());
    let history = History::default();
    let mut clients = JoinSet::new();
    for _ in 0..4 {
        let (history, channel) = (history.clone(), crate::crash::patient(&server.addr));
        clients.spawn(async move {
            let mut client = CalculatorClient::new(channel);
            for _ in 0..10 {
                let request = CounterRequest { request_id: String::new(), increment: 1 };
                let counting = client.increment_counter(request);
                history.record(Call::Add(1), counting, |now| now.value.into()).await.unwrap();
                let reading = client.get_counter(Empty {});
                history.record(Call::Read, reading, |now| now.value.into()).await.unwrap();
            }
        });
    }
    clients.join_all().await;
    history
}

// real clock: the server is a process.
#[tokio::test]
async fn one_order_explains_what_clients_see_of_a_server_that_recognizes_calls() {
    assert_eq!(counted_at("memory").await.check(0), Ok(80));
}

// real clock: the server is a process.
#[tokio::test]
async fn no_order_explains_what_clients_see_of_a_server_that_counts_repeated_calls_again() {
    counted_at("none").await.check(0).unwrap_err();
}
