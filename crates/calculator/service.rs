//! The calculator itself.

use crate::pb::{BinaryOperation, Number, RangeRequest, Result as Value, calculator_server};
use std::{pin::Pin, result::Result};
use tokio_stream::{Stream, StreamExt, iter};
use tonic::{Request, Response, Status, Streaming};

/// Adds, subtracts, multiplies and divides IEEE 754 doubles.
#[derive(Clone, Copy, Debug, Default)]
pub struct Calculator;

/// The most values that one `Range` may have.
const MAX_VALUES: f64 = 1_000_000.0;

#[tonic::async_trait]
impl calculator_server::Calculator for Calculator {
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
        Calculator.divide(request).await.map(|response| response.into_inner().value)
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
