//! The operations of the command line.

use crate::call::{Call, Increment, print};
use calculator::pb::{
    AppendRequest, BinaryOperation, DeleteRequest, Empty, Key, Number, SetValueRequest,
    WithdrawRequest,
};
use clap::{Args, Subcommand};
use tonic::Status;

#[derive(Debug, Subcommand)]
pub(crate) enum Operation {
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
    /// Adds to the counter, or to the number of a key, and prints the highest value
    Increment(Increment),
    /// Prints the counter
    Counter,
    /// Sets the counter to 0
    Reset,
    /// Sets the text of a key
    Set { key: String, value: String },
    /// Prints the text of a key
    Get { key: String },
    /// Removes a key
    Delete { key: String },
    /// Adds to the end of the text of a key, and prints it
    Append { key: String, text: String },
    /// Takes from the number of a key, and prints what is left
    Withdraw { key: String, amount: i64 },
    /// Prints the number of a key
    Balance { key: String },
    /// Lists the nodes of the --cluster: address, state, whether each is reachable, load and tags
    Nodes,
    /// Removes NODE, which has crashed for good, from the nodes that the --cluster expects, so that
    /// a majority of the others accepts writes again
    Forget { node: String },
}

#[derive(Clone, Copy, Debug, Args)]
#[command(allow_negative_numbers = true)]
pub(crate) struct Operands {
    a: f64,
    b: f64,
}

// === impl Operation ===

impl Operation {
    /// Prints the answer.
    pub(crate) async fn run(self, call: &Call) -> Result<(), Status> {
        let mut client = call.calculator();
        let result = match self {
            Self::Add(operands) => client.add(call.request(operands.into())?).await,
            Self::Subtract(operands) => client.subtract(call.request(operands.into())?).await,
            Self::Multiply(operands) => client.multiply(call.request(operands.into())?).await,
            Self::Divide(operands) => client.divide(call.request(operands.into())?).await,
            Self::Sum { numbers } => {
                let numbers = numbers.into_iter().map(|value| Number { value });
                client.sum(call.request(tokio_stream::iter(numbers))?).await
            }
            Self::Range { first, last, step } => return call.range(first, last, step).await,
            Self::Increment(increment) => return call.increment(increment).await,
            stateful => return stateful.run_stateful(call).await,
        };
        call.answered(result?, |result| print(result.value));
        Ok(())
    }

    async fn run_stateful(self, call: &Call) -> Result<(), Status> {
        let (mut client, mut store) = (call.calculator(), call.store());
        let request_id = call.request_id();
        match self {
            Self::Counter => {
                let counter = client.get_counter(call.request(Empty {})?).await?;
                call.answered(counter, |counter| print(counter.value));
            }
            Self::Reset => {
                let counter = client.reset_counter(call.request(Empty {})?).await?;
                call.answered(counter, |counter| print(counter.value));
            }
            Self::Set { key, value } => {
                let set = SetValueRequest { request_id, key, value };
                call.answered(store.set_value(call.request(set)?).await?, drop);
            }
            Self::Delete { key } => {
                let delete = DeleteRequest { request_id, key };
                call.answered(store.delete(call.request(delete)?).await?, drop);
            }
            Self::Append { key, text } => {
                let append = AppendRequest { request_id, key, text };
                call.answered(store.append(call.request(append)?).await?, |text| print(text.text));
            }
            Self::Withdraw { key, amount } => {
                let withdraw = WithdrawRequest { request_id, key, amount };
                call.answered(store.withdraw(call.request(withdraw)?).await?, |left| {
                    print(left.value)
                });
            }
            Self::Get { key } => {
                let text = store.get_value(call.request(Key { key })?).await?;
                call.answered(text, |text| print(text.text));
            }
            Self::Balance { key } => {
                let balance = store.balance(call.request(Key { key })?).await?;
                call.answered(balance, |balance| print(balance.value));
            }
            _ => {}
        }
        Ok(())
    }
}

// === impl Operands ===

impl From<Operands> for BinaryOperation {
    fn from(Operands { a, b }: Operands) -> Self {
        Self { a, b }
    }
}
