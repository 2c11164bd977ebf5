//! The servers of a script.

use super::{
    connection::serve,
    script::{Address, Line, Script, Server, Step},
    seen::{Attempt, Seen},
    tap::{Socket, Tap},
};
use std::{
    env, fs, io,
    path::PathBuf,
    process,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpSocket, UnixListener},
    runtime::Handle,
    sync::watch,
    task::AbortHandle,
    time::sleep,
};

/// The servers of a script, which run until this is dropped.
#[derive(Debug)]
pub struct Serving {
    servers: Vec<Arc<Shared>>,
    pub addresses: Vec<String>,
    begun: watch::Sender<bool>,
    files: Vec<PathBuf>,
}

/// What the connections of a server share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) index: usize,
    script: Server,
    attempts: Mutex<Vec<Attempt>>,
    /// How many requests have been read to their end.
    pub(super) read: watch::Sender<usize>,
    connections: AtomicU64,
    pings: Arc<AtomicU64>,
    taps: Mutex<Vec<Weak<Tap>>>,
    tasks: Mutex<Vec<AbortHandle>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A socket of that port (0: any), which refuses connections until it listens.
fn bound(port: u16) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(([127, 0, 0, 1], port).into())?;
    Ok(socket)
}

/// A path for a socket that nobody else has.
fn socket_file() -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Relaxed);
    env::temp_dir().join(format!("suite-{}-{number}.sock", process::id()))
}

// === impl Serving ===

impl Serving {
    /// Starts the servers of `script`.
    ///
    /// # Errors
    /// When no socket can be had.
    pub fn start(script: &Script) -> io::Result<Self> {
        let begun = watch::Sender::new(false);
        let mut serving =
            Self { servers: Vec::new(), addresses: Vec::new(), begun, files: Vec::new() };
        for (index, server) in script.servers.iter().enumerate() {
            serving.add(index, server)?;
        }
        Ok(serving)
    }

    fn add(&mut self, index: usize, script: &Server) -> io::Result<()> {
        let shared = Arc::new(Shared::new(index, script.clone()));
        self.servers.push(shared.clone());
        if script.address == Address::Unix {
            let path = socket_file();
            let listener = UnixListener::bind(&path)?;
            self.addresses.push(format!("unix://{}", path.display()));
            self.files.push(path);
            shared.clone().spawn(shared.clone().serve_unix(listener));
            return Ok(());
        }
        let socket = bound(0)?;
        let port = socket.local_addr()?.port();
        let host = match script.address {
            Address::Localhost => "localhost",
            Address::Nowhere => "nowhere.invalid",
            Address::Ip | Address::Unix => "127.0.0.1",
        };
        self.addresses.push(format!("{host}:{port}"));
        let late = script.down || script.down_ms.is_some();
        // A server that is not down listens before its address is printed.
        let ready = if late { Err(socket) } else { Ok(socket.listen(1024)?) };
        shared.clone().spawn(shared.clone().serve_tcp(ready, port, self.begun.subscribe()));
        Ok(())
    }

    /// The first call begins now.
    pub fn begin(&self) {
        self.begun.send_replace(true);
    }

    /// What the servers have seen; the outcomes are the client's to say.
    pub fn seen(&self) -> Seen {
        let mut attempts: Vec<_> =
            self.servers.iter().flat_map(|server| lock(&server.attempts).clone()).collect();
        attempts.sort_by_key(|attempt| attempt.at);
        let sum = |count: fn(&Shared) -> u64| self.servers.iter().map(|server| count(server)).sum();
        Seen {
            attempts,
            connections: sum(|server| server.connections.load(Relaxed)),
            pings: sum(|server| server.pings.load(Relaxed)),
            outcomes: Vec::new(),
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let tasks =
            self.servers.iter().flat_map(|server| std::mem::take(&mut *lock(&server.tasks)));
        tasks.for_each(|task| task.abort());
        // What is not there any more need not go.
        self.files.iter().for_each(|file| _ = fs::remove_file(file));
    }
}

// === impl Shared ===

impl Shared {
    fn new(index: usize, script: Server) -> Self {
        Self {
            index,
            script,
            attempts: Mutex::default(),
            read: watch::Sender::new(0),
            connections: AtomicU64::new(0),
            pings: Arc::default(),
            taps: Mutex::default(),
            tasks: Mutex::default(),
        }
    }

    /// Runs a task for as long as the script.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = lock(&self.tasks);
        tasks.retain(|task| !task.is_finished());
        tasks.push(Handle::current().spawn(task).abort_handle());
    }

    /// Notes that a request has come, and which one of this server it is.
    pub(super) fn arrived(&self, attempt: Attempt) -> usize {
        let mut attempts = lock(&self.attempts);
        attempts.push(attempt);
        attempts.len() - 1
    }

    pub(super) fn note(&self, number: usize, note: impl FnOnce(&mut Attempt)) {
        if let Some(attempt) = lock(&self.attempts).get_mut(number) {
            note(attempt);
        }
    }

    /// What becomes of that request.
    pub(super) fn answer(&self, number: usize) -> Vec<Step> {
        let answers = &self.script.answers;
        let number = if self.script.cycle { number % answers.len().max(1) } else { number };
        answers.get(number).or(answers.last()).cloned().unwrap_or_else(|| vec![Step::Ok])
    }

    fn connected<S: Socket>(self: &Arc<Self>, socket: S) {
        let number = self.connections.fetch_add(1, Relaxed) as usize;
        let lines = &self.script.connections;
        let line: Line = lines.get(number).or(lines.last()).cloned().unwrap_or_default();
        let tap = Arc::new(Tap::new(self.pings.clone()));
        lock(&self.taps).push(Arc::downgrade(&tap));
        self.spawn(serve(socket, line, self.clone(), tap));
    }

    async fn serve_unix(self: Arc<Self>, listener: UnixListener) {
        while let Ok((socket, _)) = listener.accept().await {
            self.connected(socket);
        }
    }

    async fn serve_tcp(
        self: Arc<Self>,
        ready: Result<TcpListener, TcpSocket>,
        port: u16,
        mut begun: watch::Receiver<bool>,
    ) {
        let listener = match ready {
            Ok(listener) => Ok(listener),
            Err(socket) => {
                // Until then the port is bound, so that nobody else has it, and refuses.
                _ = begun.wait_for(|begun| *begun).await;
                match self.script.down_ms.filter(|_| !self.script.down) {
                    Some(ms) => sleep(Duration::from_millis(ms)).await,
                    None => std::future::pending().await,
                }
                socket.listen(1024)
            }
        };
        let Ok(listener) = listener else { return };
        let Some(restart) = self.script.restart else { return self.accept(&listener).await };
        let mut read = self.read.subscribe();
        tokio::select! {
            () = self.accept(&listener) => {}
            _ = read.wait_for(|read| *read >= restart.after_requests) => {}
        }
        // The answer leaves first.
        sleep(Duration::from_millis(50)).await;
        drop(listener);
        lock(&self.taps).iter().filter_map(Weak::upgrade).for_each(|tap| tap.cut());
        let Ok(socket) = bound(port) else { return };
        sleep(Duration::from_millis(restart.down_ms)).await;
        if let Ok(listener) = socket.listen(1024) {
            self.accept(&listener).await;
        }
    }

    async fn accept(self: &Arc<Self>, listener: &TcpListener) {
        while let Ok((socket, _)) = listener.accept().await {
            // An error means that the client has gone already.
            _ = socket.set_nodelay(true);
            self.connected(socket);
        }
    }
}
