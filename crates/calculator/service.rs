//! The calculator itself.

mod values;

pub use values::Values;

use crate::{
    pb::{
        BinaryOperation, CounterRequest, CounterResult, Empty, Number, RangeRequest,
        Result as Value, calculator_server,
    },
    state::{self, Memory, State},
};
use std::{pin::Pin, result::Result};
use tokio_stream::{Stream, StreamExt, iter};
use tonic::{Request, Response, Status, Streaming};

/// Adds, subtracts, multiplies and divides IEEE 754 doubles, and counts.
#[derive(Clone, Debug, Default)]
pub struct Calculator<S = Memory> {
    state: S,
}

/// The key of the counter in the store.
const COUNTER: &str = "counter";

/// The most values that one `Range` may have.
const MAX_VALUES: f64 = 1_000_000.0;

impl<S> Calculator<S> {
    /// A calculator whose counter is in `state`.
    pub const fn new(state: S) -> Self {
        Self { state }
    }
}

#[tonic::async_trait]
impl<S: State> calculator_server::Calculator for Calculator<S> {
    async fn add(&self, request: Request<BinaryOperation>) -> Result<Response<Value>, Status> {
        let BinaryOperation { a, b } = request.into_inner();
        Ok(answer(a + b))
    }

    async fn subtract(&self, request: Request<BinaryOperation>) -> Result<Response<Value>, Status> {
        let BinaryOperation { a, b } = request.into_inner();
        Ok(answer(a - b))
    }

    async fn multiply(&self, request: Request<BinaryOperation>) -> Result<Response<Value>, Status> {
        let BinaryOperation { a, b } = request.into_inner();
        Ok(answer(a * b))
    }

    async fn divide(&self, request: Request<BinaryOperation>) -> Result<Response<Value>, Status> {
        let BinaryOperation { a, b } = request.into_inner();
        if b == 0.0 {
            return Err(Status::invalid_argument("division by zero"));
        }
        Ok(answer(a / b))
    }

    type RangeStream = Pin<Box<dyn Stream<Item = Result<Value, Status>> + Send>>;

    async fn range(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<Self::RangeStream>, Status> {
        let RangeRequest { first, last, step } = request.into_inner();
        let values = range(first, last, step.unwrap_or(1.0))?;
        Ok(Response::new(Box::pin(iter(values.map(|value| Ok(Value { value }))))))
    }

    async fn sum(&self, request: Request<Streaming<Number>>) -> Result<Response<Value>, Status> {
        let mut numbers = request.into_inner();
        let mut sum = 0.0;
        while let Some(Number { value }) = numbers.try_next().await? {
            sum += value;
        }
        Ok(answer(sum))
    }

    async fn increment_counter(
        &self,
        request: Request<CounterRequest>,
    ) -> Result<Response<CounterResult>, Status> {
        let increment = match request.into_inner().increment {
            0 => 1,
            increment => increment,
        };
        let counted = self.state.update(&[COUNTER], move |values| {
            let before: i32 = state::number(&values[0])?;
            let value = before.checked_add(increment).ok_or_else(|| {
                Status::out_of_range(format!("{before} + {increment} is no int32"))
            })?;
            values[0] = Some(value.to_string().into());
            Ok(counter(value))
        });
        counted.await.map(Response::new)
    }

    async fn get_counter(&self, _: Request<Empty>) -> Result<Response<CounterResult>, Status> {
        let value = state::number(&self.state.read(COUNTER).await?)?;
        Ok(Response::new(counter(value)))
    }

    async fn reset_counter(&self, _: Request<Empty>) -> Result<Response<CounterResult>, Status> {
        let reset = self.state.update(&[COUNTER], |values| {
            values[0] = None;
            Ok(counter(0))
        });
        reset.await.map(Response::new)
    }
}

fn counter(value: i32) -> CounterResult {
    CounterResult { value, was_duplicate: false }
}

fn answer(value: f64) -> Response<Value> {
    Response::new(Value { value })
}

/// Each value from `first` on by its index, so that rounding errors do not add up.
fn range(first: f64, last: f64, step: f64) -> Result<impl Iterator<Item = f64> + use<>, Status> {
    for (name, value) in [("first", first), ("last", last), ("step", step)] {
        if !value.is_finite() {
            return Err(Status::invalid_argument(format!("{name}: {value} is not finite")));
        }
    }
    if step == 0.0 {
        return Err(Status::invalid_argument("step: 0 leads nowhere"));
    }
    // Division before the difference, which may be infinite where neither field is.
    let steps = (last / step - first / step).floor();
    if steps >= MAX_VALUES {
        return Err(Status::invalid_argument("range: more than 1,000,000 values"));
    }
    // Negative where `last` lies behind `first`: the cast makes that no values.
    let values = (steps + 1.0) as u32;
    Ok((0..values).map(move |n| f64::from(n).mul_add(step, first)))
}

#[cfg(test)]
mod tests {
    use super::{calculator_server::Calculator as _, *};
    use tonic::Code;

    fn values(first: f64, last: f64, step: f64) -> Vec<f64> {
        range(first, last, step).map(Iterator::collect).unwrap_or_default()
    }

    async fn divide(a: f64, b: f64) -> Result<f64, Status> {
        let request = Request::new(BinaryOperation { a, b });
        Calculator::<Memory>::default()
            .divide(request)
            .await
            .map(|response| response.into_inner().value)
    }

    #[tokio::test]
    async fn division_by_zero_of_either_sign_is_refused_and_says_so() {
        for zero in [0.0, -0.0] {
            let status = divide(1.0, zero).await.unwrap_err();
            assert_eq!(
                (status.code(), status.message()),
                (Code::InvalidArgument, "division by zero")
            );
        }
    }

    #[tokio::test]
    async fn nan_and_the_infinities_are_ordinary_numbers() {
        assert!(divide(f64::NAN, 2.0).await.unwrap().is_nan());
        assert!(divide(f64::INFINITY, f64::INFINITY).await.unwrap().is_nan());
        assert_eq!(divide(1.0, f64::INFINITY).await.unwrap(), 0.0);
        assert_eq!(divide(f64::MAX, 0.5).await.unwrap(), f64::INFINITY);
    }

    async fn increment(calculator: &Calculator, increment: i32) -> Result<i32, Code> {
        let request = CounterRequest { request_id: String::new(), increment };
        let counted = calculator.increment_counter(Request::new(request)).await;
        counted.map(|result| result.into_inner().value).map_err(|status| status.code())
    }

    #[tokio::test]
    async fn the_counter_counts_by_1_or_by_what_is_said_and_does_not_overflow() {
        let calculator = Calculator::default();
        assert_eq!(increment(&calculator, 0).await, Ok(1));
        assert_eq!(increment(&calculator, 41).await, Ok(42));
        assert_eq!(increment(&calculator, i32::MAX).await, Err(Code::OutOfRange));
        let get = || calculator.get_counter(Request::new(Empty {}));
        assert_eq!(get().await.unwrap().into_inner().value, 42);
        assert_eq!(increment(&calculator, -43).await, Ok(-1));
        calculator.reset_counter(Request::new(Empty {})).await.unwrap();
        assert_eq!(get().await.unwrap().into_inner().value, 0);
    }

    #[test]
    fn a_range_includes_its_ends_and_may_fall() {
        assert_eq!(values(1.0, 4.0, 1.0), [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(values(4.0, 1.0, -1.5), [4.0, 2.5, 1.0]);
        assert_eq!(values(2.0, 2.0, 1.0), [2.0]);
        assert!(values(2.0, 1.0, 1.0).is_empty());
        assert_eq!(values(1.0, 1e6, 1.0).len(), 1_000_000);
    }

    #[test]
    fn a_range_that_is_no_finite_walk_is_refused() {
        for (first, last, step) in [
            (f64::NAN, 1.0, 1.0),
            (0.0, f64::INFINITY, 1.0),
            (0.0, 1.0, 0.0),
            (0.0, 1e6, 1.0),
            (-f64::MAX, f64::MAX, 1.0),
            (0.0, f64::MAX, f64::MIN_POSITIVE),
        ] {
            let status = range(first, last, step).map(drop).unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{first} {last} {step}");
        }
    }
}
