//! The demo, as a process.

mod story;
mod top;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

/// A demo with a page, which is killed when it is dropped.
struct Paged {
    process: Child,
    /// Where the page is.
    page: String,
}

// === impl Paged ===

impl Paged {
    fn new(args: &[&str]) -> Self {
        let mut demo = Command::new(env!("CARGO_BIN_EXE_calculator-demo"));
        demo.args(["--dashboard", "127.0.0.1:0"]).args(args);
        let mut process = demo.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let page = line.trim().strip_prefix("dashboard on http://").unwrap().to_owned();
        Self { process, page }
    }

    /// The answer to a request for this path, head and all.
    fn get(&self, path: &str) -> String {
        let Self { page, .. } = self;
        let mut stream = TcpStream::connect(page).unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nhost: {page}\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

/// Runs it: its exit code, its output and its errors.
fn demo(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_calculator-demo")).args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

impl Drop for Paged {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

#[test]
fn the_virtual_demo_meets_its_expectations_and_is_identical_for_the_same_seed() {
    let report = |n: u32| {
        let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("demo-{n}"));
        let output = Command::new(env!("CARGO_BIN_EXE_calculator-demo"))
            .args(["--virtual", "--seed", "7", "--out"])
            .arg(&out)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        ["json", "md", "html"]
            .map(|kind| fs::read_to_string(out.join("report").with_extension(kind)).unwrap())
    };
    let [first, second] = std::thread::scope(|scope| {
        [1, 2].map(|n| scope.spawn(move || report(n))).map(|report| report.join().unwrap())
    });
    assert_eq!(first, second);
}
