//! A Redis of a test's own.

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// A `redis-server` process on a port of its own, with nothing in it and nothing on disk, which is
/// killed when it is dropped.
#[derive(Debug)]
pub struct Redis {
    process: Child,
    addr: SocketAddr,
}

// === impl Redis ===

impl Redis {
    /// Starts one.
    ///
    /// # Panics
    /// When there is no `redis-server` here (Debian's package has that name), or it does not start:
    /// a test that uses it is `#[ignore = "needs redis-server"]`.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let addr = listener.unwrap_or_else(|error| panic!("no free port: {error}"));
        let redis = Self { process: Self::spawned(addr), addr };
        redis.answers().await;
        redis
    }

    fn spawned(addr: SocketAddr) -> Child {
        let process = Command::new("redis-server")
            .args(["--port", &addr.port().to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn();
        process.unwrap_or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                panic!("redis-server is not installed: apt-get install redis-server")
            }
            _ => panic!("redis-server: {error}"),
        })
    }

    async fn answers(&self) {
        for _ in 0..1000 {
            if TcpStream::connect(self.addr).is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("redis-server does not answer on {}", self.addr);
    }

    /// Where it is.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where it is, as `redis://…`.
    pub fn url(&self) -> String {
        format!("redis://{}", self.addr)
    }

    /// Kills it, and forgets what was in it.
    pub fn kill(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }

    /// Starts it again where it was.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn restart(&mut self) {
        self.kill();
        self.process = Self::spawned(self.addr);
        self.answers().await;
    }

    /// Sends it a signal, such as `STOP`, of which it knows nothing, and `CONT`.
    ///
    /// # Panics
    /// When there is no `kill` here.
    pub fn signal(&self, signal: &str) {
        let pid = self.process.id().to_string();
        let sent = Command::new("kill").args([&format!("-{signal}"), &pid]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -{signal}");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
