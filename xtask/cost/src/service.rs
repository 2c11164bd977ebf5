//! A calculator that adds, and does as little else as it can.

use crate::pb::{
    self, BinaryOperation, CounterRequest, CounterResult, Empty, Number, RangeRequest,
    calculator_server::Calculator,
};
use std::pin::Pin;
use tonic::{Request, Response, Status, Streaming, codegen::tokio_stream::Stream};

/// It has no state.
#[derive(Clone, Copy, Debug)]
pub struct Adder;

type Answer<T> = Result<Response<T>, Status>;

fn none<T>() -> Answer<T> {
    Err(Status::unimplemented("it only adds"))
}

#[tonic::async_trait]
impl Calculator for Adder {
    type RangeStream = Pin<Box<dyn Stream<Item = Result<pb::Result, Status>> + Send>>;

    async fn add(&self, request: Request<BinaryOperation>) -> Answer<pb::Result> {
        let BinaryOperation { a, b } = request.into_inner();
        Ok(Response::new(pb::Result { value: a + b }))
    }

    async fn subtract(&self, _: Request<BinaryOperation>) -> Answer<pb::Result> {
        none()
    }

    async fn multiply(&self, _: Request<BinaryOperation>) -> Answer<pb::Result> {
        none()
    }

    async fn divide(&self, _: Request<BinaryOperation>) -> Answer<pb::Result> {
        none()
    }

    async fn range(&self, _: Request<RangeRequest>) -> Answer<Self::RangeStream> {
        none()
    }

    async fn sum(&self, _: Request<Streaming<Number>>) -> Answer<pb::Result> {
        none()
    }

    async fn increment_counter(&self, _: Request<CounterRequest>) -> Answer<CounterResult> {
        none()
    }

    async fn get_counter(&self, _: Request<Empty>) -> Answer<CounterResult> {
        none()
    }

    async fn reset_counter(&self, _: Request<Empty>) -> Answer<CounterResult> {
        none()
    }
}
