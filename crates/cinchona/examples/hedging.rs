//! A second request when the first one is slow: its effect on the tail, and its cost.
//!
//! `cargo run -p cinchona --example hedging`

use cinchona::{Channel, client::Settings, core::Methods, retry::HedgePolicy};
use example_proto::{
    DESCRIPTORS,
    greeter::{
        HelloReply, HelloRequest,
        greeter_client::GreeterClient,
        greeter_server::{Greeter, GreeterServer},
    },
};
use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep};
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

/// Takes 400 ms for one call of twenty, and 2 ms for the others.
#[derive(Default)]
struct Uneven {
    calls: Arc<AtomicU64>,
}

#[tonic::async_trait]
impl Greeter for Uneven {
    async fn say_hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<HelloReply>, Status> {
        let is_slow = self.calls.fetch_add(1, Ordering::Relaxed) % 20 == 10;
        sleep(Duration::from_millis(if is_slow { 400 } else { 2 })).await;
        let message = format!("Hello, {}!", request.into_inner().name);
        Ok(Response::new(HelloReply { message }))
    }
}

/// The latency of each of 200 calls, ten at a time, in ascending order.
async fn measure(channel: Channel) -> Result<Vec<Duration>, Box<dyn Error + Send + Sync>> {
    let callers = (0..10).map(|_| {
        let mut greeter = GreeterClient::new(channel.clone());
        tokio::spawn(async move {
            let mut took = Vec::new();
            for _ in 0..20 {
                let began = Instant::now();
                greeter.say_hello(HelloRequest { name: "world".into() }).await?;
                took.push(Instant::now() - began);
            }
            Ok::<_, Status>(took)
        })
    });
    let mut took = Vec::new();
    for caller in callers.collect::<Vec<_>>() {
        took.extend(caller.await??);
    }
    took.sort();
    Ok(took)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    // Without this, Nagle's algorithm would be measured.
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse()?)?.with_nodelay(Some(true));
    let address = format!("http://{}", incoming.local_addr()?);
    let uneven = Uneven::default();
    let calls = uneven.calls.clone();
    let server = Server::builder().add_service(GreeterServer::new(uneven));
    tokio::spawn(server.serve_with_incoming(incoming));

    // Only methods that may be executed twice can be hedged: `connect` refuses the policy
    // otherwise.
    let plain = Settings::new(Methods::from_file_descriptor_set(DESCRIPTORS)?);
    // Longer than most calls take, and shorter than the slow ones. `with_extra_load(0.05)` finds
    // this delay once it has seen enough calls.
    let hedge = HedgePolicy::default().with_delay(Duration::from_millis(50));
    let hedged = plain.clone().with_policy_of("greeter.Greeter", "SayHello", hedge)?;

    for (name, settings) in [("without hedges", plain), ("with hedges", hedged)] {
        calls.store(0, Ordering::Relaxed);
        let took = measure(settings.connect(&address)?).await?;
        let quantile = |percent: usize| took[took.len() * percent / 100].as_millis();
        let (half, most, requests) = (quantile(50), quantile(99), calls.load(Ordering::Relaxed));
        println!("{name}: p50 {half} ms, p99 {most} ms, {requests} requests for 200 calls");
    }
    Ok(())
}
