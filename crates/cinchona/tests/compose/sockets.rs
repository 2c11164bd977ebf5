//! What a client can be connected to: real sockets, TLS among them.

use crate::{check, methods};
use cinchona::{
    Channel,
    client::Settings,
    core::{Address, Target},
};
use std::net::SocketAddr;
use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::transport::{
    Certificate, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig, server::Router,
};

fn settings() -> Settings {
    Settings::new(methods())
}

fn router(server: Server) -> Router {
    let (_, health) = tonic_health::server::health_reporter();
    let mut server = server;
    server.add_service(health)
}

/// Serves health checks on its own port.
async fn serve(server: Server) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(router(server).serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

#[tokio::test]
async fn a_client_is_connected_to_whatever_names_endpoints() {
    let [one, two] = [serve(Server::builder()).await, serve(Server::builder()).await];
    let [first, second] = [format!("http://{one}"), format!("http://{two}")];
    let targets = || vec![first.parse::<Target>().unwrap(), second.parse::<Target>().unwrap()];
    let endpoint = |uri: &String| Endpoint::from_shared(uri.clone()).unwrap().user_agent("mine");
    let settings = settings();
    let (_sender, watched) = watch::channel(targets());
    let channels: Vec<(usize, Channel)> = vec![
        (1, settings.connect(&*first).unwrap()),
        (1, settings.connect(first.clone()).unwrap()),
        (1, settings.connect([&*first]).unwrap()),
        (2, settings.connect([&*first, &*second]).unwrap()),
        (2, settings.connect(vec![first.clone(), second.clone()]).unwrap()),
        (2, settings.connect(&[first.clone(), second.clone()][..]).unwrap()),
        (1, settings.connect(endpoint(&first).unwrap()).unwrap()),
        (2, settings.connect(vec![endpoint(&first).unwrap(), endpoint(&second).unwrap()]).unwrap()),
        (2, settings.connect(targets()).unwrap()),
        (2, settings.connect(watched).unwrap()),
        (1, settings.connect(format!("dns:///localhost:{}", one.port())).unwrap()),
    ];
    for (at, (endpoints, channel)) in channels.into_iter().enumerate() {
        assert_eq!(check(channel.clone()).await.unwrap(), 1, "{at}");
        assert_eq!(channel.endpoints().len(), endpoints, "{at}");
    }
}

#[tokio::test]
async fn a_client_is_connected_to_a_unix_domain_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("orders.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let serving = router(Server::builder());
    tokio::spawn(serving.serve_with_incoming(UnixListenerStream::new(listener)));
    for address in [format!("unix:{}", path.display()), format!("unix://{}", path.display())] {
        assert_eq!(check(settings().connect(address).unwrap()).await.unwrap(), 1);
    }
    let target = "http://orders".parse::<http::Uri>().unwrap();
    let target = Target::from(target).at([Address::Unix(path)]);
    assert_eq!(check(settings().connect(vec![target]).unwrap()).await.unwrap(), 1);
}

#[tokio::test]
async fn a_client_speaks_tls_with_what_it_was_given() {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (own.cert.pem(), own.signing_key.serialize_pem());
    let tls = ServerTlsConfig::new().identity(Identity::from_pem(&certificate, key));
    let address = serve(Server::builder().tls_config(tls).unwrap()).await;
    let uri = format!("https://localhost:{}", address.port());
    let trusting = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&certificate));
    let channel = settings().with_tls(trusting.clone()).connect(&uri).unwrap();
    assert_eq!(check(channel).await.unwrap(), 1);
    let own = Endpoint::from_shared(uri.clone()).unwrap().tls_config(trusting.clone()).unwrap();
    assert_eq!(check(settings().connect(own).unwrap()).await.unwrap(), 1);
    let looked_up = format!("dns:{uri}");
    let channel = settings().with_tls(trusting).connect(looked_up).unwrap();
    assert_eq!(check(channel).await.unwrap(), 1);
    // A certificate of no known authority is not trusted.
    let failed = check(settings().connect(&uri).unwrap()).await.unwrap_err();
    assert!(failed.message().contains("certificate"), "{failed}");
}
