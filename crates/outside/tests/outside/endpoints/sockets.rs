//! Sockets of this machine: Unix domain sockets, a port that drops SYNs, readers that do not read.

use super::*;
use calculator::{
    pb::{Result as Value, calculator_server::CalculatorServer},
    service::Calculator,
    state::Memory,
};
use cinchona::balance::of_endpoint;
use std::{net::SocketAddr, path::Path};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream, UnixListener},
    task::AbortHandle,
    time::timeout,
};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::{
    Streaming,
    transport::{Endpoint, Server},
};

/// Ends a server when it is dropped.
struct Serving(AbortHandle);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn calculator() -> CalculatorServer<Calculator<Memory>> {
    CalculatorServer::new(Calculator::<Memory>::default())
}

fn serve_at(path: &Path) -> Serving {
    _ = std::fs::remove_file(path);
    let incoming = UnixListenerStream::new(UnixListener::bind(path).unwrap());
    let serving = Server::builder().add_service(calculator()).serve_with_incoming(incoming);
    Serving(tokio::spawn(serving).abort_handle())
}

fn serve(listener: TcpListener) -> Serving {
    let incoming = TcpListenerStream::new(listener);
    let serving = Server::builder().add_service(calculator()).serve_with_incoming(incoming);
    Serving(tokio::spawn(serving).abort_handle())
}

// catalogue: S-B14
// real clock: the sockets are the kernel's.
#[tokio::test(flavor = "multi_thread")]
async fn unix_domain_sockets_are_connected_to_in_every_spelling_and_again_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    let name = path.to_str().unwrap();
    let endpoint = Endpoint::from_shared(format!("unix://{name}")).unwrap();
    let mut channels = vec![("of_endpoint(unix://)".to_owned(), of_endpoint(endpoint))];
    for text in [format!("unix:{name}"), format!("unix://{name}")] {
        channels.push((text.clone(), bare(vec![text.parse().unwrap()])));
    }
    for _ in 0..2 {
        let serving = serve_at(&path);
        for (what, channel) in &channels {
            let began = Instant::now();
            let sum = add(channel.clone(), 5 * SECOND).await;
            println!("{what}: {sum:?} after {:?}", Instant::now() - began);
            assert_eq!(sum.unwrap(), 3.0, "{what}");
        }
        drop(serving);
    }
}

// catalogue: S-B14
// real clock: the sockets are the kernel's.
#[tokio::test(flavor = "multi_thread")]
async fn a_unix_domain_socket_that_is_not_there_is_unavailable_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("none.sock").to_str().unwrap().to_owned();
    let lazy = of_endpoint(Endpoint::from_shared(format!("unix://{path}")).unwrap());
    for channel in [bare(vec![format!("unix:{path}").parse().unwrap()]), lazy] {
        let began = Instant::now();
        let status = add(channel, 30 * SECOND).await.unwrap_err();
        println!("{status:?} after {:?}", Instant::now() - began);
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.message().contains("No such file"), "{status:?}");
        assert!(Instant::now() - began < 5 * SECOND);
    }
}

/// A port on this address whose backlog is full, so that it drops SYNs; it works as long as what
/// comes with it is held.
async fn deaf(address: &str) -> (SocketAddr, impl Drop + use<>) {
    struct Held(#[expect(dead_code, reason = "held")] (TcpListener, Vec<TcpStream>));
    impl Drop for Held {
        fn drop(&mut self) {}
    }
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(address.parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = timeout(300 * MS, TcpStream::connect(address)).await {
        queued.push(stream.unwrap());
        assert!(queued.len() < 50, "its backlog has no end");
    }
    (address, Held((listener, queued)))
}

// catalogue: S-B6
// real clock: the sockets are the kernel's.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_first_address_drops_what_comes_is_connected_to_at_its_second() {
    let (first, _held) = deaf("127.0.0.2:0").await;
    let listener = TcpListener::bind(("127.0.0.3", first.port())).await.unwrap();
    let second = listener.local_addr().unwrap();
    let _serving = serve(listener);
    let host = target(format!("host.test:{}", first.port())).at([first.into(), second.into()]);
    let options = Options { connect_timeout: 2 * SECOND, ..Options::default() };
    let channel = Balance::new(vec![host], options).unwrap();
    let began = Instant::now();
    add(channel, 10 * SECOND).await.unwrap();
    let took = Instant::now() - began;
    println!("connected at the second address after {took:?}");
    assert!(took >= 200 * MS && took < SECOND, "{took:?}");
}

/// Streams of 16 MB each whose client does not read.
async fn unread(channel: &Balance, count: usize) -> Vec<Streaming<Value>> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let range = RangeRequest { first: 1.0, last: 1_000_000.0, step: None };
        let stream = CalculatorClient::new(channel.clone()).range(range).await;
        streams.push(stream.unwrap().into_inner());
    }
    streams
}

// catalogue: S-F6
// real clock: the sockets are the kernel's.
#[tokio::test(flavor = "multi_thread")]
async fn streams_that_nobody_reads_stop_no_other_call() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let _serving = serve(listener);
    let lazy = of_endpoint(Endpoint::from_shared(format!("http://{addr}")).unwrap());
    for (what, channel) in [("of_endpoint", lazy), ("Balance::new", bare(vec![target(addr)]))] {
        let mut streams = Vec::new();
        for count in [4, 16] {
            streams.extend(unread(&channel, count).await);
            // They fill what they are allowed.
            tokio::time::sleep(SECOND / 2).await;
            let began = Instant::now();
            add(channel.clone(), 10 * SECOND).await.unwrap();
            let took = Instant::now() - began;
            println!("{what}: {} unread streams, Add took {took:?}", streams.len());
            assert!(took < SECOND, "{what}: {took:?}");
        }
        let last = streams.pop().unwrap();
        drop(streams);
        assert_eq!(tokio_stream::StreamExt::collect::<Vec<_>>(last).await.len(), 1_000_000);
    }
}
