//! A proxy between a client and its Redis: it forwards, falls silent, or answers itself.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    io::{self, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf},
    sync::watch,
};

/// What a connection does with a command.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Manner {
    HandsOn,
    Silent,
    Answers(String),
}

/// A listener before a Redis.
pub(crate) struct Between {
    pub(crate) addr: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    redis: SocketAddr,
    /// The manner of connections made from now on.
    fresh: Mutex<Manner>,
    made: Mutex<Vec<watch::Sender<Manner>>>,
    count: AtomicUsize,
}

impl Between {
    pub(crate) async fn new(redis: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            redis,
            fresh: Mutex::new(Manner::HandsOn),
            made: Mutex::default(),
            count: AtomicUsize::new(0),
        });
        let accepting = shared.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepting.count.fetch_add(1, Ordering::Relaxed);
                let set = watch::Sender::new(accepting.fresh.lock().unwrap().clone());
                let manner = set.subscribe();
                accepting.made.lock().unwrap().push(set);
                tokio::spawn(serve(stream, accepting.redis, manner));
            }
        });
        Self { addr, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.addr)
    }

    /// The existing connections, and not later ones.
    pub(crate) fn spoil(&self, manner: &Manner) {
        for made in &*self.shared.made.lock().unwrap() {
            made.send_replace(manner.clone());
        }
    }

    /// All connections.
    pub(crate) fn set(&self, manner: &Manner) {
        *self.shared.fresh.lock().unwrap() = manner.clone();
        self.spoil(manner);
    }

    /// How many connections were made.
    pub(crate) fn made(&self) -> usize {
        self.shared.count.load(Ordering::Relaxed)
    }
}

/// A sentinel that names the port of `primary`.
pub(crate) async fn sentinel(primary: watch::Receiver<u16>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(name(stream, primary.clone()));
        }
    });
    format!("redis://{addr}")
}

async fn name(stream: TcpStream, primary: watch::Receiver<u16>) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let command = item(&mut read).await?;
        let is_asked = String::from_utf8_lossy(&command).contains("get-master-addr-by-name");
        let port = primary.borrow().to_string();
        let named = format!("*2\r\n$9\r\n127.0.0.1\r\n${}\r\n{port}\r\n", port.len());
        write.write_all(if is_asked { named.as_bytes() } else { b"+OK\r\n" }).await?;
    }
}

/// One command after the other.
async fn serve(
    stream: TcpStream,
    redis: SocketAddr,
    mut manners: watch::Receiver<Manner>,
) -> io::Result<()> {
    let (mut up_read, mut up_write) = {
        let (read, write) = TcpStream::connect(redis).await?.into_split();
        (BufReader::new(read), write)
    };
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let command = item(&mut read).await?;
        let manner = manners.borrow_and_update().clone();
        match manner {
            Manner::HandsOn => {
                up_write.write_all(&command).await?;
                let answer = item(&mut up_read).await?;
                if *manners.borrow() != Manner::Silent {
                    write.write_all(&answer).await?;
                }
            }
            Manner::Silent => {}
            Manner::Answers(error) => write.write_all(format!("-{error}\r\n").as_bytes()).await?,
        }
    }
}

/// One item of RESP 2, as received.
async fn item(read: &mut BufReader<OwnedReadHalf>) -> io::Result<Vec<u8>> {
    let (mut all, mut left) = (Vec::new(), 1_i64);
    while left > 0 {
        let at = all.len();
        if read.read_until(b'\n', &mut all).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left -= 1;
        let line = std::str::from_utf8(&all[at + 1..all.len() - 2]).unwrap_or_default();
        let number = line.parse::<i64>().unwrap_or(-1);
        match all[at] {
            b'*' => left += number.max(0),
            b'$' if number >= 0 => {
                let begin = all.len();
                all.resize(begin + number as usize + 2, 0);
                read.read_exact(&mut all[begin..]).await?;
            }
            _ => {}
        }
    }
    Ok(all)
}
