//! A counter whose replies get lost, and which still counts each call once.
//!
//! `cargo run -p cinchona --example exactly_once`

use cinchona::{
    client,
    core::Methods,
    fault::{FaultSettings, Rules},
    idempotency::MemoryStore,
    server,
};
use example_proto::{
    DESCRIPTORS,
    counter::{
        AddRequest, GetRequest, Total,
        counter_client::CounterClient,
        counter_server::{Counter, CounterServer},
    },
};
use std::{
    error::Error,
    sync::atomic::{AtomicU64, Ordering},
};
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

/// It does not handle repetitions.
#[derive(Default)]
struct Counts(AtomicU64);

#[tonic::async_trait]
impl Counter for Counts {
    async fn add(&self, request: Request<AddRequest>) -> Result<Response<Total>, Status> {
        let amount = request.into_inner().amount;
        let value = self.0.fetch_add(amount, Ordering::Relaxed) + amount;
        Ok(Response::new(Total { value }))
    }

    async fn get(&self, _: Request<GetRequest>) -> Result<Response<Total>, Status> {
        Ok(Response::new(Total { value: self.0.load(Ordering::Relaxed) }))
    }
}

/// A server that executes every call, and loses every third reply.
async fn serve(settings: server::Settings) -> Result<String, Box<dyn Error>> {
    let lossy = Rules::default().with(
        "lost replies",
        "method=/counter.Counter/Add every=3 when=after status=UNAVAILABLE".parse()?,
    );
    let layers =
        settings.with_fault_settings(FaultSettings::default().with_rules(lossy)).layers()?;
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse()?)?;
    let address = format!("http://{}", incoming.local_addr()?);
    let server = Server::builder().layer(layers).add_service(CounterServer::new(Counts::default()));
    tokio::spawn(server.serve_with_incoming(incoming));
    Ok(address)
}

/// Adds 1, thirty times; returns how many of these calls have failed, and the counter's value.
async fn count(settings: client::Settings, address: String) -> Result<(u32, u64), Box<dyn Error>> {
    let mut counter = CounterClient::new(settings.connect(address)?);
    let mut failed = 0;
    for _ in 0..30 {
        failed += u32::from(counter.add(AddRequest { amount: 1 }).await.is_err());
    }
    Ok((failed, counter.get(GetRequest {}).await?.into_inner().value))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let methods = Methods::from_file_descriptor_set(DESCRIPTORS)?;
    // Every third call fails here, which is not an outage, so the retry budget is lifted.
    let client = |methods| client::Settings::new(methods).with_budget(None);
    let plain = || server::Settings::new(methods.clone());

    // The .proto declares that `Add` has an effect, so it is not retried: whether a failed call was
    // executed is unknown.
    let (failed, total) = count(client(methods.clone()), serve(plain()).await?).await?;
    println!("not retried: {failed} of 30 calls failed, the counter is {total}");

    // Retrying all the same counts some calls twice.
    let careless = client(Methods::all_idempotent());
    let (failed, total) = count(careless, serve(plain()).await?).await?;
    println!("retried without keys: {failed} of 30 calls failed, the counter is {total}");

    // One key for all attempts of a call, and a server that recognises it: in memory here, in a
    // file or in Redis with `cinchona::redb` and `cinchona::redis`.
    let recognising = plain().with_store(MemoryStore::new());
    let keyed = client(methods.clone()).with_keys();
    let (failed, total) = count(keyed, serve(recognising).await?).await?;
    println!("retried with keys: {failed} of 30 calls failed, the counter is {total}");
    Ok(())
}
