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

pub(crate) use exchange::Exchange;

use crate::wire::{End, Line, Wire};
use bytes::Bytes;
use cinchona_core::{BoxError, Rejected};
use h2::client::{Builder, Connection, SendRequest};
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Uri,
    header::{CONNECTION, TE, TRANSFER_ENCODING, UPGRADE, USER_AGENT},
    uri::PathAndQuery,
};
use hyper_util::rt::TokioIo;
use keepalive::KeepAlive;
use shared::{InFlight, Shared, lost};
use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, atomic::AtomicUsize},
    task::Poll,
    time::Duration,
};
use tokio::runtime::Handle;
use tonic::body::Body;
use upload::Upload;

/// Sends calls on a connection; clones share it. It is closed when the last clone is gone and the
/// last call has ended.
#[derive(Clone)]
pub(crate) struct Http2 {
    send: SendRequest<Bytes>,
    shared: Arc<Shared>,
}

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
            .enable_push(false)
            .handshake(TokioIo::new(wire))
            .await?;
        let shared = Arc::new(Shared {
            scheme: scheme.clone(),
            authority: authority.clone(),
            line: line.clone(),
            in_flight: AtomicUsize::new(0),
            runtime: Handle::current(),
        });
        let pings = settings.keep_alive.zip(connection.ping_pong());
        let alive = pings.map(|(times, pings)| KeepAlive::new(pings, times, shared.clone()));
        tokio::spawn(drive(connection, alive, line.clone()));
        Ok(Self { send, shared })
    }

    /// Sends the head of a call. The future sends its body, and awaits the answer.
    ///
    /// # Errors
    /// When the connection takes no more calls: the request was not sent.
    pub(crate) fn send(&self, request: Request<Body>) -> Result<Exchange, Rejected> {
        let limit = exchange::limit(&request, &self.shared.runtime);
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
        // First, as the task of the connection may look before the next line.
        let in_flight = InFlight::new(&self.shared);
        let mut send = self.send.clone();
        let sent = send.send_request(Request::from_parts(head, ()), has_ended);
        let (response, stream) = sent.map_err(|error| lost(&error))?;
        let upload = (!has_ended).then(|| Upload::new(stream, body));
        Ok(Exchange::new(send, upload, response, limit, in_flight))
    }
}

impl fmt::Debug for Http2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http2").finish_non_exhaustive()
    }
}

/// Moves the connection on until it has ended, and reports that.
async fn drive(
    mut connection: Connection<TokioIo<Wire>, Bytes>,
    mut alive: Option<KeepAlive>,
    line: Arc<Line>,
) {
    let end = poll_fn(|cx| {
        if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
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
    line.ends(end.await);
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
