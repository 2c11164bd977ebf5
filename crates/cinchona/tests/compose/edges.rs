//! What a stranger might try: odd addresses, nothing at all, TLS where there is none.

use crate::{check, methods, ok, scripted};
use cinchona::{
    Channel,
    balance::Options,
    client::{Part, Settings},
    core::{Invalid, Mode},
    observe::Metrics,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{net::TcpListener, time::timeout};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Code, Request, Status,
    service::interceptor::InterceptedService,
    transport::{ClientTlsConfig, Identity, Server, ServerTlsConfig},
};

const LONG: Duration = Duration::from_secs(60);

fn settings() -> Settings {
    Settings::new(methods())
}

fn refused<T>(result: Result<T, Invalid>) -> Invalid {
    result.err().unwrap()
}

/// Serves health checks at `address`, and returns where that is.
async fn serve(server: Server, address: &str) -> Option<std::net::SocketAddr> {
    let listener = TcpListener::bind(address).await.ok()?;
    let address = listener.local_addr().unwrap();
    let (_, health) = tonic_health::server::health_reporter();
    let mut server = server;
    let router = server.add_service(health);
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    Some(address)
}

fn tls() -> ServerTlsConfig {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let identity = Identity::from_pem(own.cert.pem(), own.signing_key.serialize_pem());
    ServerTlsConfig::new().identity(identity)
}

#[tokio::test]
async fn an_address_of_ipv6_is_one_like_any_other() {
    let Some(address) = serve(Server::builder(), "[::1]:0").await else { return };
    for name in [format!("http://{address}"), format!("dns:///{address}")] {
        assert_eq!(check(settings().connect(&name).unwrap()).await.unwrap(), 1, "{name}");
    }
}

#[tokio::test]
async fn a_slash_after_the_port_changes_nothing() {
    let address = serve(Server::builder(), "127.0.0.1:0").await.unwrap();
    let name = format!("http://{address}/");
    assert_eq!(check(settings().connect(&name).unwrap()).await.unwrap(), 1);
}

#[tokio::test]
async fn what_is_no_address_is_refused_and_does_not_panic() {
    for odd in [
        " ",
        "http://",
        "http://:50051",
        "http:///x",
        "http://a:b",
        "http://a:99999",
        "http://a:-1",
        "http://[::1",
        "http://::1:50051",
        "://a:1",
        "a b:1",
        "http://a b:1",
        "unix:",
        "unix://",
        "unix-abstract:",
        "dns:///",
        "dns://8.8.8.8/a:1",
        "xds:///a",
        "ipv4:1.2.3.4:5",
        "\0",
        "http://a:1,http://b:2",
        "https:",
        "ws://a:1",
        "http://ä:1",
    ] {
        let invalid = refused(settings().connect(odd));
        assert_eq!(invalid.field(), "target", "{odd:?}: {invalid}");
        assert_eq!(refused(settings().connect([odd, odd])).field(), "target", "{odd:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable_in_time_and_says_where() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("no.sock").display().to_string();
    let once = settings().with_mode(Part::Retry, Mode::Off);
    let calls = [
        (format!("http://{closed}"), closed.to_string()),
        (format!("unix:{socket}"), socket),
        (format!("dns:///localhost:{}", closed.port()), closed.port().to_string()),
    ]
    .map(|(address, said)| {
        (tokio::spawn(timeout(LONG, check(once.connect(&address).unwrap()))), address, said)
    });
    for (call, address, said) in calls {
        let failed = call.await.unwrap().unwrap().unwrap_err();
        assert_eq!(failed.code(), Code::Unavailable, "{address}: {failed}");
        assert!(failed.message().contains(&said), "{address}: {}", failed.message());
    }
}

#[tokio::test]
async fn tls_to_a_plain_port_and_the_other_way_round_are_unavailable_in_time() {
    let plain = serve(Server::builder(), "127.0.0.1:0").await.unwrap();
    let secured = Server::builder().tls_config(tls()).unwrap();
    let secured = serve(secured, "127.0.0.1:0").await.unwrap();
    let once = settings().with_mode(Part::Retry, Mode::Off);
    let by_tls = once.clone().with_tls(ClientTlsConfig::new());
    let calls = [(by_tls, format!("https://{plain}")), (once, format!("http://{secured}"))].map(
        |(settings, address)| {
            (tokio::spawn(timeout(LONG, check(settings.connect(&address).unwrap()))), address)
        },
    );
    for (call, address) in calls {
        let failed = call.await.unwrap().unwrap().unwrap_err();
        assert_eq!(failed.code(), Code::Unavailable, "{address}: {failed}");
        assert!(!failed.message().is_empty());
    }
}

#[test]
fn a_limit_of_nothing_by_method_is_refused_as_one_for_all_is() {
    for method in ["Place", ""] {
        let none = Some(Duration::ZERO);
        let deadline = settings().with_deadline_of("shop.Order", method, none);
        assert_eq!(refused(deadline).field(), "deadline", "{method}");
        let timeout = settings().with_timeout_of("shop.Order", method, none);
        assert_eq!(refused(timeout).field(), "timeout", "{method}");
    }
    assert_eq!(refused(settings().with_timeout(Duration::ZERO).layers()).field(), "timeout");
}

#[tokio::test]
async fn durations_without_an_end_are_taken() {
    let address = serve(Server::builder(), "127.0.0.1:0").await.unwrap();
    let settings = settings()
        .with_deadline(Duration::MAX)
        .with_timeout(Duration::MAX)
        .with_deadline_of("shop.Order", "", Some(Duration::MAX))
        .unwrap()
        .with_timeout_of("shop.Order", "Place", Some(Duration::MAX))
        .unwrap();
    assert_eq!(check(settings.connect(format!("http://{address}")).unwrap()).await.unwrap(), 1);
}

#[tokio::test]
async fn with_all_parts_off_a_call_is_what_it_would_be_without_them() {
    let address = serve(Server::builder(), "127.0.0.1:0").await.unwrap();
    let all_off = |settings, part| Settings::with_mode(settings, part, Mode::Off);
    let bare = Part::ALL.into_iter().fold(settings(), all_off);
    let channel = bare.connect(format!("http://{address}")).unwrap();
    assert_eq!(check(channel.clone()).await.unwrap(), 1);
    for part in Part::ALL {
        channel.layers().switch(part).set(Mode::Enforce);
        assert_eq!(check(channel.clone()).await.unwrap(), 1, "{part:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn interceptors_above_and_below_may_refuse_a_call() {
    let (server, network, _serving) = scripted([ok()]);
    let refuse = |_: Request<()>| Err::<Request<()>, _>(Status::permission_denied("not you"));
    let layers = settings().layers().unwrap();
    let below = layers.around(InterceptedService::new(network.channel(), refuse));
    let above = InterceptedService::new(layers.around(network.channel()), refuse);
    for failed in [check(below).await.unwrap_err(), check(above).await.unwrap_err()] {
        assert_eq!((failed.code(), failed.message()), (Code::PermissionDenied, "not you"));
    }
    assert_eq!(server.attempts(), 0);
}

#[tokio::test]
async fn several_channels_of_one_registry_are_shown_beside_each_other() {
    let address = serve(Server::builder(), "127.0.0.1:0").await.unwrap();
    let metrics = Metrics::new(methods());
    let settings = settings().with_metrics(&metrics).with_target("twice");
    let connect = || settings.connect(format!("http://{address}")).unwrap();
    let channels: [Channel; 2] = [connect(), connect()];
    for channel in channels.clone() {
        assert_eq!(check(channel).await.unwrap(), 1);
    }
    let text = metrics.render();
    let series = |line: &&str| !line.starts_with('#') && !line.is_empty();
    let mut names: Vec<_> = text.lines().filter(series).map(|it| it.rsplit_once(' ')).collect();
    let all = names.len();
    names.sort_unstable_by_key(|it| it.map(|(name, _)| name));
    names.dedup_by_key(|it| it.map(|(name, _)| name));
    assert_eq!(names.len(), all, "Prometheus refuses a page that has a series twice:\n{text}");
}

#[tokio::test]
async fn to_configure_connections_changes_nothing_else() {
    let address = serve(Server::builder(), "127.0.0.1:0").await.unwrap();
    let asked = Arc::new(AtomicU32::new(0));
    let (first, second) = (asked.clone(), asked.clone());
    let settings = settings()
        .with_configure(move |endpoint| {
            first.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Status>(endpoint)
        })
        // Whichever is given first.
        .with_balance(Options { patience: Duration::from_secs(7), ..Options::default() })
        .with_configure(move |endpoint| {
            second.fetch_add(10, Ordering::Relaxed);
            Ok::<_, Status>(endpoint)
        });
    assert_eq!(settings.balance.as_ref().unwrap().patience, Duration::from_secs(7));
    let channel = settings.connect(format!("http://{address}")).unwrap();
    assert_eq!(check(channel).await.unwrap(), 1);
    assert_eq!(asked.load(Ordering::Relaxed), 11);
    // No options of one endpoint for a client of many.
    let configured = crate::edges::settings().with_configure(Ok::<_, Status>);
    assert!(configured.balance.is_none());
}
