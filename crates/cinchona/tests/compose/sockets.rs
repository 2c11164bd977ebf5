//! What a client can be connected to: real sockets, TLS among them.

use crate::{asked, check, methods};
use cinchona::{
    Channel,
    client::Settings,
    core::{Address, Target},
};
use std::{convert::Infallible, net::SocketAddr};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::{
    Code, Request,
    transport::{
        Certificate, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig, server::Router,
    },
};
use tonic_health::pb::health_client::HealthClient;

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

#[tokio::test]
async fn where_it_is_said_how_tls_is_spoken_nothing_is_sent_in_the_clear() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let secured = settings().with_tls(ClientTlsConfig::new());
    let clear = format!("http://{address}");
    let endpoint = || Endpoint::from_shared(clear.clone()).unwrap();
    for refused in [
        secured.connect(&clear),
        secured.connect(format!("dns:{clear}")),
        secured.connect(["https://a:1", &clear]),
        secured.connect(endpoint()),
        secured.connect("http://localhost:1"),
        secured.connect("http://localhost"),
    ] {
        assert_eq!(refused.err().unwrap().field(), "endpoint");
    }
    assert!(secured.connect("unix:///run/orders.sock").is_ok(), "a socket needs no TLS");
    let targets = vec![clear.parse::<Target>().unwrap()];
    let (_sender, found) = watch::channel(targets);
    let failed = check(secured.connect(found).unwrap()).await.unwrap_err();
    assert!(failed.message().contains("with_tls"), "{failed}");
    // A name alone is one of TLS then.
    let named = secured.connect(format!("DNS:///localhost:{}", address.port())).unwrap();
    let calling = tokio::spawn(check(named));
    let (mut connection, _) = listener.accept().await.unwrap();
    let mut first = [0];
    tokio::io::AsyncReadExt::read_exact(&mut connection, &mut first).await.unwrap();
    assert_eq!(first, [0x16], "a TLS handshake");
    calling.abort();
}

#[tokio::test]
async fn an_endpoint_of_a_socket_and_one_that_is_given_twice_are_refused_with_the_reason() {
    let socket = "unix:///tmp/orders.sock".parse::<Endpoint>().unwrap();
    let refused = settings().connect(socket).err().unwrap();
    assert!(refused.to_string().contains("unix:/path"), "{refused}");
    let twice = || Endpoint::from_static("http://127.0.0.1:1");
    let refused = settings().connect(vec![twice(), twice().user_agent("mine").unwrap()]);
    assert_eq!(refused.err().unwrap().field(), "endpoints");
}

#[tokio::test]
async fn metadata_that_the_server_does_not_take_fails_its_call_alone() {
    let address = serve(Server::builder().http2_max_header_list_size(16 * 1024)).await;
    let channel = settings().connect(format!("http://{address}")).unwrap();
    assert_eq!(check(channel.clone()).await.unwrap(), 1);
    let mut watching =
        HealthClient::new(channel.clone()).watch(asked()).await.unwrap().into_inner();
    assert!(watching.message().await.unwrap().is_some());
    let mut request = Request::new(asked());
    request.metadata_mut().insert("x-large", "a".repeat(100_000).parse().unwrap());
    let failed = HealthClient::new(channel.clone()).check(request).await.unwrap_err();
    assert_eq!(failed.code(), Code::Internal, "{failed}");
    assert!(failed.message().contains("16384"), "{failed}");
    assert_eq!(check(channel.clone()).await.unwrap(), 1);
    let next = tokio::time::timeout(std::time::Duration::from_millis(100), watching.message());
    assert!(next.await.is_err(), "the stream on the same connection goes on");
}

// real clock: tonic's timer and ours fire together.
#[tokio::test]
async fn a_deadline_that_tonics_own_timer_finds_first_still_says_what_was_waited_for() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let hangs = tower::service_fn(|_: http::Request<axum::body::Body>| {
        std::future::pending::<Result<http::Response<tonic::body::Body>, Infallible>>()
    });
    let router = Server::builder()
        .add_routes(tonic::service::Routes::from(axum::Router::new().fallback_service(hangs)));
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    let limit = std::time::Duration::from_millis(50);
    let channel = settings().with_deadline(limit).connect(format!("http://{address}")).unwrap();
    for _ in 0..10 {
        let failed = check(channel.clone()).await.unwrap_err();
        assert_eq!(failed.code(), Code::DeadlineExceeded);
        assert!(failed.message().starts_with("call deadline"), "{failed}");
    }
}
