//! Faults in your own tests: how a client reacts to each, with rules of one line.
//!
//! `cargo run -p cinchona --example fault_injection`
//!
//! The rules are below the client's retries here, so no server is involved; in front of a service,
//! `FaultLayer` takes the same rules. For in-memory tests in virtual time there is the crate
//! `cinchona-testkit`.

use cinchona::{
    client::Settings,
    core::Methods,
    fault::{ClientFaultLayer, Rules},
    retry::Ledger,
};
use example_proto::{
    DESCRIPTORS,
    greeter::{
        HelloReply, HelloRequest,
        greeter_client::GreeterClient,
        greeter_server::{Greeter, GreeterServer},
    },
};
use std::{error::Error, time::Duration};
use tonic::{
    Code, Request, Response, Status,
    transport::{Endpoint, Server, server::TcpIncoming},
};

struct Hello;

#[tonic::async_trait]
impl Greeter for Hello {
    async fn say_hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<HelloReply>, Status> {
        let message = format!("Hello, {}!", request.into_inner().name);
        Ok(Response::new(HelloReply { message }))
    }
}

/// A rule, the expected code of the call, and the expected number of attempts.
const CASES: [(&str, Code, usize); 8] = [
    ("first=2 status=UNAVAILABLE", Code::Ok, 3),
    // The server has executed it, and its reply is lost.
    ("first=1 when=after status=UNAVAILABLE", Code::Ok, 2),
    // The limit of an attempt ends a hang.
    ("first=1 hang", Code::Ok, 2),
    ("first=1 drop", Code::Ok, 2),
    // Provably not processed: retried immediately, whatever the method.
    ("first=1 reset=REFUSED_STREAM", Code::Ok, 2),
    ("delay=50ms", Code::Ok, 1),
    // A refusal by the application is not retried.
    ("status=PERMISSION_DENIED:\"not you\"", Code::PermissionDenied, 1),
    ("status=UNAVAILABLE", Code::Unavailable, 4),
];

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse()?)?;
    let address = format!("http://{}", incoming.local_addr()?);
    tokio::spawn(
        Server::builder().add_service(GreeterServer::new(Hello)).serve_with_incoming(incoming),
    );

    // Rules are set and removed while calls run; a seed makes the draws reproducible.
    let rules = Rules::new(7);
    let channel = Endpoint::from_shared(address)?.connect_lazy();
    let faulty = ClientFaultLayer::from(rules.clone()).around(channel);

    let mut settings = Settings::new(Methods::from_file_descriptor_set(DESCRIPTORS)?)
        .with_timeout(Duration::from_millis(200));
    // Records the ledger of each call, also of one whose first attempt succeeds.
    settings.explained = true;
    let mut greeter = GreeterClient::new(settings.layers()?.around(faulty));

    for (rule, code, attempts) in CASES {
        rules.set("case", format!("{rule} ttl=60s").parse()?)?;
        let outcome = greeter.say_hello(HelloRequest { name: "world".into() }).await;
        let (ended, ledger) = match &outcome {
            Ok(reply) => (Code::Ok, reply.extensions().get::<Ledger>()),
            Err(status) => (status.code(), Ledger::of(status)),
        };
        let made = ledger.map_or(0, |ledger| ledger.attempts().len());
        println!("{rule}: {ended:?} after {made} attempts");
        assert_eq!((ended, made), (code, attempts), "{rule}");
    }
    println!("{} cases, all as expected", CASES.len());
    Ok(())
}
