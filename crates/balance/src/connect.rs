//! The connector of one endpoint.

use cinchona_core::{BoxError, clock::later, error, without_userinfo};
use http::Uri;
use hyper_util::rt::TokioIo;
use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until},
};
use tonic::transport::{Channel, Endpoint};
use tower_service::Service;

/// A connector that paces its attempts and rides out short outages.
#[derive(Clone, Debug)]
pub struct Reconnect<C> {
    inner: C,
    pace: Duration,
    patience: Duration,
    outage: Arc<Mutex<Outage>>,
}

/// A TCP connector with `TCP_NODELAY`: without it, a first call may wait 40 ms for an
/// acknowledgement.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

/// The endpoint is down, and it is not yet time for the next attempt.
#[derive(Debug)]
pub struct Down {
    last_error: String,
    next_attempt: Duration,
}

/// What is known of the endpoint since its last connection.
#[derive(Debug, Default)]
struct Outage {
    since: Option<Instant>,
    last_attempt: Option<Instant>,
    last_error: String,
}

/// What a call that needs a connection is to do.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    Connect,
    WaitUntil(Instant),
    FailUntil(Instant),
}

/// A channel to `endpoint` that connects when it is first used, through [`Reconnect`] and
/// [`Tcp`]; the endpoint's TLS, HTTP/2 and timeout settings hold, its TCP settings do not.
pub fn connect_lazy(endpoint: Endpoint) -> Channel {
    endpoint.connect_with_connector_lazy(Reconnect::new(Tcp))
}

// === impl Reconnect ===

impl<C> Reconnect<C> {
    /// Connects by `inner`, at most once in 250 ms, and waits for at most 1.5 s.
    pub fn new(inner: C) -> Self {
        let pace = Duration::from_millis(250);
        Self { inner, pace, patience: 6 * pace, outage: Arc::default() }
    }

    /// Lets calls wait for `patience` from the start of an outage; zero fails them at once, and
    /// `Duration::MAX` lets them wait for ever.
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Nothing that holds the lock can panic, or waits.
    fn outage<T>(&self, with: impl FnOnce(&mut Outage) -> T) -> T {
        with(&mut self.outage.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn connect(self, uri: Uri) -> Result<C::Response, BoxError>
    where
        C: Service<Uri> + Clone,
        C::Error: Into<BoxError>,
    {
        loop {
            match self.outage(|outage| outage.turn(Instant::now(), self.pace, self.patience)) {
                Turn::WaitUntil(then) => sleep_until(then).await,
                Turn::FailUntil(then) => {
                    let next_attempt = then.saturating_duration_since(Instant::now());
                    let last_error = self.outage(|outage| outage.last_error.clone());
                    return Err(Down { last_error, next_attempt }.into());
                }
                Turn::Connect => match attempt(self.inner.clone(), uri.clone()).await {
                    Ok(io) => {
                        self.outage(|outage| outage.ends(&uri, Instant::now()));
                        return Ok(io);
                    }
                    Err(error) => {
                        let now = Instant::now();
                        self.outage(|outage| outage.goes_on(&uri, &*error, now));
                        if self.outage(|outage| outage.is_long(now, self.patience)) {
                            return Err(error);
                        }
                    }
                },
            }
        }
    }
}

pub(crate) async fn attempt<C>(mut connector: C, uri: Uri) -> Result<C::Response, BoxError>
where
    C: Service<Uri>,
    C::Error: Into<BoxError>,
{
    std::future::poll_fn(|cx| connector.poll_ready(cx)).await.map_err(Into::into)?;
    connector.call(uri).await.map_err(Into::into)
}

impl<C> Service<Uri> for Reconnect<C>
where
    C: Service<Uri> + Clone + Send + Sync + 'static,
    C::Response: Send,
    C::Error: Into<BoxError>,
    C::Future: Send,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<C::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

// === impl Tcp ===

impl Service<Uri> for Tcp {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(async move {
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let default_port = if uri.scheme_str() == Some("https") { 443 } else { 80 };
            let port = uri.port_u16().unwrap_or(default_port);
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            Ok(TokioIo::new(stream))
        })
    }
}

// === impl Outage ===

impl Outage {
    /// Whose turn it is: an attempt is counted when it is admitted.
    fn turn(&mut self, now: Instant, pace: Duration, patience: Duration) -> Turn {
        match self.last_attempt.map(|last| last + pace).filter(|next| now < *next) {
            Some(next) if self.is_long(now, patience) => Turn::FailUntil(next),
            Some(next) => Turn::WaitUntil(next),
            None => {
                self.last_attempt = Some(now);
                Turn::Connect
            }
        }
    }

    fn is_long(&self, now: Instant, patience: Duration) -> bool {
        self.since.is_some_and(|since| later(since, patience) <= now)
    }

    fn goes_on(&mut self, uri: &Uri, error: &(dyn std::error::Error + 'static), now: Instant) {
        self.last_error = error::chain(error).last().unwrap_or(error).to_string();
        if self.since.is_none() {
            self.since = Some(now);
            let uri = without_userinfo(uri.clone());
            tracing::info!(%uri, error = self.last_error, "endpoint is down");
        }
    }

    fn ends(&mut self, uri: &Uri, now: Instant) {
        if let Some(since) = self.since.take() {
            let uri = without_userinfo(uri.clone());
            tracing::info!(%uri, outage = ?(now - since), "endpoint is up again");
        }
    }
}

// === impl Down ===

impl fmt::Display for Down {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { last_error, next_attempt } = self;
        write!(f, "endpoint is down ({last_error}); next attempt in {next_attempt:.0?}")
    }
}

impl std::error::Error for Down {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tower::{ServiceExt, service_fn};

    const URI: &str = "http://localhost:1";

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Refuses until `up` from now, and counts.
    fn server(
        up: Duration,
    ) -> (
        Arc<AtomicUsize>,
        Reconnect<impl Service<Uri, Response = (), Error = io::Error, Future: Send> + Clone>,
    ) {
        let attempts = Arc::new(AtomicUsize::new(0));
        let (count, up) = (attempts.clone(), Instant::now() + up);
        let connector = service_fn(move |_: Uri| {
            count.fetch_add(1, Ordering::Relaxed);
            let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
            async move { if Instant::now() < up { Err(refused) } else { Ok(()) } }
        });
        (attempts, Reconnect::new(connector))
    }

    async fn connect<C>(connector: &Reconnect<C>) -> Result<(), BoxError>
    where
        C: Service<Uri, Response = (), Error = io::Error, Future: Send>
            + Clone
            + Send
            + Sync
            + 'static,
    {
        connector.clone().oneshot(Uri::from_static(URI)).await
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_of_a_second_is_ridden_out_with_at_most_five_attempts() {
        let (attempts, connector) = server(ms(1000));
        let began = Instant::now();
        connect(&connector).await.unwrap();
        assert_eq!(Instant::now() - began, ms(1000));
        assert_eq!(attempts.load(Ordering::Relaxed), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_outage_fails_the_first_call_after_the_patience_and_the_next_at_once() {
        let (attempts, connector) = server(ms(60_000));
        let began = Instant::now();
        let error = connect(&connector).await.unwrap_err();
        assert_eq!(error.to_string(), "connection refused");
        assert_eq!(Instant::now() - began, ms(1500));
        let counted = attempts.load(Ordering::Relaxed);
        for _ in 0..100 {
            let error = connect(&connector).await.unwrap_err();
            let expected = "endpoint is down (connection refused); next attempt in 250ms";
            assert_eq!(error.to_string(), expected);
        }
        assert_eq!(Instant::now() - began, ms(1500));
        assert_eq!(attempts.load(Ordering::Relaxed), counted);
    }

    #[tokio::test(start_paused = true)]
    async fn many_clones_share_one_pace() {
        let (attempts, connector) = server(ms(1000));
        let calls: Vec<_> = (0..50)
            .map(|_| {
                let connector = connector.clone();
                tokio::spawn(async move { connect(&connector).await.is_ok() })
            })
            .collect();
        tokio::time::sleep(ms(999)).await;
        assert_eq!(attempts.load(Ordering::Relaxed), 4);
        for call in calls {
            call.abort();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_connection_the_next_outage_is_a_new_one() {
        let (_, connector) = server(ms(1000));
        connect(&connector).await.unwrap();
        tokio::time::sleep(ms(10_000)).await;
        assert!(!connector.outage(|outage| outage.is_long(Instant::now(), connector.patience)));
    }
}
