//! Three nodes that find each other, and a client that follows: one of them goes down, and another
//! joins.
//!
//! `cargo run -p cinchona --example cluster`
//!
//! An application has `cinchona = { version = "0.1", features = ["cluster"] }`, and this is its
//! `cinchona::cluster`.

use cinchona::{
    Channel,
    balance::{Options, Picker},
    client,
    core::{Invalid, Methods},
    drain::Drain,
    server,
};
use cinchona_cluster::{Cluster, Config, Event};
use example_proto::{
    DESCRIPTORS,
    greeter::{
        HelloReply, HelloRequest,
        greeter_client::GreeterClient,
        greeter_server::{Greeter, GreeterServer},
    },
};
use std::{collections::BTreeSet, error::Error, time::Duration};
use tokio::time::{error::Elapsed, sleep, timeout};
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

/// The time limit of each wait.
const LIMIT: Duration = Duration::from_secs(20);

/// Greets, and names its node.
struct Named(String);

#[tonic::async_trait]
impl Greeter for Named {
    async fn say_hello(&self, _: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        Ok(Response::new(HelloReply { message: self.0.clone() }))
    }
}

/// A server, and its node of the cluster.
struct Node {
    cluster: Cluster,
    drain: Drain,
}

impl Node {
    async fn start(name: &str, seeds: &[&str]) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse()?)?;
        let address = format!("http://{}", incoming.local_addr()?);
        let layers = server::Settings::new(methods()?).layers()?;
        let drain = layers.drain.clone();
        let greeter = GreeterServer::new(Named(name.to_owned()));
        let server = Server::builder().layer(layers).add_service(greeter);
        tokio::spawn(server.serve_with_incoming_shutdown(drain.incoming(incoming), drain.begun()));

        // Gossip uses UDP, at its own port.
        let mut config = Config::new("greeters", name, "127.0.0.1:0".parse()?);
        config.address = Some(address.parse()?);
        config.tags.insert("role".into(), "greeter".into());
        Ok(Self { cluster: Cluster::join(config, seeds).await?, drain })
    }

    /// As after a crash: its connections end, and it sends nothing to the others.
    fn crash(self) {
        self.drain.cut();
    }

    /// An orderly leave: the others need not detect it.
    async fn leave(self) {
        self.cluster.leave(Duration::from_millis(200)).await;
        self.drain.begin();
    }
}

fn methods() -> Result<Methods, Invalid> {
    Methods::from_file_descriptor_set(DESCRIPTORS)
}

/// Calls until all of `nodes` have answered, and prints the others that answer.
async fn ask(greeter: &mut GreeterClient<Channel>, nodes: &[&str]) -> Result<String, Elapsed> {
    let (mut answered, mut failed) = (BTreeSet::new(), 0);
    let asking = async {
        while nodes.iter().any(|&node| !answered.contains(node)) {
            match greeter.say_hello(HelloRequest::default()).await {
                Ok(reply) => _ = answered.insert(reply.into_inner().message),
                Err(_) => failed += 1,
            }
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(LIMIT, asking).await?;
    Ok(format!("{answered:?} answer, {failed} calls fail"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    // The client only observes: it counts for no quorum.
    let mut looking = Config::new("greeters", "client", "127.0.0.1:0".parse()?);
    looking.observer = true;
    let client = Cluster::join(looking, &[]).await?;
    let seed = client.gossip_address().to_string();
    let mut events = client.events();

    let mut nodes = Vec::new();
    for name in ["node-1", "node-2", "node-3"] {
        nodes.push(Node::start(name, &[&seed]).await?);
    }
    // A source of endpoints: the live nodes with this tag. In turn, so that all are seen.
    let options = Options { picker: Picker::RoundRobin, ..Options::default() };
    let settings = client::Settings::new(methods()?).with_balance(options);
    let channel = settings.connect(client.workers(&[("role", "greeter")]))?;
    let mut greeter = GreeterClient::new(channel);
    println!("{}", ask(&mut greeter, &["node-1", "node-2", "node-3"]).await?);

    nodes.remove(1).crash();
    println!("node-2 crashes: {}", ask(&mut greeter, &["node-1", "node-3"]).await?);
    let failed = events.wait_for(|event| matches!(event, Event::NodeFailed { .. }));
    println!("detected: {:?}", timeout(LIMIT, failed).await?);

    nodes.push(Node::start("node-4", &[&seed]).await?);
    println!("node-4 comes: {}", ask(&mut greeter, &["node-1", "node-3", "node-4"]).await?);

    nodes.remove(0).leave().await;
    println!("node-1 leaves: {}", ask(&mut greeter, &["node-3", "node-4"]).await?);
    Ok(())
}
