//! Which parts of a stream are retried: everything until its first message, and nothing after it.
//!
//! `cargo run -p cinchona --example streaming`

use cinchona::{client::Settings, core::Methods};
use example_proto::{
    DESCRIPTORS,
    feed::{
        Number, ReadRequest,
        feed_client::FeedClient,
        feed_server::{Feed, FeedServer},
    },
};
use std::{
    error::Error,
    pin::Pin,
    sync::atomic::{AtomicU32, Ordering},
};
use tokio_stream::{self as stream, Stream, StreamExt};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Server, server::TcpIncoming},
};

/// Refuses each method once; and `Read` breaks off after three numbers, once.
#[derive(Default)]
struct Unsteady {
    reads: AtomicU32,
    sums: AtomicU32,
}

type Numbers = Pin<Box<dyn Stream<Item = Result<Number, Status>> + Send>>;

#[tonic::async_trait]
impl Feed for Unsteady {
    type ReadStream = Numbers;
    type DoubleStream = Numbers;

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<Numbers>, Status> {
        let ReadRequest { first, last } = request.into_inner();
        let all = stream::iter(first..=last).map(|value| Ok(Number { value }));
        match self.reads.fetch_add(1, Ordering::Relaxed) {
            0 => Err(Status::unavailable("not yet")),
            1 => {
                let broken = stream::iter([Err(Status::unavailable("the server goes away"))]);
                Ok(Response::new(Box::pin(all.take(3).chain(broken))))
            }
            _ => Ok(Response::new(Box::pin(all))),
        }
    }

    async fn sum(&self, request: Request<Streaming<Number>>) -> Result<Response<Number>, Status> {
        let mut numbers = request.into_inner();
        let mut value = 0;
        while let Some(number) = numbers.message().await? {
            value += number.value;
        }
        match self.sums.fetch_add(1, Ordering::Relaxed) {
            0 => Err(Status::unavailable("not yet")),
            _ => Ok(Response::new(Number { value })),
        }
    }

    async fn double(
        &self,
        request: Request<Streaming<Number>>,
    ) -> Result<Response<Numbers>, Status> {
        let doubled = |Number { value }| Number { value: 2 * value };
        let numbers = request.into_inner().map(move |number| number.map(doubled));
        Ok(Response::new(Box::pin(numbers)))
    }
}

/// Reads up to `last`, whatever happens to the stream, without requesting the received numbers
/// again. Only the application knows where to resume, so this loop is its own.
async fn read_all<C>(feed: &mut FeedClient<C>, last: u32) -> Result<Vec<u32>, Status>
where
    C: tonic::client::GrpcService<tonic::body::Body, ResponseBody = tonic::body::Body>,
    C::Error: Into<tonic::codegen::StdError>,
{
    let mut read = Vec::new();
    for _ in 0..3 {
        let first = read.last().map_or(1, |last| last + 1);
        let mut numbers = feed.read(ReadRequest { first, last }).await?.into_inner();
        loop {
            match numbers.message().await {
                Ok(Some(number)) => read.push(number.value),
                Ok(None) => return Ok(read),
                Err(status) => {
                    println!("read: {:?}, then {}; resuming from there", read, status.message());
                    break;
                }
            }
        }
    }
    Err(Status::unavailable("it breaks off each time"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse()?)?;
    let address = format!("http://{}", incoming.local_addr()?);
    let server = Server::builder().add_service(FeedServer::new(Unsteady::default()));
    tokio::spawn(server.serve_with_incoming(incoming));

    // A layer's deadline is that of the first message: the stream itself may last longer.
    let settings = Settings::new(Methods::from_file_descriptor_set(DESCRIPTORS)?);
    let mut feed = FeedClient::new(settings.connect(address)?);

    // From the server: the refusal was retried by the layer; the later break is the caller's to
    // handle.
    println!("read: {:?}", read_all(&mut feed, 6).await?);

    // To the server: sent messages are buffered, and sent again, up to the limit of the buffer (256
    // KiB a call by default). A longer upload goes on, but is not retried.
    let numbers = stream::iter(1..=100).map(|value| Number { value });
    println!("sum: {}", feed.sum(numbers).await?.into_inner().value);

    // Both ways: each message is passed on as it arrives.
    let numbers = stream::iter(1..=3).map(|value| Number { value });
    let doubled = feed.double(numbers).await?.into_inner();
    let doubled: Vec<_> = doubled.map(|number| number.map(|it| it.value)).collect().await;
    println!("double: {:?}", doubled.into_iter().collect::<Result<Vec<_>, _>>()?);
    Ok(())
}
