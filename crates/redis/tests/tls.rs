//! TLS to a Redis with the test's own certificates.
#![expect(clippy::unwrap_used, reason = "a test fails where something is missing")]

use cinchona_idempotency::{Store, conformance};
use cinchona_redis::{RedisStore, Servers};
use std::{
    fs,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};
use tempfile::TempDir;
use tokio::time::Instant;

const LEASE: Duration = Duration::from_secs(30);
const SECOND: Duration = Duration::from_secs(1);

/// A Redis with TLS only, which identifies clients by certificates of the test's authority.
struct Secured {
    child: Child,
    port: u16,
    dir: TempDir,
}

impl Secured {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        authority(&dir);
        issue(&dir, "server", "subjectAltName=IP:127.0.0.1,DNS:localhost");
        issue(&dir, "client", "extendedKeyUsage=clientAuth");
        let child = Self::spawn(&dir, port);
        Self { child, port, dir }
    }

    fn spawn(dir: &TempDir, port: u16) -> Child {
        Command::new("redis-server")
            .current_dir(dir.path())
            .args(["--port", "0", "--tls-port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--tls-cert-file", "server.pem", "--tls-key-file", "server.key"])
            .args(["--tls-ca-cert-file", "ca.pem", "--requirepass", "mark-password"])
            .args(["--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is not installed: apt-get install redis-server")
    }

    fn restart(&mut self) {
        self.kill();
        self.child = Self::spawn(&self.dir, self.port);
    }

    fn kill(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }

    fn servers(&self) -> Servers {
        let url = format!("rediss://:mark-password@localhost:{}", self.port);
        Servers::one(&url).unwrap()
    }

    fn pem(&self, name: &str) -> Vec<u8> {
        fs::read(self.dir.path().join(name)).unwrap()
    }
}

impl Drop for Secured {
    fn drop(&mut self) {
        self.kill();
    }
}

fn openssl(dir: &TempDir, args: &str) {
    let mut command = Command::new("openssl");
    let ended = command.current_dir(dir.path()).args(args.split(' ')).output().unwrap();
    assert!(ended.status.success(), "{args}: {}", String::from_utf8_lossy(&ended.stderr));
}

fn authority(dir: &TempDir) {
    openssl(
        dir,
        "req -x509 -newkey rsa:2048 -nodes -days 2 -keyout ca.key -out ca.pem -subj /CN=ca",
    );
}

fn issue(dir: &TempDir, name: &str, extension: &str) {
    let key = format!("req -new -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr");
    openssl(dir, &format!("{key} -subj /CN={name}"));
    fs::write(dir.path().join("extensions"), extension).unwrap();
    let sign = format!("x509 -req -days 2 -in {name}.csr -CA ca.pem -CAkey ca.key -out {name}.pem");
    openssl(dir, &format!("{sign} -CAcreateserial -extfile extensions"));
}

/// How long it takes until a claim is granted.
async fn back(store: &RedisStore, tokens: &mut u128) -> Duration {
    let began = Instant::now();
    loop {
        *tokens += 1;
        if store.claim(format!("key {tokens}").as_bytes(), 1, *tokens, LEASE).await.is_ok() {
            return Instant::now() - began;
        }
        assert!(Instant::now() - began < 20 * SECOND, "it is not back");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

// real clock: Redis has its own clock.
// catalogue: S-C9
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server"]
async fn a_store_over_tls_conforms_reconnects_and_trusts_no_other_server() {
    let mut redis = Secured::start();
    let (roots, chain, key) =
        (redis.pem("ca.pem"), redis.pem("client.pem"), redis.pem("client.key"));
    let trusted = redis.servers().with_roots(&roots).unwrap().with_identity(&chain, &key).unwrap();
    let store = RedisStore::at(trusted.clone());
    let mut tokens = 0;
    back(&store, &mut tokens).await;
    let number = AtomicU32::new(0);
    let fresh = || {
        let store = store.clone().with_timeout(10 * SECOND).unwrap();
        let prefix = format!("law {}", number.fetch_add(1, Ordering::Relaxed));
        async move { store.with_prefix(&prefix).unwrap() }
    };
    conformance::store(fresh).await;
    conformance::state(fresh).await;
    redis.restart();
    let after = back(&store, &mut tokens).await;
    // The server takes some time to start.
    assert!(after <= 3 * SECOND, "{after:?}");

    let stranger = tempfile::tempdir().unwrap();
    authority(&stranger);
    let other = fs::read(stranger.path().join("ca.pem")).unwrap();
    for servers in [
        redis.servers(),
        redis.servers().with_roots(&roots).unwrap(),
        trusted.with_roots(&other).unwrap(),
    ] {
        let store = RedisStore::at(servers).with_timeout(SECOND).unwrap();
        let refused = store.claim(b"k", 1, 1, LEASE).await.unwrap_err().to_string();
        assert!(refused.contains("Redis") && !refused.contains("mark"), "{refused}");
    }
    let plain = Servers::one("redis://localhost").unwrap();
    assert_eq!(plain.with_roots(&roots).unwrap_err().field(), "roots");
    for (chain, key) in [(&b"mark"[..], &key[..]), (&chain, b"mark"), (&chain, &roots)] {
        let refused = redis.servers().with_identity(chain, key).unwrap_err();
        assert_eq!(refused.field(), "identity");
        assert!(!refused.to_string().contains("mark"));
    }
}
