//! Programs as processes: the calculator's on loopback sockets, and those of others.
//!
//! A test that does not find a program fails with the name of the package to install: such a test
//! is `#[ignore]`d.
#![expect(clippy::unwrap_used, reason = "a test fails where something is missing")]

use std::{
    cell::RefCell,
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Output, Stdio},
    thread::{self, JoinHandle},
};

/// A `calculator-server`, or a program that is one with more, which is killed when it is dropped.
#[derive(Debug)]
pub struct Server {
    process: Child,
    /// Where it serves.
    pub addr: String,
    said: RefCell<BufReader<ChildStdout>>,
    /// The thread that reads its log, without which a full pipe would stop it.
    logged: Option<JoinHandle<String>>,
}

impl Server {
    /// A server at a free port.
    pub fn start(args: &[&str]) -> Self {
        Self::on("127.0.0.1:0", args)
    }

    /// A server of this program at a free port.
    pub fn of(name: &str, args: &[&str]) -> Self {
        let mut command = Command::new(program(name));
        command.stderr(Stdio::null());
        Self::spawn(command, "127.0.0.1:0", args)
    }

    /// A server at this address.
    pub fn on(addr: &str, args: &[&str]) -> Self {
        let mut command = Command::new(program("calculator-server"));
        command.stderr(Stdio::null());
        Self::spawn(command, addr, args)
    }

    /// A server that gets an error where a file would be too large, and is not killed (SIGXFSZ).
    #[cfg(unix)]
    pub fn with_errors_for_large_files(args: &[&str]) -> Self {
        let mut command = Command::new("sh");
        let server = program("calculator-server");
        command.args(["-c", r#"trap "" XFSZ; exec "$0" "$@""#]).arg(server).stderr(Stdio::null());
        Self::spawn(command, "127.0.0.1:0", args)
    }

    /// Lets its files have so many bytes at most.
    #[cfg(target_os = "linux")]
    pub fn limits_files(&self, bytes: &str) {
        let (pid, limit) = (self.process.id().to_string(), format!("--fsize={bytes}:"));
        assert!(Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap().success());
    }

    /// Waits until it has ended; whether it succeeded.
    #[cfg(unix)]
    pub fn ends(mut self) -> bool {
        self.process.wait().unwrap().success()
    }

    /// A server whose log is returned when it is stopped.
    #[cfg(unix)]
    pub fn logging(levels: (&str, &str), args: &[&str]) -> Self {
        Self::logging_of("calculator-server", levels, args)
    }

    /// A server of this program, whose log is returned when it is stopped.
    #[cfg(unix)]
    pub fn logging_of(name: &str, levels: (&str, &str), args: &[&str]) -> Self {
        let mut command = Command::new(program(name));
        command.env(levels.0, levels.1).stderr(Stdio::piped());
        let mut server = Self::spawn(command, "127.0.0.1:0", args);
        server.read_log();
        server
    }

    #[cfg(unix)]
    fn read_log(&mut self) {
        let mut log = self.process.stderr.take().unwrap();
        self.logged = Some(thread::spawn(move || {
            let mut logged = String::new();
            log.read_to_string(&mut logged).unwrap();
            logged
        }));
    }

    /// A server with so many descriptors, whose log is returned when it is stopped.
    #[cfg(target_os = "linux")]
    pub fn with_descriptors(descriptors: u32, args: &[&str]) -> Self {
        let mut command = Command::new("sh");
        let exec = format!("ulimit -n {descriptors}; exec \"$0\" \"$@\"");
        command.args(["-c", &exec]).arg(program("calculator-server"));
        command.stderr(Stdio::piped());
        let mut server = Self::spawn(command, "127.0.0.1:0", args);
        server.read_log();
        server
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The addresses at which it listens by TCP, or receives by UDP.
    #[cfg(target_os = "linux")]
    pub fn sockets(&self) -> Vec<SocketAddr> {
        let process = self.id();
        let fds = fs::read_dir(format!("/proc/{process}/fd")).unwrap();
        let links = fds.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
        let own: Vec<String> = links.map(|link| link.to_string_lossy().into_owned()).collect();
        let mut found = Vec::new();
        for (table, state) in [("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")] {
            let table = format!("/proc/{process}/net/{table}");
            for line in fs::read_to_string(table).unwrap_or_default().lines().skip(1) {
                let columns: Vec<&str> = line.split_whitespace().collect();
                if columns[3] == state && own.contains(&format!("socket:[{}]", columns[9])) {
                    found.push(address(columns[1]));
                }
            }
        }
        found
    }

    /// Stops it as an operator does; what it has logged.
    #[cfg(unix)]
    pub fn stop(mut self) -> String {
        self.signal("TERM");
        assert!(self.process.wait().unwrap().success());
        self.logged.take().unwrap().join().unwrap()
    }

    fn spawn(mut command: Command, addr: &str, args: &[&str]) -> Self {
        let mut process =
            command.args(["--addr", addr]).args(args).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        let addr = line.trim().strip_prefix("listening on ").unwrap().to_owned();
        Self { process, addr, said: said.into(), logged: None }
    }

    /// Where it gossips, or has its dashboard, which it says after where it serves.
    pub fn says(&self, what: &str) -> String {
        let mut line = String::new();
        self.said.borrow_mut().read_line(&mut line).unwrap();
        line.trim().strip_prefix(what).unwrap().to_owned()
    }

    /// Sends it a signal, such as `TERM`.
    #[cfg(unix)]
    pub fn signal(&self, signal: &str) {
        let (pid, signal) = (self.process.id().to_string(), format!("-{signal}"));
        assert!(Command::new("kill").args([&signal, &pid]).status().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

/// An address as Linux shows it: words of four bytes in the machine's order, in hexadecimal.
#[cfg(target_os = "linux")]
fn address(shown: &str) -> SocketAddr {
    let (ip, port) = shown.split_once(':').unwrap();
    let words = ip.as_bytes().chunks(8).map(|word| std::str::from_utf8(word).unwrap());
    let bytes: Vec<u8> =
        words.flat_map(|word| u32::from_str_radix(word, 16).unwrap().to_ne_bytes()).collect();
    let port = u16::from_str_radix(port, 16).unwrap();
    match <[u8; 4]>::try_from(&bytes[..]) {
        Ok(ip) => (ip, port).into(),
        Err(_) => (<[u8; 16]>::try_from(bytes).unwrap(), port).into(),
    }
}

/// A program with a page, which is killed when it is dropped.
#[derive(Debug)]
pub struct Paged {
    process: Child,
    /// Where the page is.
    pub page: String,
}

impl Paged {
    /// `calculator-load`, which says it on stderr.
    pub fn load(args: &[&str]) -> Self {
        let mut load = Command::new(program("calculator-load"));
        load.args(["-z", "2m", "--dashboard", "127.0.0.1:0"]);
        load.args(args).stdout(Stdio::null()).stderr(Stdio::piped()).env("RUST_LOG", "off");
        let mut process = load.spawn().unwrap();
        let page = page(process.stderr.take().unwrap());
        Self { process, page }
    }
}

fn page(said: impl Read) -> String {
    let mut line = String::new();
    BufReader::new(said).read_line(&mut line).unwrap();
    line.trim().strip_prefix("dashboard on http://").unwrap().to_owned()
}

impl Drop for Paged {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

/// `calculator-client`, to be started.
pub fn client(args: &[&str]) -> Command {
    let mut command = Command::new(program("calculator-client"));
    command.args(args);
    command
}

/// Runs `calculator-client`: its exit code, its output and its errors.
pub fn ask(args: &[&str]) -> (Option<i32>, String, String) {
    output(&client(args).output().unwrap())
}

/// The exit code of a program that has ended, its output and its errors.
pub fn output(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout.clone()), text(output.stderr.clone()))
}

/// The answer to a request, head and all.
pub fn http(page: &str, request: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(page).unwrap();
    let (length, close) = (body.len(), "connection: close");
    // A request that names its version brings its own headers.
    let version = if request.contains(" HTTP/1.") { "" } else { " HTTP/1.1" };
    let head = format!("{request}{version}\r\nhost: {page}\r\ncontent-length: {length}\r\n{close}");
    write!(stream, "{head}\r\ncontent-type: application/json\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// A program of this workspace, which cargo builds beside its tests.
///
/// # Panics
/// Where it is not built.
pub fn program(name: &str) -> PathBuf {
    let test = env::current_exe().unwrap();
    let beside = test.parent().and_then(Path::parent).unwrap();
    let program = beside.join(format!("{name}{}", env::consts::EXE_SUFFIX));
    assert!(program.exists(), "{} is not built: cargo build --bins", program.display());
    program
}

/// Where the program `name` is.
///
/// # Panics
/// Where it is not installed; `package` is what has it in Debian.
pub fn needed(name: &str, package: &str) -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    let daemons = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let mut folders = env::split_paths(&path).chain(daemons);
    let found = folders.find_map(|folder| Some(folder.join(name)).filter(|file| file.is_file()));
    found.unwrap_or_else(|| panic!("{name} is not installed: apt-get install {package}"))
}

/// A Python that has grpcio.
///
/// # Panics
/// Where there is none.
pub fn python() -> &'static str {
    let found = ["python3", "/usr/bin/python3"].into_iter().find(|python| {
        let import =
            Command::new(python).args(["-c", "import grpc"]).stderr(Stdio::null()).status();
        import.is_ok_and(|status| status.success())
    });
    found.unwrap_or_else(|| panic!("no python3 with grpcio: apt-get install python3-grpcio"))
}

/// The modules of node that have grpc-js.
///
/// # Panics
/// Where it is not installed.
pub fn grpc_js() -> PathBuf {
    needed("node", "nodejs");
    let modules = within("target/node/node_modules");
    let install = "npm install --prefix target/node @grpc/grpc-js@1.14.7";
    assert!(modules.join("@grpc/grpc-js").exists(), "grpc-js is not installed: {install}");
    modules
}

/// A path within the workspace.
pub fn within(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}
