//! What a user writes: tests of a client, in virtual time.

#![expect(clippy::unwrap_used, reason = "a test fails where something is missing")]

use cinchona::{
    balance::{Balance, Options},
    client::{Layers, Settings},
    core::{Methods, Target},
};
use cinchona_testkit::{Answer, ClientFaultLayer, Ledgers, Logs, Network, Rules, ScriptedServer};
use example_proto::{
    DESCRIPTORS,
    greeter::{
        HelloReply, HelloRequest,
        greeter_client::GreeterClient,
        greeter_server::{Greeter, GreeterServer},
    },
};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use tonic::{
    Code, Request, Response, Status, client::GrpcService, codegen::StdError, transport::Server,
};

struct MyGreeter;

#[tonic::async_trait]
impl Greeter for MyGreeter {
    async fn say_hello(&self, _: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        Ok(Response::new(HelloReply { message: "hello".into() }))
    }
}

fn settings() -> Settings {
    Settings::new(Methods::from_file_descriptor_set(DESCRIPTORS).unwrap())
}

async fn say_hello<C>(channel: C) -> Result<String, Status>
where
    C: GrpcService<tonic::body::Body, Error: Into<StdError>>,
    C::ResponseBody: tonic::codegen::Body<Data = tonic::codegen::Bytes> + Send + 'static,
    <C::ResponseBody as tonic::codegen::Body>::Error: Into<StdError> + Send,
{
    let reply = GreeterClient::new(channel).say_hello(HelloRequest::default()).await?;
    Ok(reply.into_inner().message)
}

/// Two failures, and then nothing.
fn two_unavailable_and_a_stall() -> Rules {
    Rules::default()
        .with("fails twice", "first=2 status=UNAVAILABLE".parse().unwrap())
        .with("then stalls", "first=1 hang".parse().unwrap())
}

#[tokio::test(start_paused = true)]
async fn my_client_survives_two_unavailable_and_a_stall() {
    let (network, ledgers) = (Network::new(), Ledgers::new());
    let _serving = network.serve_service(GreeterServer::new(MyGreeter));
    let faulty = ClientFaultLayer::from(two_unavailable_and_a_stall()).around(network.channel());
    let channel = ledgers.around(settings().layers().unwrap().around(faulty));

    let begun = Instant::now();
    assert_eq!(say_hello(channel).await.unwrap(), "hello");
    let ledger = ledgers.last().unwrap();
    let codes = ledger.attempts().iter().map(|it| it.verdict.code()).collect::<Vec<_>>();
    assert_eq!(codes, [Code::Unavailable, Code::Unavailable, Code::DeadlineExceeded, Code::Ok]);
    // The limit of an attempt, and three waits.
    let took = Instant::now() - begun;
    assert!(took >= Duration::from_secs(10) && took < Duration::from_secs(11), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn my_client_survives_a_scripted_server_that_fails() {
    let network = Network::new();
    let down = || Answer::from(Status::unavailable("down"));
    let ok = Answer::message(&HelloReply { message: "hello".into() });
    let server = ScriptedServer::new([down(), down(), Answer::Hang, ok]);
    let _serving = network.serve_service(server.clone());
    let channel = settings().layers().unwrap().around(network.channel());
    assert_eq!(say_hello(channel).await.unwrap(), "hello");
    assert_eq!(server.attempts(), 4);
}

/// The balancer with breakers, as `Settings::connect` builds it, over the network.
fn balanced(layers: &Layers, network: &Network) -> Balance {
    let gates = layers.clone();
    let gate: Arc<dyn Fn(&Target) -> _ + Send + Sync> = Arc::new(move |to| gates.gate(to));
    let options = Options { gate: Some(gate), ..Options::of_one_endpoint() };
    let target: Target = "http://in.memory:1".parse().unwrap();
    Balance::with_connector(vec![target], network.connector(), options).unwrap()
}

#[tokio::test(start_paused = true)]
async fn faults_can_be_in_front_of_the_balancer_too() {
    let network = Network::new();
    let server = Server::builder().add_service(GreeterServer::new(MyGreeter));
    tokio::spawn(server.serve_with_incoming(network.incoming()));
    let layers = settings().layers().unwrap();
    let faults = ClientFaultLayer::from(two_unavailable_and_a_stall());
    let channel = layers.around(faults.around(balanced(&layers, &network)));
    assert_eq!(say_hello(channel).await.unwrap(), "hello");
    let injected = faults.counters();
    assert_eq!((injected.failed_before, injected.hung, injected.executed), (2, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn my_client_survives_a_lost_connection() {
    let network = Network::new();
    network.set_latency(Duration::from_millis(10));
    let server = Server::builder().add_service(GreeterServer::new(MyGreeter));
    tokio::spawn(server.serve_with_incoming(network.incoming()));
    let layers = settings().layers().unwrap();
    let channel = layers.around(balanced(&layers, &network));
    say_hello(channel.clone()).await.unwrap();
    let lost = async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        network.reset();
    };
    let (answer, ()) = tokio::join!(say_hello(channel), lost);
    assert_eq!(answer.unwrap(), "hello");
    assert_eq!(network.connects(), 2);
}

#[tokio::test(start_paused = true)]
async fn injected_faults_are_in_the_logs() {
    let logs = Logs::of("cinchona_fault");
    let network = Network::new();
    let _serving = network.serve_service(GreeterServer::new(MyGreeter));
    let rules = Rules::default().with("down", "first=1 status=ABORTED".parse().unwrap());
    let channel = ClientFaultLayer::from(rules).around(network.channel());
    assert_eq!(say_hello(channel).await.unwrap_err().code(), Code::Aborted);
    let injected = logs.events().into_iter().filter(|event| event.message.contains("injecting"));
    let injected = injected.collect::<Vec<_>>();
    assert_eq!(injected.len(), 1);
    assert_eq!(injected[0].fields["rpc.method"], "/greeter.Greeter/SayHello");
}
