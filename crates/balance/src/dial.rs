//! Making connections.

use crate::{
    address::{Dial, interleave},
    callback,
    wire::Io,
};
use cinchona_core::BoxError;
use cinchona_plumbing::cause;
use http::Uri;
use hyper::rt::{Read, Write};
use hyper_util::rt::TokioIo;
use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    net::{TcpStream, lookup_host},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tower_service::Service;

/// Connects to a given address.
pub(crate) type Dialer = Arc<dyn Fn(Dial) -> Dialing + Send + Sync>;

type Dialing = Pin<Box<dyn Future<Output = Result<Io, BoxError>> + Send>>;

/// A TCP connector with `TCP_NODELAY` (without it, a first call may wait 40 ms for an
/// acknowledgement) and `TCP_USER_TIMEOUT`.
///
/// All addresses of a host are tried, alternating the families, each 250 ms after the one before or
/// immediately when that has failed; the first connection is used (happy eyeballs, RFC 8305, gRFC
/// A61).
#[derive(Clone, Copy, Debug)]
pub struct Tcp {
    user_timeout: Option<Duration>,
}

/// How long an address is tried before the next is tried in parallel.
const NEXT: Duration = Duration::from_millis(250);

/// How many failures an error lists.
const MOST_TOLD: usize = 3;

// === impl Tcp ===

impl Tcp {
    /// With a `TCP_USER_TIMEOUT` of 20 s.
    pub const fn new() -> Self {
        Self { user_timeout: Some(Duration::from_secs(20)) }
    }

    /// How long sent data may stay unacknowledged before the connection fails (`TCP_USER_TIMEOUT`,
    /// Linux only; gRFC A18). `None` leaves that to the system: usually a quarter of an hour. It is
    /// rounded to milliseconds, and at most `i32::MAX` of them.
    #[must_use]
    pub const fn with_user_timeout(self, user_timeout: Option<Duration>) -> Self {
        Self { user_timeout }
    }

    async fn connect_to(self, address: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        #[cfg(target_os = "linux")]
        if let Some(timeout) = self.user_timeout {
            let least =
                timeout.clamp(Duration::from_millis(1), Duration::from_millis((1 << 31) - 1));
            socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(least))?;
        }
        Ok(stream)
    }

    async fn connect_to_host(self, host: String, port: u16) -> Result<TcpStream, BoxError> {
        let found = lookup_host((&*host, port)).await;
        let found: Vec<_> = found.map_err(|error| format!("{host}: {error}"))?.collect();
        if found.is_empty() {
            return Err(format!("{host}: it has no address").into());
        }
        let addresses = interleave(found, SocketAddr::is_ipv6);
        race(addresses, move |address| async move {
            self.connect_to(address).await.map_err(BoxError::from)
        })
        .await
    }

    /// Connects to TCP addresses and Unix domain sockets.
    pub(crate) fn dialer(self) -> Dialer {
        Arc::new(move |dial| {
            Box::pin(async move {
                Ok(match dial {
                    Dial::Ip(address) => Box::new(TokioIo::new(self.connect_to(address).await?)),
                    Dial::Name(host, port) => {
                        Box::new(TokioIo::new(self.connect_to_host(host, port).await?))
                    }
                    socket => connect_to_socket(socket).await?,
                })
            })
        })
    }
}

impl Default for Tcp {
    fn default() -> Self {
        Self::new()
    }
}

impl Service<Uri> for Tcp {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let tcp = *self;
        Box::pin(async move {
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let default_port = if uri.scheme_str() == Some("https") { 443 } else { 80 };
            let port = uri.port_u16().unwrap_or(default_port);
            let stream = match host.parse::<IpAddr>() {
                Ok(ip) => tcp.connect_to((ip, port).into()).await?,
                Err(_) => tcp.connect_to_host(host, port).await?,
            };
            Ok(TokioIo::new(stream))
        })
    }
}

#[cfg(unix)]
async fn connect_to_socket(dial: Dial) -> Result<Io, BoxError> {
    use tokio::net::UnixStream;
    let stream = match dial {
        Dial::Unix(path) => UnixStream::connect(path).await?,
        #[cfg(target_os = "linux")]
        Dial::UnixAbstract(name) => {
            use std::os::{
                linux::net::SocketAddrExt,
                unix::net::{SocketAddr, UnixStream as StdUnixStream},
            };
            let stream = StdUnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?)?;
            stream.set_nonblocking(true)?;
            UnixStream::from_std(stream)?
        }
        other => return Err(format!("{other:?}: it needs another connector").into()),
    };
    Ok(Box::new(TokioIo::new(stream)))
}

#[cfg(not(unix))]
async fn connect_to_socket(dial: Dial) -> Result<Io, BoxError> {
    Err(format!("{dial:?}: there are no Unix domain sockets here").into())
}

/// Connects by the user's connector.
pub(crate) fn dialer_of<C>(connector: C) -> Dialer
where
    C: Service<Uri> + Clone + Send + Sync + 'static,
    C::Response: Read + Write + Unpin + Send + 'static,
    C::Error: Into<BoxError>,
    C::Future: Send,
{
    Arc::new(move |dial| {
        let mut connector = connector.clone();
        Box::pin(async move {
            let Dial::Uri(uri) = dial else {
                return Err("this connector takes URIs only".into());
            };
            std::future::poll_fn(|cx| connector.poll_ready(cx)).await.map_err(Into::into)?;
            let io = connector.call(uri).await.map_err(Into::into)?;
            Ok(Box::new(io) as Io)
        })
    })
}

/// The first connection to any of `places`: each is tried 250 ms after the one before, or
/// immediately when one has failed. A panic of a connector is a failure.
///
/// # Errors
/// The failures of the first few.
pub(crate) async fn race<P, T, F>(
    mut places: Vec<P>,
    connect: impl Fn(P) -> F,
) -> Result<T, BoxError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, BoxError>> + Send + 'static,
{
    if places.len() == 1 {
        return callback::catch("the connector", connect(places.remove(0))).await;
    }
    let mut places = places.into_iter();
    // Dropped with this future, it aborts the others.
    let mut under_way = JoinSet::new();
    let mut failures: Vec<String> = Vec::new();
    loop {
        if let Some(place) = places.next() {
            under_way.spawn(connect(place));
        }
        let turn = Instant::now() + NEXT;
        let failure = tokio::select! {
            ended = under_way.join_next() => match ended {
                Some(Ok(Ok(connection))) => return Ok(connection),
                Some(Ok(Err(failure))) => root(&*failure),
                Some(Err(panic)) => panicked("the connector", panic),
                None => return Err(failures.join("; ").into()),
            },
            () = sleep_until(turn), if places.len() > 0 => continue,
        };
        if failures.len() < MOST_TOLD && !failures.contains(&failure) {
            failures.push(failure);
        }
    }
}

/// The root cause of `error`.
pub(crate) fn root(error: &(dyn std::error::Error + 'static)) -> String {
    cause::chain(error).last().unwrap_or(error).to_string()
}

/// The error for a callback that has panicked.
fn panicked(what: &str, error: tokio::task::JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => format!("{what} panicked: {}", callback::words(&*panic)),
        Err(_) => format!("{what} was stopped"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::time::sleep;

    const MS: Duration = Duration::from_millis(1);

    /// The delay of each place, and whether it can be connected to.
    async fn raced(places: &[(u64, bool)]) -> (Result<usize, String>, Duration) {
        let began = Instant::now();
        let places = places.iter().copied().enumerate().collect();
        let won = race(places, |(n, (millis, is_up)): (usize, (u64, bool))| async move {
            sleep(millis as u32 * MS).await;
            if is_up { Ok(n) } else { Err(format!("{n} is down").into()) }
        });
        (won.await.map_err(|error| error.to_string()), Instant::now() - began)
    }

    // catalogue: S-B6
    #[tokio::test(start_paused = true)]
    async fn an_address_that_says_nothing_costs_a_quarter_of_a_second() {
        assert_eq!(raced(&[(60_000, true), (5, true)]).await, (Ok(1), 255 * MS));
        assert_eq!(raced(&[(60_000, true), (60_000, true), (5, true)]).await, (Ok(2), 505 * MS));
        assert_eq!(raced(&[(300, true), (100, true)]).await, (Ok(0), 300 * MS), "it goes on");
        assert_eq!(
            raced(&[(1, false), (5, true)]).await,
            (Ok(1), 6 * MS),
            "a failure is immediate"
        );
        let (failure, _) = raced(&[(1, false), (2, false)]).await;
        assert_eq!(failure.unwrap_err(), "0 is down; 1 is down");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connector_that_panics_has_failed() {
        let error = race(vec![()], |()| async { panic!("no luck") as Result<(), BoxError> }).await;
        assert_eq!(error.unwrap_err().to_string(), "the connector panicked: no luck");
    }

    proptest! {
        #[test]
        fn a_live_place_is_found_no_later_than_its_turn(
            places in prop::collection::vec((0..2000_u64, any::<bool>()), 1..6),
        ) {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_time().start_paused(true).build().unwrap();
            let (won, took) = runtime.block_on(raced(&places));
            let latest = |(n, (millis, _)): (usize, &(u64, bool))| {
                n as u32 * NEXT + *millis as u32 * MS
            };
            let up = places.iter().enumerate().filter(|(_, (_, is_up))| *is_up);
            match up.map(latest).min() {
                Some(latest) => {
                    prop_assert!(won.is_ok());
                    prop_assert!(took <= latest + MS, "{took:?} {latest:?}");
                }
                None => prop_assert!(won.is_err()),
            }
        }
    }
}
