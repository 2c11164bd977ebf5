//! Interoperation with Python's grpcio, both ways.

use outside::{Server, ask, python, within};
use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
};

fn script(name: &str) -> PathBuf {
    within("crates/outside/tests/python").join(name)
}

#[test]
#[ignore = "needs python3 with grpcio"]
fn a_python_client_calls_our_server() {
    let server = Server::start(&[]);
    let output =
        Command::new(python()).arg(script("client.py")).arg(&server.addr).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let expected = "Add 15.0\nSubtract 5.0\nMultiply 50.0\nDivide 2.0\n\
                    INVALID_ARGUMENT division by zero\nRange [1.0, 2.0, 3.0]\nSum 6.0\n";
    assert_eq!(said, expected, "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[ignore = "needs python3 with grpcio"]
fn a_python_client_that_names_its_calls_and_retries_them_counts_each_once() {
    let server = Server::start(&["--failure-rate", "0.5", "--fail-when", "after"]);
    let output =
        Command::new(python()).arg(script("counter.py")).arg(&server.addr).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    let duplicates = said.strip_prefix("counter 100\nduplicates ").unwrap_or_else(|| {
        panic!("{said}{error}");
    });
    let duplicates: u32 = duplicates.trim().parse().unwrap();
    assert!((10..=90).contains(&duplicates), "{duplicates} of 100 were answered again");
}

#[test]
#[ignore = "needs python3 with grpcio"]
fn our_client_calls_a_python_server_that_fails_twice_and_then_answers() {
    let mut server =
        Command::new(python()).arg(script("server.py")).stdout(Stdio::piped()).spawn().unwrap();
    let mut port = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut port).unwrap();
    let addr = format!("127.0.0.1:{}", port.trim());
    let args = ["add", "10", "5", "--addr", &addr, "--retry-on", "unavailable"];
    let (code, out, err) = ask(&[&args[..], &["--backoff", "10ms", "--jitter", "0s"]].concat());
    _ = server.kill();
    _ = server.wait();
    assert_eq!((code, out.as_str()), (Some(0), "15\n"), "{err}");
    assert_eq!(err.matches("attempt failed, retrying").count(), 2, "{err}");
}
