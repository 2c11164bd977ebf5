//! The test's own Redis.

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// A `redis-server` process on its own port, empty and without persistence, which is killed on
/// drop.
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
    /// When `redis-server` is not installed (Debian's package has that name), or does not start:
    /// mark tests that use it with `#[ignore = "needs redis-server"]`.
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

    /// Its address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its URL, `redis://…`.
    pub fn url(&self) -> String {
        format!("redis://{}", self.addr)
    }

    /// Kills it, and loses its data.
    pub fn kill(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }

    /// Starts it again at the same address.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn restart(&mut self) {
        self.kill();
        self.process = Self::spawned(self.addr);
        self.answers().await;
    }

    /// Sends it a signal, such as `STOP`, which it does not notice, and `CONT`.
    ///
    /// # Panics
    /// When `kill` is not installed.
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
