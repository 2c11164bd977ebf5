//! Making connections: by HTTP/2 of our own, or by a tonic channel.

use crate::{
    Options, callback,
    dial::{Dialer, race, root},
    http2::{Http2, Settings},
    node::{Connection, Node},
    sender::Sender,
    wire::{End, Line, Once, Wire},
};
use cinchona_plumbing::clock::FOR_EVER;
use std::{future::Future, pin::Pin, sync::Arc};
use tokio::time::{Instant, timeout_at};
use tonic::transport::Endpoint;

/// Makes the connections of a balancer.
#[derive(Clone)]
pub(crate) struct Connector {
    pub(crate) dialer: Dialer,
    pub(crate) options: Arc<Options>,
    /// The user's endpoint, instead of one for each target.
    pub(crate) whole: Option<Endpoint>,
}

/// Spawns the tasks of a connection, and reports when the first, that of HTTP/2, has ended.
#[derive(Clone)]
struct Watching(Arc<Line>);

/// The stream window. grpc-java's is 1 MiB, grpc-go's and C-core's grow to that.
const STREAM_WINDOW: u32 = 1024 * 1024;

/// The connection window: the most that HTTP/2 allows, so that 2,047 unread streams leave room for
/// others.
pub(crate) const CONNECTION_WINDOW: u32 = (1 << 31) - 1;

// === impl Connector ===

impl Connector {
    /// A connection to the endpoint, once its server has sent its SETTINGS.
    ///
    /// # Errors
    /// With the root cause.
    pub(crate) async fn connect(&self, node: &Node) -> Result<Arc<Connection>, String> {
        let limit = self.options.connect_timeout.min(FOR_EVER);
        let deadline = Instant::now() + limit;
        let late = |what: &str| format!("{what} within {limit:?}");
        if let Some(socket) = self.whole.as_ref().filter(|endpoint| is_socket(endpoint)) {
            let made = timeout_at(deadline, connect_by_itself(socket)).await;
            return made.map_err(|_| late("no connection"))?.map(Arc::new);
        }
        let endpoint = self.endpoint(node)?;
        let dialer = self.dialer.clone();
        let dialing = race(node.place.dials.clone(), move |dial| dialer(dial));
        let io = timeout_at(deadline, dialing).await.map_err(|_| late("no connection"))?;
        let (wire, line) = Wire::new(io.map_err(|error| root(&*error))?);
        let sender = match endpoint {
            Some(endpoint) => {
                let making = endpoint.connect_with_connector(Once::new(wire));
                let made =
                    timeout_at(deadline, making).await.map_err(|_| late("no TLS session"))?;
                let is_tls = node.target.is_tls();
                Sender::Tonic(made.map_err(|error| failure(&error, &line, is_tls))?)
            }
            None => {
                let beginning = Http2::begin(wire, &line, &node.target.uri, self.settings(node));
                Sender::Own(beginning.await.map_err(|error| root(&*error))?)
            }
        };
        let settled = timeout_at(deadline, line.settles()).await;
        settled.map_err(|_| late("no HTTP/2 SETTINGS"))?.map_err(|end| explain(&end))?;
        Ok(Arc::new(Connection::new(sender, line)))
    }

    fn settings(&self, node: &Node) -> Settings {
        let Options { keep_alive, max_header_list_size, .. } = *self.options;
        let factor = node.ping_factor();
        Settings {
            stream_window: STREAM_WINDOW,
            connection_window: CONNECTION_WINDOW,
            max_header_list_size,
            keep_alive: keep_alive.map(|(after, within)| (after.saturating_mul(factor), within)),
        }
    }

    /// What tonic has to know for the connection, if the user or TLS wants its transport.
    fn endpoint(&self, node: &Node) -> Result<Option<Endpoint>, String> {
        let options = &self.options;
        if self.whole.is_none() && options.configure.is_none() && !node.target.is_tls() {
            return Ok(None);
        }
        let mut endpoint = match &self.whole {
            Some(whole) => {
                let whole = whole.clone().initial_connection_window_size(CONNECTION_WINDOW);
                // No `:authority` may contain a password (RFC 9113, 8.3.1).
                let has_user =
                    whole.uri().authority().is_some_and(|all| all.as_str().contains('@'));
                if has_user { whole.origin(node.target.uri.clone()) } else { whole }
            }
            None => Endpoint::from(node.target.uri.clone())
                .http2_max_header_list_size(options.max_header_list_size)
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW),
        };
        if let Some((interval, timeout)) = options.keep_alive {
            endpoint = endpoint
                .http2_keep_alive_interval(
                    interval.saturating_mul(node.ping_factor()).min(FOR_EVER),
                )
                .keep_alive_timeout(timeout.min(FOR_EVER));
        }
        let Some(configure) = &options.configure else { return Ok(Some(endpoint)) };
        let plain = endpoint.clone();
        let configured = callback::call("configure", || configure(endpoint))?;
        let configured = configured.map_err(|error| format!("configure: {}", root(&*error)))?;
        // TLS that nobody has configured is an error of tonic's, and never spoken in the clear.
        Ok(configured.or_else(|| (self.whole.is_some() || node.target.is_tls()).then_some(plain)))
    }
}

/// Why there is no channel.
fn failure(error: &tonic::transport::Error, line: &Line, is_tls: bool) -> String {
    let cause = root(error);
    match line.end() {
        Some(end @ End::Other(_)) if !is_tls => end.to_string(),
        Some(End::Other("HTTP/1" | "something else")) => {
            format!("{cause}; the server does not speak TLS")
        }
        _ => cause,
    }
}

fn explain(end: &End) -> String {
    match end {
        End::Closed => "the server closed the connection before its HTTP/2 SETTINGS".to_owned(),
        end => end.to_string(),
    }
}

/// tonic hides the path of a Unix domain socket, and uses this name.
fn is_socket(endpoint: &Endpoint) -> bool {
    endpoint.uri().authority().is_some_and(|authority| authority == "tonic")
        && endpoint.uri().scheme_str() == Some("http")
}

async fn connect_by_itself(endpoint: &Endpoint) -> Result<Connection, String> {
    let line = Line::unwatched();
    let watched = endpoint.clone().executor(Watching(line.clone()));
    let channel = watched.connect().await.map_err(|error| root(&error))?;
    Ok(Connection::new(Sender::Tonic(channel), line))
}

// === impl Watching ===

impl hyper::rt::Executor<Pin<Box<dyn Future<Output = ()> + Send>>> for Watching {
    fn execute(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        struct Ends(Arc<Line>);
        impl Drop for Ends {
            fn drop(&mut self) {
                self.0.ends(End::Closed);
            }
        }
        let ends = Ends(self.0.clone());
        tokio::spawn(async move {
            let _ends = ends;
            task.await;
        });
    }
}
