//! What the server opens to which clients, and what strangers can do to it: each claim of
//! SECURITY.md.

use outside::{Server, ask, http};
use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    process::Command,
    time::Duration,
};
use tokio::time::{Instant, sleep};
use tonic::{
    Code, Request,
    client::Grpc,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

/// A call of the fault control with this metadata.
async fn control(addr: &str, method: &str, metadata: &[(&'static str, &str)]) -> Code {
    let endpoint = Endpoint::try_from(format!("http://{addr}")).unwrap();
    call(
        endpoint.connect().await.unwrap(),
        &format!("cinchona.fault.v1.FaultControl/{method}"),
        metadata,
    )
    .await
}

async fn call(channel: Channel, method: &str, metadata: &[(&'static str, &str)]) -> Code {
    let mut client = Grpc::new(channel);
    client.ready().await.unwrap();
    let mut request = Request::new(());
    for (name, value) in metadata {
        request.metadata_mut().append(*name, value.parse().unwrap());
    }
    let path = format!("/{method}").parse().unwrap();
    let called = client.unary(request, path, ProstCodec::<(), ()>::default()).await;
    called.map_or_else(|status| status.code(), |_| Code::Ok)
}

fn post(addr: &str, path: &str, header: &str) -> String {
    let request = format!("POST {path} HTTP/1.1\r\n{header}");
    http(addr, request.trim_end(), "{}")
}

// catalogue: S-E17
#[cfg(target_os = "linux")]
#[test]
fn a_server_listens_at_one_address_of_loopback_and_each_flag_opens_one_more() {
    for (more, flags) in [
        (0, &[][..]),
        (0, &["--fault", "rate=1% status=UNAVAILABLE"]),
        (0, &["--fault-token", "s3cret"]),
        (1, &["--dashboard", "127.0.0.1:0"]),
        (1, &["--gossip", "127.0.0.1:0"]),
        (2, &["--gossip", "127.0.0.1:0", "--dashboard", "127.0.0.1:0"]),
    ] {
        let server = Server::start(flags);
        for what in ["--gossip", "--dashboard"].iter().filter(|flag| flags.contains(flag)) {
            server.says(&format!("{} on ", &what[2..]));
        }
        let sockets = server.sockets();
        assert!(sockets.contains(&server.addr.parse().unwrap()), "{flags:?}: {sockets:?}");
        assert!(sockets.iter().all(|at| at.ip().is_loopback()), "{flags:?}: {sockets:?}");
        assert_eq!(sockets.len(), 1 + more, "{flags:?}: {sockets:?}");
    }
    let help =
        Command::new(env!("CARGO_BIN_EXE_calculator-server")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(help.contains("[default: 127.0.0.1:50051]"), "{help}");
}

// real clock: the servers are processes.
// catalogue: S-E17
#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_asked_for_is_opened_and_the_server_says_what_it_is() {
    const INFO: (&str, &str) = ("RUST_LOG", "info");
    let page = ["--dashboard", "127.0.0.1:0"];
    let server = Server::logging(INFO, &page);
    let at = server.says("dashboard on ");
    for method in ["List", "Set", "Remove", "Clear", "Switch"] {
        assert_eq!(control(&server.addr, method, &[]).await, Code::Unimplemented, "{method}");
    }
    assert!(post(&at, "/api/faults/clear", "").starts_with("HTTP/1.1 204"));
    let (addr, log) = (server.addr.clone(), server.stop());
    for part in [addr.as_str(), "not served", at.as_str(), "callers on this machine"] {
        assert!(log.contains(part), "{part}: {log}");
    }

    let server = Server::logging(INFO, &["--fault", "rate=1% status=UNAVAILABLE"]);
    assert_eq!(control(&server.addr, "List", &[]).await, Code::Ok);
    for name in ["forwarded", "x-forwarded-for", "x-real-ip", "via", "cf-connecting-ip"] {
        for method in ["List", "Set", "Remove", "Clear", "Switch"] {
            let proxied = control(&server.addr, method, &[(name, "127.0.0.1")]).await;
            assert_eq!(proxied, Code::PermissionDenied, "{name} {method}");
        }
    }
    assert!(server.stop().contains("callers on this machine, not through a proxy"));

    let server = Server::logging(INFO, &[&["--fault-token", "s3cret"], &page[..]].concat());
    let at = server.says("dashboard on ");
    for (said, code) in [
        (None, Code::PermissionDenied),
        (Some("Bearer "), Code::PermissionDenied),
        (Some("Bearer s3cre"), Code::PermissionDenied),
        (Some("Bearer s3cret"), Code::Ok),
    ] {
        let said: Vec<_> = said.map(|said| ("authorization", said)).into_iter().collect();
        let proxied = [&said[..], &[("x-forwarded-for", "203.0.113.9")]].concat();
        assert_eq!(control(&server.addr, "List", &said).await, code, "{said:?}");
        assert_eq!(control(&server.addr, "Clear", &proxied).await, code, "{said:?}");
    }
    assert!(post(&at, "/api/faults/clear", "").starts_with("HTTP/1.1 401"));
    let own = "authorization: Bearer s3cret";
    assert!(post(&at, "/api/faults/clear", own).starts_with("HTTP/1.1 204"));
    let log = server.stop();
    assert!(log.contains("callers with the token") && !log.contains("s3cret"), "{log}");
}

// catalogue: S-E6
#[test]
fn a_blank_token_is_refused_at_the_start_by_the_name_of_its_flag() {
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("blank-token");
    let path = file.to_str().unwrap();
    let refused = |args: &[&str], token: Option<&str>| {
        let mut server = Command::new(env!("CARGO_BIN_EXE_calculator-server"));
        server.args(["--addr", "127.0.0.1:0"]).args(args);
        if let Some(token) = token {
            server.env("CALCULATOR_FAULT_TOKEN", token);
        }
        let output = server.output().unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{args:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    for blank in ["", " ", "\t", "\n", " \r\n "] {
        let error = refused(&["--fault-token", blank], None);
        assert!(error.contains("--fault-token"), "{error}");
        let error = refused(&["--dashboard", "127.0.0.1:0"], Some(blank));
        assert!(error.contains("--fault-token"), "{error}");
        fs::write(&file, blank).unwrap();
        let error = refused(&["--fault-token-file", path], None);
        assert!(error.contains("--fault-token-file") && error.contains("not empty"), "{error}");
    }
    let error = refused(&["--fault-token-file", "no/such/file"], None);
    assert!(error.contains("--fault-token-file no/such/file"), "{error}");
}

// real clock: the server is a process.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_a_file_or_of_the_environment_is_the_token() {
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("token");
    fs::write(&file, "s3cret\n").unwrap();
    let by_file = Server::start(&["--fault-token-file", file.to_str().unwrap()]);
    let by_variable = Server::logging(("CALCULATOR_FAULT_TOKEN", "s3cret"), &[]);
    for server in [by_file, by_variable] {
        assert_eq!(control(&server.addr, "Clear", &[]).await, Code::PermissionDenied);
        let token = ("authorization", "Bearer s3cret");
        assert_eq!(control(&server.addr, "Clear", &[token]).await, Code::Ok);
    }
}

#[cfg(unix)]
// real clock: the server is a process.
// catalogue: S-E18
#[tokio::test(flavor = "multi_thread")]
async fn what_strangers_ask_for_is_counted_in_the_log_and_not_repeated() {
    let flags = ["--dashboard", "127.0.0.1:0", "--fault-token", "s3cret"];
    let server = Server::logging(("RUST_LOG", "info"), &flags);
    let page = server.says("dashboard on ");
    let endpoint = Endpoint::try_from(format!("http://{}", server.addr)).unwrap();
    let channel = endpoint.connect().await.unwrap();
    for n in 0..500 {
        let code = call(channel.clone(), &format!("no.such.Service/Method{n}"), &[]).await;
        assert_eq!(code, Code::Unimplemented);
        let code = call(channel.clone(), "cinchona.fault.v1.FaultControl/Clear", &[]).await;
        assert_eq!(code, Code::PermissionDenied);
        assert!(post(&page, "/api/faults/clear", "").starts_with("HTTP/1.1 401"));
        let late = [("grpc-timeout", "1n")];
        call(channel.clone(), "calculator.Calculator/GetCounter", &late).await;
    }
    sleep(Duration::from_millis(1200)).await;
    let log = server.stop();
    assert!(log.len() < 100_000, "{} bytes", log.len());
    let more = |what: &str| {
        let lines = log.lines().filter(|line| line.contains(what));
        let numbers = lines.filter_map(|line| line.split_once("more=")?.1.split(' ').next());
        numbers.filter_map(|number| number.parse::<u32>().ok()).sum::<u32>()
    };
    for what in ["refusing changes of the faults", "refusing to show or change", "calls failed"] {
        assert!(more(what) > 400, "{what}: {}: {log}", more(what));
    }
}

/// The time that a process has computed, in hundredths of a second.
#[cfg(target_os = "linux")]
fn computed(process: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let after = stat.rsplit_once(") ").unwrap().1;
    after.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

#[cfg(target_os = "linux")]
// real clock: the server is a process.
// catalogue: S-E20
#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_descriptors_rests_says_so_and_serves_on() {
    let server = Server::with_descriptors(64, &["--dashboard", "127.0.0.1:0"]);
    let page = server.says("dashboard on ");
    let connect = |at: &str| {
        let connect = |_| TcpStream::connect(at).unwrap();
        (0..100).map(connect).collect::<Vec<_>>()
    };
    let held = [connect(&server.addr), connect(&page)];
    sleep(Duration::from_millis(500)).await;
    let (began, before) = (Instant::now(), computed(server.id()));
    sleep(Duration::from_secs(3)).await;
    let used = computed(server.id()) - before;
    let share = used as f64 / 100.0 / (Instant::now() - began).as_secs_f64();
    assert!(share < 0.2, "it has computed {share:.2} of the time");
    drop(held);
    sleep(Duration::from_millis(1500)).await;
    assert_eq!(ask(&["add", "10", "5", "--addr", &server.addr]).1, "15\n");
    assert!(http(&page, "GET /", "").starts_with("HTTP/1.1 200"));
    let log = server.stop();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("cannot be accepted")).collect();
    assert!((1..=30).contains(&lines.len()), "{} lines: {log}", lines.len());
    assert!(lines[0].contains("os error 24") && lines[0].contains("WARN"), "{}", lines[0]);
}

// real clock: the server is a process.
// catalogue: S-E18
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_never_speaks_http_is_closed_after_10_s() {
    let server = Server::start(&[]);
    let mut held = Vec::new();
    for sent in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r"] {
        let mut stream = TcpStream::connect(&server.addr).unwrap();
        stream.write_all(sent).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        held.push((sent, stream));
    }
    let began = Instant::now();
    for (sent, mut stream) in held {
        let mut rest = Vec::new();
        if let Err(error) = stream.read_to_end(&mut rest) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{sent:?}");
        }
    }
    let took = Instant::now() - began;
    assert!(took > Duration::from_secs(8) && took < Duration::from_secs(15), "{took:?}");
}

// real clock: the server is a process.
// catalogue: S-E12
#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_is_too_large_costs_neither_its_code_nor_its_connection() {
    for size in [20_000, 200_000] {
        let rule = format!(
            "method=/calculator.Calculator/Add status=FAILED_PRECONDITION:{}",
            "x".repeat(size)
        );
        let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("large-{size}"));
        fs::write(&file, rule).unwrap();
        let server = Server::start(&["--faults-file", file.to_str().unwrap()]);
        let endpoint = Endpoint::try_from(format!("http://{}", server.addr)).unwrap();
        let channel = endpoint.connect().await.unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        // The rule is read once the server has begun.
        while call(channel.clone(), "calculator.Calculator/Add", &[]).await == Code::Ok {
            assert!(Instant::now() < until);
            sleep(Duration::from_millis(50)).await;
        }
        let watch = call(channel.clone(), "calculator.Calculator/GetCounter", &[]);
        let large = call(channel.clone(), "calculator.Calculator/Add", &[]);
        assert_eq!(tokio::join!(watch, large), (Code::Ok, Code::FailedPrecondition));
    }
}
