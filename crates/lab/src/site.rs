//! The site of a scenario: real sockets and the real clock, or an in-memory network and virtual
//! time.

use crate::scenario::AWAY;
use calculator::{
    server::{Layers, dedup, dedup_settings, listen, serve},
    state::Memory,
};
use cinchona::{
    balance::{Balance, Options, Tcp},
    core::{BoxError, Mode, Rng, Switch, Target},
    fault::FaultLayer,
    idempotency::DedupLayer,
};
use cinchona_testkit::Network;
use http::{Request, Response, Uri};
use http_body::Body as HttpBody;
use std::{
    future::pending,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{runtime, time::sleep};
use tonic::{Status, body::Body, transport::Endpoint};
use tower::{Service, ServiceExt, util::BoxCloneService};

pub(crate) type Boxed = BoxCloneService<Request<Body>, Response<Body>, Status>;

/// A calculator server, and the network between it and the client.
pub(crate) enum Site {
    Loopback(Box<Loopback>),
    Virtual(Network),
}

/// A server on a loopback port, in a runtime of its own: when that is dropped, the server vanishes
/// with its listener and connections, like a killed process.
pub(crate) struct Loopback {
    addr: SocketAddr,
    state: Memory,
    layers: Layers<Memory>,
    server: Option<runtime::Runtime>,
    connects: Arc<AtomicU64>,
}

/// The one-way latency of the in-memory network.
const LATENCY: Duration = Duration::from_millis(2);

// === impl Site ===

impl Site {
    /// A server on any free loopback port.
    pub(crate) fn loopback(faults: FaultLayer) -> Result<Self, BoxError> {
        let state = Memory::new();
        let mut site = Loopback {
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            state: state.clone(),
            layers: Layers::new(faults, dedup(state)),
            server: None,
            connects: Arc::default(),
        };
        site.start()?;
        Ok(Self::Loopback(site.into()))
    }

    /// A server in this runtime, whose clock is to be paused.
    pub(crate) fn in_memory(faults: FaultLayer) -> Self {
        Self::counting(faults, Mode::Enforce).0
    }

    /// A server in memory that recognises repeated calls, or does not; and its layer.
    pub(crate) fn counting(faults: FaultLayer, mode: Mode) -> (Self, DedupLayer<Memory>) {
        let (network, state) = (Network::new(), Memory::new());
        network.set_latency(LATENCY);
        let dedup = dedup_settings().with_switch(Switch::new(mode)).layer(state.clone());
        let layers = Layers::new(faults, dedup.clone());
        tokio::spawn(serve(network.incoming(), state, layers, pending()));
        (Self::Virtual(network), dedup)
    }

    /// A channel to the server; without `reconnect`, as tonic alone would connect it.
    pub(crate) fn channel(&self, reconnect: bool) -> Result<Boxed, BoxError> {
        match self {
            Self::Loopback(site) => {
                let Loopback { addr, connects, .. } = &**site;
                let connects = connects.clone();
                let tcp = Tcp::new().map_request(move |uri| {
                    connects.fetch_add(1, Ordering::Relaxed);
                    uri
                });
                connect(format!("http://{addr}").parse()?, tcp, reconnect)
            }
            Self::Virtual(network) => {
                connect(Uri::from_static("http://server"), network.connector(), reconnect)
            }
        }
    }

    /// The server is gone for [`AWAY`], with every connection to it.
    pub(crate) async fn leave(&mut self) -> Result<(), BoxError> {
        match self {
            Self::Loopback(site) => {
                site.stop();
                sleep(AWAY).await;
                site.start()
            }
            Self::Virtual(network) => {
                network.refuse(true);
                network.reset();
                sleep(AWAY).await;
                network.refuse(false);
                Ok(())
            }
        }
    }

    /// The number of times that a client has tried to connect.
    pub(crate) fn connects(&self) -> u64 {
        match self {
            Self::Loopback(site) => site.connects.load(Ordering::Relaxed),
            Self::Virtual(network) => network.connects(),
        }
    }
}

// === impl Loopback ===

impl Loopback {
    fn start(&mut self) -> Result<(), BoxError> {
        let server = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let entered = server.enter();
        let incoming = listen(self.addr)?;
        drop(entered);
        self.addr = incoming.local_addr()?;
        server.spawn(serve(incoming, self.state.clone(), self.layers.clone(), pending()));
        self.server = Some(server);
        Ok(())
    }

    fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown_background();
        }
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        self.stop();
    }
}

fn connect<C>(uri: Uri, connector: C, reconnect: bool) -> Result<Boxed, BoxError>
where
    C: Service<Uri> + Clone + Send + Sync + 'static,
    C::Response: hyper::rt::Read + hyper::rt::Write + Unpin + Send,
    C::Error: Into<BoxError> + Send,
    C::Future: Send,
    BoxError: From<C::Error>,
{
    if !reconnect {
        return Ok(boxed(Endpoint::from(uri).connect_with_connector_lazy(connector)));
    }
    let options = Options { rng: Rng::seeded(1), ..Options::of_one_endpoint() };
    Ok(boxed(Balance::with_connector(vec![Target::from(uri)], connector, options)?))
}

pub(crate) fn boxed<S, B>(service: S) -> Boxed
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: HttpBody<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let service = service.map_err(|error| cinchona::core::Verdict::status_of(error.into()));
    BoxCloneService::new(service.map_response(|response| response.map(Body::new)))
}
