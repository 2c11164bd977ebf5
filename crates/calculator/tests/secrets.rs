//! A secret is never said: whatever the programs answer, log, show and export, the passwords and
//! tokens of their command lines, and where their stores are, are not in it.

use calculator::pb::{BinaryOperation, CounterRequest, calculator_client::CalculatorClient};
use outside::{Server, ask, client, http};
use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    process::Command,
    thread,
};
use tonic::Request;

/// What is in every secret of these tests, and nowhere else.
const MARK: &str = "swordfish";

fn assert_unsaid(said: &str, by: &str) {
    let line = said.lines().find(|line| line.to_lowercase().contains(MARK));
    assert_eq!(line, None, "{by}");
}

/// A server that repeats in an error whatever it is sent, as a Redis does with what it does not
/// know, and shows the password in it.
fn repeating_redis() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut write = stream.try_clone().unwrap();
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let said = format!("-ERR unknown '{line}', with {MARK}\r\n");
                    if !line.starts_with(['*', '$']) && write.write_all(said.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    addr.to_string()
}

/// Everything that a caller by gRPC receives: metadata and trailers, of answers and failures.
async fn grpc(addr: &str) -> String {
    let mut client = CalculatorClient::connect(format!("http://{addr}")).await.unwrap();
    let mut received = String::new();
    for key in [None, Some("k")] {
        let (mut add, mut count) = (
            Request::new(BinaryOperation { a: 1.0, b: 2.0 }),
            Request::new(CounterRequest::default()),
        );
        if let Some(key) = key {
            add.metadata_mut().insert("idempotency-key", key.parse().unwrap());
            count.metadata_mut().insert("idempotency-key", key.parse().unwrap());
        }
        received +=
            &format!("{:?}\n{:?}\n", client.add(add).await, client.increment_counter(count).await);
    }
    assert!(received.contains("idempotency-domain"), "{received}");
    received
}

/// Searches everything that a server with this store writes and answers.
async fn written(store: &str) {
    const TRACED: (&str, &str) = ("RUST_LOG", "trace");
    let token = format!("{MARK}-token");
    let page = ["--dashboard", "127.0.0.1:0", "--fault-token", &token];
    let server = Server::logging(TRACED, &[&["--store", store], &page[..]].concat());
    let page = server.says("dashboard on ");
    assert_unsaid(&grpc(&server.addr).await, store);
    for path in ["GET /", "GET /api/state", "GET /metrics", "POST /api/faults/clear"] {
        assert_unsaid(&http(&page, path, ""), store);
    }
    let (_, out, err) = ask(&["increment", "--addr", &server.addr, "--explain"]);
    assert_unsaid(&(out + &err), store);
    assert_unsaid(&server.stop(), store);
}

// real clock: the programs are processes.
// catalogue: S-E1
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn no_caller_no_page_and_no_log_is_told_a_password_or_where_a_store_is() {
    let (redis, gone) = (repeating_redis(), "127.0.0.1:9");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(MARK);
    std::fs::create_dir(&path).unwrap();
    for store in [
        format!("redis://:{MARK}@{redis}"),
        format!("redis://{MARK}:{MARK}@{redis}/0?protocol=resp3"),
        format!("redis://:{MARK}@{gone}/1"),
        format!("redis:VALKEY://:{MARK}@{gone}"),
        format!("unix://{}/redis.sock?db=0&pass={MARK}", path.display()),
        format!("redb:{}/calls.redb", path.display()),
    ] {
        written(&store).await;
    }
}

#[test]
fn a_wrong_option_is_refused_without_its_secret() {
    let server = |args: &[&str]| {
        let mut server = Command::new(env!("CARGO_BIN_EXE_calculator-server"));
        server.args(["--addr", "127.0.0.1:0"]).args(args).env("RUST_LOG", "trace");
        server
    };
    let mut refused = Vec::new();
    for store in [
        "swordfish",
        "redi://:swordfish@db",
        "redis:swordfish@db",
        "redis://:sword/swordfish@db",
        "redis://:swordfish@db:port",
        "redis://:swordfish@[db]",
        "redis://:swordfish@db/base",
        "redis://:swordfish%FF@db",
        "redis://db?protocol=swordfish",
        "rediss://:swordfish@db/x",
        "unix:?pass=swordfish",
    ] {
        refused.push((store, server(&["--store", store])));
    }
    for url in [
        "swordfish",
        "http://:swordfish@127.0.0.1:4317",
        "http://swordfish:swordfish@127.0.0.1:4317",
        "https://token:swordfish@collector",
        "http://swordfish in it",
    ] {
        refused.push((url, server(&["--otlp", url])));
        refused.push((url, client(&["add", "1", "2", "--otlp", url])));
    }
    for servers in ["user:swordfish@127.0.0.1:1", "user:swordfish@", "sword fish@"] {
        refused.push((servers, client(&["add", "1", "2", "--endpoints", servers])));
        let fallback = format!("alternate:{servers}");
        refused.push((servers, client(&["add", "1", "2", "--fallback", &fallback])));
    }
    for (args, mut command) in refused {
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        assert!(!output.status.success() && !said.is_empty(), "{args}: {said}");
        assert_unsaid(&said, args);
        assert!(!said.contains("sword fish"), "{said}");
    }
}
