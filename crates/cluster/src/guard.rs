//! A node without a quorum serves reads, and refuses writes.

use crate::{Cluster, quorum::Quorum};
use cinchona_core::{Methods, Mode, Safety, Switch};
use cinchona_plumbing::{is_of_the_server, status};
use futures_util::future::{Either, Ready, ready};
use http::{Request, Response};
use std::{
    sync::Arc,
    task::{Context, Poll},
};
use tokio::time::Instant;
use tonic::{Status, server::NamedService};
use tower_layer::Layer;
use tower_service::Service;

/// Applies [`QuorumGuard`] to a server.
///
/// *Why:* when the network is cut, both sides keep running; if both accept writes, the states
/// conflict when the cut heals.
///
/// *Rule:* methods that the .proto marks `NO_SIDE_EFFECTS`, health checks and reflection are always
/// served. Others are refused with `UNAVAILABLE` and the reason, unprocessed, so that a client
/// tries another node: in the minority; before enough nodes were heard; until the resync of
/// [`Cluster::on_quorum`] has finished; and when this node has not examined its peers within
/// `reachable_within`, as after a pause.
///
/// ```
/// use cinchona_cluster::{Cluster, Config, QuorumGuardLayer};
/// use cinchona_core::Methods;
/// use std::convert::Infallible;
/// use tonic::{Code, Status, body::Body};
/// use tower::{Layer, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let mut config = Config::new("bank", "bank-1", ([127, 0, 0, 1], 0).into());
/// config.expect = 3; // and nobody else is there yet
/// let cluster = Cluster::join(config, &[]).await.unwrap();
/// let service = service_fn(|_: http::Request<Body>| async {
///     Ok::<_, Infallible>(http::Response::new(Body::empty()))
/// });
/// let guarded = QuorumGuardLayer::new(&cluster, Methods::unknown()).layer(service);
///
/// let response = guarded.oneshot(http::Request::new(Body::empty())).await.unwrap();
/// let status = Status::from_header_map(response.headers()).unwrap();
/// assert_eq!(status.code(), Code::Unavailable);
/// assert!(status.message().starts_with("read-only: "), "{status}");
/// # }
/// ```
///
/// *What it does not do:* it is neither consensus nor a lease. A node that is cut off notices after
/// `reachable_within`; until then both sides may accept writes, and a call that was admitted is not
/// stopped. State that must never conflict needs a fencing token or a replicated log.
#[derive(Clone, Debug)]
pub struct QuorumGuardLayer {
    quorum: Quorum,
    methods: Arc<Methods>,
    switch: Switch,
}

/// The settings of a [`QuorumGuardLayer`].
#[derive(Clone, Debug, PartialEq)]
pub struct QuorumGuardSettings {
    methods: Methods,
    switch: Option<Switch>,
}

/// Refuses writes where there is no quorum; see [`QuorumGuardLayer`].
#[derive(Clone, Debug)]
pub struct QuorumGuard<S> {
    inner: S,
    layer: QuorumGuardLayer,
}

// === impl QuorumGuardSettings ===

impl QuorumGuardSettings {
    /// Asks `methods` which calls are writes: all that are not known to have no side effects.
    pub fn new(methods: Methods) -> Self {
        Self { methods, switch: None }
    }

    /// Sets the switch that decides whether writes are refused, only counted, or passed through.
    #[must_use]
    pub fn with_switch(self, switch: Switch) -> Self {
        Self { switch: Some(switch), ..self }
    }

    /// A layer with these settings, which asks `cluster` whether there is a quorum.
    #[must_use]
    pub fn layer(&self, cluster: &Cluster) -> QuorumGuardLayer {
        self.by(cluster.quorum())
    }

    fn by(&self, quorum: Quorum) -> QuorumGuardLayer {
        let switch = self.switch.clone().unwrap_or_default();
        QuorumGuardLayer { quorum, methods: Arc::new(self.methods.clone()), switch }
    }
}

// === impl QuorumGuardLayer ===

impl QuorumGuardLayer {
    /// The layer of [`QuorumGuardSettings::new`].
    pub fn new(cluster: &Cluster, methods: Methods) -> Self {
        QuorumGuardSettings::new(methods).layer(cluster)
    }

    /// Why the call is refused, if it is.
    fn refusal(&self, path: &str) -> Option<Status> {
        let mode = self.switch.mode();
        if mode == Mode::Off
            || is_of_the_server(path)
            || self.methods.safety(path) == Safety::NoSideEffects
        {
            return None;
        }
        let reason = self.quorum.refusal(Instant::now())?;
        tracing::debug!(path, %reason, "write refused");
        if mode == Mode::Shadow {
            self.switch.count();
            return None;
        }
        let refusal = Status::unavailable(format!("read-only: {reason}; not processed"));
        Some(status::not_begun(refusal))
    }
}

impl<S> Layer<S> for QuorumGuardLayer {
    type Service = QuorumGuard<S>;

    fn layer(&self, inner: S) -> Self::Service {
        QuorumGuard { inner, layer: self.clone() }
    }
}

// === impl QuorumGuard ===

impl<S, B, ResBody> Service<Request<B>> for QuorumGuard<S>
where
    S: Service<Request<B>, Response = Response<ResBody>>,
    ResBody: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match self.layer.refusal(request.uri().path()) {
            None => Either::Left(self.inner.call(request)),
            Some(status) => Either::Right(ready(Ok(status.into_http()))),
        }
    }
}

impl<S: NamedService> NamedService for QuorumGuard<S> {
    const NAME: &'static str = S::NAME;
}

#[cfg(test)]
mod tests {
    use super::*;
    use cinchona_policy::cluster::Permission;
    use std::{convert::Infallible, time::Duration};
    use tonic::{Code, body::Body};
    use tower::{ServiceExt, service_fn};

    const READ: &str = "/money.v1.Bank/Balance";
    const WRITE: &str = "/money.v1.Bank/Withdraw";

    fn methods() -> Methods {
        use prost::Message;
        use prost_types::{
            FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto, MethodOptions,
            ServiceDescriptorProto, method_options::IdempotencyLevel,
        };
        let method = |name: &str, level: Option<IdempotencyLevel>| {
            let level = level.map(Into::into);
            let options = MethodOptions { idempotency_level: level, ..Default::default() };
            let (name, options) = (Some(name.into()), Some(options));
            MethodDescriptorProto { name, options, ..Default::default() }
        };
        let reads = Some(IdempotencyLevel::NoSideEffects);
        let service = ServiceDescriptorProto {
            name: Some("Bank".into()),
            method: vec![method("Balance", reads), method("Withdraw", None)],
            ..Default::default()
        };
        let (package, service) = (Some("money.v1".into()), vec![service]);
        let file = FileDescriptorProto { package, service, ..Default::default() };
        let encoded = FileDescriptorSet { file: vec![file] }.encode_to_vec();
        Methods::from_file_descriptor_set(&encoded).unwrap()
    }

    async fn answer(layer: &QuorumGuardLayer, path: &str) -> (Code, String) {
        let service = service_fn(|_: Request<Body>| async {
            Ok::<_, Infallible>(Response::new(Body::empty()))
        });
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let response = layer.layer(service).oneshot(request).await.unwrap();
        let status = Status::from_header_map(response.headers()).unwrap_or(Status::ok(""));
        (status.code(), status.message().to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_quorum_reads_are_served_and_writes_are_refused_with_the_reason() {
        let quorum = Quorum::default();
        let layer = QuorumGuardSettings::new(methods()).by(quorum.clone());
        for path in [READ, "/grpc.health.v1.Health/Check", "/grpc.reflection.v1.X/Y"] {
            assert_eq!(answer(&layer, path).await.0, Code::Ok, "{path}");
        }
        let (code, message) = answer(&layer, WRITE).await;
        assert_eq!(code, Code::Unavailable);
        assert_eq!(message, "read-only: this node has not joined the cluster; not processed");
        let (now, lasts) = (Instant::now(), Duration::from_secs(1));
        quorum.set(Permission::refused("in the minority: 2 of 5 reachable".into()));
        assert!(answer(&layer, WRITE).await.1.contains("2 of 5 reachable"));
        quorum.set(Permission::granted(now + lasts));
        assert_eq!(answer(&layer, WRITE).await.0, Code::Ok);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_has_not_examined_its_peers_lately_refuses_writes() {
        let quorum = Quorum::default();
        let layer = QuorumGuardSettings::new(methods()).by(quorum.clone());
        quorum.set(Permission::granted(Instant::now() + Duration::from_secs(1)));
        tokio::time::advance(Duration::from_secs(2)).await;
        let (code, message) = answer(&layer, WRITE).await;
        assert_eq!(code, Code::Unavailable);
        assert!(message.contains("has not heard its peers lately"), "{message}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_switch_turns_refusals_off_or_into_a_count() {
        let switch = Switch::default();
        let settings = QuorumGuardSettings::new(methods()).with_switch(switch.clone());
        let layer = settings.by(Quorum::default());
        switch.set(Mode::Shadow);
        assert_eq!(answer(&layer, WRITE).await.0, Code::Ok);
        assert_eq!(switch.shadowed(), 1);
        switch.set(Mode::Off);
        assert_eq!(answer(&layer, WRITE).await.0, Code::Ok);
    }

    #[test]
    fn the_guard_keeps_the_name_of_the_service() {
        struct Named;
        impl NamedService for Named {
            const NAME: &'static str = "money.v1.Bank";
        }
        assert_eq!(<QuorumGuard<Named> as NamedService>::NAME, "money.v1.Bank");
    }
}
