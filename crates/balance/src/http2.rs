//! HTTP/2 on one connection, as much of it as a gRPC client needs, on h2.
//!
//! tonic's channel hands a call on through two queues to the task of the connection, which starts
//! another for the answer. Here the task that awaits the answer sends the request itself, which
//! saves a quarter of the instructions of such a call (`crates/COSTS.md`).

mod exchange;
mod incoming;
mod keepalive;
mod shared;
mod upload;

use crate::wire::{End, Line, Wire};
use bytes::Bytes;
use cinchona_core::{BoxError, Rejected};
use cinchona_plumbing::timeout::take_off;
use exchange::{Exchange, Limit};
use h2::client::{Builder, Connection, SendRequest};
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, Uri,
    header::{CONNECTION, TE, TRANSFER_ENCODING, UPGRADE, USER_AGENT},
    uri::PathAndQuery,
};
use hyper_util::rt::TokioIo;
use incoming::Incoming;
use keepalive::KeepAlive;
use shared::{InFlight, Shared, lost};
use std::{
    fmt,
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{task::JoinHandle, time::Instant};
use tonic::body::Body;
use upload::Upload;

/// Sends calls on a connection; clones share it. It is closed when the last clone is gone and the
/// last call has ended.
#[derive(Clone)]
pub(crate) struct Http2 {
    send: SendRequest<Bytes>,
    shared: Arc<Shared>,
}

/// A call that is sent, or waits for its turn, as the server allows no more streams at once.
pub(crate) enum Sending {
    // Boxed: it is moved with the futures of all layers.
    Now(Box<Exchange>),
    InTurn(InTurn),
}

/// A call that waits, in a task of its own: whoever awaits it may have to do something else first,
/// and those behind it would wait as well. Dropped, it is given up.
pub(crate) struct InTurn(JoinHandle<Answer>);

type Answer = Result<Response<Incoming>, BoxError>;

/// What is agreed for a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) stream_window: u32,
    pub(crate) connection_window: u32,
    pub(crate) max_header_list_size: u32,
    /// The interval of the pings, and how long an answer may take.
    pub(crate) keep_alive: Option<(Duration, Duration)>,
}

/// The user agent, in the form of gRPC's protocol ("grpc-" language "-" variant "/" version).
const USER_AGENT_VALUE: &str = concat!("grpc-rust-cinchona/", env!("CARGO_PKG_VERSION"));

/// How many streams may be open before the server's SETTINGS say how many, and how much is buffered
/// for each: hyper's defaults.
const STREAMS_AT_FIRST: usize = 100;
const SEND_BUFFER: usize = 1024 * 1024;

/// Of how many streams that were given up frames may still come. A server that sends more of them
/// gets another reset for each, and is not taken for an attacker: callers do give up in crowds.
const RESET_STREAMS: usize = 1000;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

// === impl Http2 ===

impl Http2 {
    /// Begins HTTP/2 on `wire`, whose state is `line`, with the server at `uri`. Its SETTINGS have
    /// not come yet.
    ///
    /// # Errors
    /// When the connection is lost, or `uri` has no scheme or authority.
    pub(crate) async fn begin(
        wire: Wire,
        line: &Arc<Line>,
        uri: &Uri,
        settings: Settings,
    ) -> Result<Self, BoxError> {
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
            return Err(format!("{uri} has no scheme, or no host").into());
        };
        let (send, mut connection) = Builder::new()
            .initial_max_send_streams(STREAMS_AT_FIRST)
            .initial_window_size(settings.stream_window)
            .initial_connection_window_size(settings.connection_window)
            .max_header_list_size(settings.max_header_list_size)
            .max_send_buffer_size(SEND_BUFFER)
            .max_concurrent_reset_streams(RESET_STREAMS)
            .max_local_error_reset_streams(None)
            .enable_push(false)
            .handshake(TokioIo::new(wire))
            .await?;
        let shared = Arc::new(Shared::new(scheme.clone(), authority.clone(), line.clone()));
        let pings = settings.keep_alive.zip(connection.ping_pong());
        let alive = pings.map(|(times, pings)| KeepAlive::new(pings, times, shared.clone()));
        tokio::spawn(drive(connection, alive, shared.clone()));
        Ok(Self { send, shared })
    }

    /// Sends the head of a call, if the server allows another one. The future sends its body, and
    /// awaits the answer.
    ///
    /// # Errors
    /// When the connection takes no more calls: the request was not sent.
    pub(crate) fn send(&self, request: Request<Body>) -> Result<Sending, Rejected> {
        let limit = exchange::limit(&request, &self.shared.runtime);
        match self.shared.enter(self.send.current_max_send_streams()) {
            Some(in_flight) => {
                self.exchange(request, limit, in_flight).map(|it| Sending::Now(Box::new(it)))
            }
            None => {
                let waiting = self.clone().waits(request, limit);
                Ok(Sending::InTurn(InTurn(self.shared.runtime.spawn(waiting))))
            }
        }
    }

    /// Sends the call when others have ended.
    async fn waits(self, mut request: Request<Body>, mut limit: Option<Pin<Box<Limit>>>) -> Answer {
        let began = Instant::now();
        let entering = self.shared.enters(|| self.send.current_max_send_streams());
        let in_flight = match &mut limit {
            Some(limit) => tokio::select! {
                biased;
                entered = entering => entered?,
                elapsed = limit.as_mut() => return Err(elapsed.into()),
            },
            None => entering.await?,
        };
        // The timeout sent to the server is the remaining time at this moment.
        take_off(request.headers_mut(), Instant::now() - began);
        self.exchange(request, limit, in_flight)?.await
    }

    fn exchange(
        &self,
        request: Request<Body>,
        limit: Option<Pin<Box<Limit>>>,
        in_flight: InFlight,
    ) -> Result<Exchange, Rejected> {
        let (mut head, body) = request.into_parts();
        let mut uri = head.uri.into_parts();
        uri.scheme = Some(self.shared.scheme.clone());
        uri.authority = Some(self.shared.authority.clone());
        uri.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
        head.uri = Uri::from_parts(uri).unwrap_or_default();
        head.extensions = http::Extensions::new();
        strip(&mut head.headers);
        sign(&mut head.headers);
        let has_ended = http_body::Body::is_end_stream(&body);
        let mut send = self.send.clone();
        let sent = send.send_request(Request::from_parts(head, ()), has_ended);
        let (response, stream) = sent.map_err(|error| lost(&error))?;
        let upload = (!has_ended).then(|| Upload::new(stream, body));
        Ok(Exchange::new(upload, response, limit, in_flight))
    }
}

impl fmt::Debug for Http2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http2").finish_non_exhaustive()
    }
}

impl Future for Sending {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        match self.get_mut() {
            Self::Now(exchange) => Pin::new(exchange).poll(cx),
            Self::InTurn(InTurn(task)) => Pin::new(task).poll(cx).map(|answer| {
                answer.unwrap_or_else(|error| Err(io::Error::other(error.to_string()).into()))
            }),
        }
    }
}

impl Drop for InTurn {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Moves the connection on until it has ended, and reports that.
async fn drive(
    mut connection: Connection<TokioIo<Wire>, Bytes>,
    mut alive: Option<KeepAlive>,
    shared: Arc<Shared>,
) {
    let end = poll_fn(|cx| {
        let polled = Pin::new(&mut connection).poll(cx);
        // Streams may have ended, and the server's SETTINGS may allow more.
        shared.moves_up(connection.max_concurrent_send_streams());
        if let Poll::Ready(ended) = polled {
            return Poll::Ready(match ended {
                Ok(()) => End::Closed,
                Err(error) => End::Failed(error.to_string().into()),
            });
        }
        match &mut alive {
            Some(alive) => alive.poll(cx).map(|why| End::Failed(why.into())),
            None => Poll::Pending,
        }
    });
    shared.ends(end.await);
}

/// Removes what HTTP/2 forbids in a request (RFC 9113, section 8.2.2), as hyper does: whoever took
/// the metadata over from HTTP/1 did not mean it.
fn strip(headers: &mut HeaderMap) {
    let is_forbidden = |name: &HeaderName| {
        [CONNECTION, TRANSFER_ENCODING, UPGRADE, KEEP_ALIVE, PROXY_CONNECTION].contains(name)
    };
    if headers.keys().any(is_forbidden) {
        let named = headers.get(CONNECTION).and_then(|value| value.to_str().ok());
        let named: Vec<String> = named
            .iter()
            .flat_map(|all| all.split(','))
            .map(|name| name.trim().to_owned())
            .collect();
        for name in &named {
            headers.remove(name);
        }
        for name in [CONNECTION, TRANSFER_ENCODING, UPGRADE, KEEP_ALIVE, PROXY_CONNECTION] {
            headers.remove(name);
        }
    }
    if headers.get(TE).is_some_and(|value| value != "trailers") {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Adds the user agent after that of the application.
fn sign(headers: &mut HeaderMap) {
    let own = HeaderValue::from_static(USER_AGENT_VALUE);
    if let Some(theirs) = headers.insert(USER_AGENT, own) {
        let both = [theirs.as_bytes(), b" ", USER_AGENT_VALUE.as_bytes()].concat();
        if let Ok(both) = HeaderValue::from_bytes(&both) {
            headers.insert(USER_AGENT, both);
        }
    }
}

#[cfg(test)]
mod tests;
