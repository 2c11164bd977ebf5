//! Control of the rules over gRPC: `cinchona.fault.v1.FaultControl`.

mod messages;

use crate::{Rules, plan::CONTROL, rules::Listed};
use cinchona_core::{Mode, Secret};
use cinchona_plumbing::{Distrust, Seldom, Trust, clock::millis};
use http_body::Body as HttpBody;
use messages::{
    ListRequest, ListResponse, NamedRequest, Nothing, RemoveResponse, SetRequest, SwitchRequest,
};
use prost::Message;
use std::{
    convert::Infallible,
    fmt,
    future::{Future, Ready, ready},
    pin::Pin,
    sync::LazyLock,
    task::{Context, Poll},
};
use tokio::time::Instant;
use tonic::{
    Request, Response, Status,
    body::Body,
    codegen::StdError,
    metadata::MetadataMap,
    server::{Grpc, NamedService, UnaryService},
};
use tonic_prost::ProstCodec;
use tower_service::Service;

/// The service, created by [`Rules::control`].
#[derive(Clone)]
struct Control {
    rules: Rules,
    trust: Trust,
}

/// One method of it.
struct Asked<M, R> {
    control: Control,
    answer: fn(&Control, M) -> Result<R, Status>,
}

static REFUSED: LazyLock<Seldom> = LazyLock::new(|| {
    Seldom::new(|more| {
        tracing::warn!(more, "refusing to show or change fault rules");
    })
});

/// A rule is a line.
const LARGEST: usize = 64 * 1024;

// === impl Rules ===

impl Rules {
    /// The gRPC service `cinchona.fault.v1.FaultControl` (`proto/fault_control.proto`), for tonic's
    /// `add_service`: `List`, `Set`, `Remove`, `Clear` and `Switch`. Faults are never injected into
    /// it.
    ///
    /// If there is a `token`, a caller must send `authorization: Bearer <token>`, also on loopback;
    /// without one, its connection must be from loopback, and without a sign that it came through a
    /// proxy: see [`Trust`]. If a proxy on the same machine forwards to this service, use a token,
    /// and TLS around it. Other callers get `PERMISSION_DENIED`.
    ///
    /// ```
    /// use cinchona_core::Secret;
    /// use cinchona_fault::{FaultLayer, Rules};
    /// use tonic::transport::Server;
    ///
    /// let rules = Rules::new(7);
    /// let token = Secret::new("a long secret")?;
    /// let server = Server::builder()
    ///     .layer(FaultLayer::from(rules.clone()))
    ///     .add_service(rules.control(Some(token)));
    /// # drop(server);
    /// # Ok::<_, cinchona_core::Invalid>(())
    /// ```
    pub fn control(
        &self,
        token: Option<Secret>,
    ) -> impl Service<
        http::Request<Body>,
        Response = http::Response<Body>,
        Error = Infallible,
        Future: Send + 'static,
    >
    + NamedService
    + Clone
    + Send
    + Sync
    + 'static
    + use<> {
        Control { rules: self.clone(), trust: Trust::new(token.as_ref().map(Secret::expose)) }
    }
}

// === impl Control ===

impl Control {
    fn list(&self, _: ListRequest) -> Result<ListResponse, Status> {
        let rules = self.rules.list().into_iter().map(messages::Listed::from).collect();
        let mode = match self.rules.switch().mode() {
            Mode::Enforce => messages::Mode::Enforce,
            Mode::Shadow => messages::Mode::Shadow,
            Mode::Off => messages::Mode::Off,
        };
        Ok(ListResponse { rules, mode: mode.into() })
    }

    fn set(&self, SetRequest { id, rule }: SetRequest) -> Result<Nothing, Status> {
        if id.is_empty() {
            return Err(Status::invalid_argument("a rule needs an id"));
        }
        let wrong = |error: &dyn fmt::Display| Status::invalid_argument(error.to_string());
        let rule = rule.parse().map_err(|error| wrong(&error))?;
        self.rules.set(&id, rule).map_err(|error| wrong(&error))?;
        Ok(Nothing {})
    }

    fn remove(&self, NamedRequest { id }: NamedRequest) -> Result<RemoveResponse, Status> {
        Ok(RemoveResponse { found: self.rules.remove(&id) })
    }

    fn clear(&self, _: Nothing) -> Result<Nothing, Status> {
        self.rules.clear();
        Ok(Nothing {})
    }

    fn switch(&self, request: SwitchRequest) -> Result<Nothing, Status> {
        let mode = match request.mode() {
            messages::Mode::Enforce => Mode::Enforce,
            messages::Mode::Shadow => Mode::Shadow,
            messages::Mode::Off => Mode::Off,
            messages::Mode::Unspecified => {
                return Err(Status::invalid_argument("the mode is one of enforce, shadow, off"));
            }
        };
        tracing::info!(?mode, "switching fault rules");
        self.rules.switch().set(mode);
        Ok(Nothing {})
    }

    /// The request, if its caller is trusted; checked before its message is read.
    fn trusted(&self, request: http::Request<Body>) -> Result<http::Request<Body>, Distrust> {
        let (mut head, body) = request.into_parts();
        // The peer's address is available in several ways, all of which tonic knows.
        let asked = Request::from_parts(MetadataMap::new(), head.extensions, ());
        let peer = asked.remote_addr();
        head.extensions = asked.into_parts().1;
        self.trust.check(&head, peer).inspect_err(|why| {
            if REFUSED.is_due(Instant::now()) {
                let peer = peer.map(tracing::field::display);
                tracing::warn!(peer, %why, "refusing to show or change fault rules");
            }
        })?;
        Ok(http::Request::from_parts(head, body))
    }

    async fn answer<M, R, B>(
        self,
        request: http::Request<B>,
        answer: fn(&Self, M) -> Result<R, Status>,
    ) -> http::Response<Body>
    where
        M: Message + Default + 'static,
        R: Message + Default + 'static,
        B: HttpBody<Error: Into<StdError> + Send> + Send + 'static,
    {
        let codec = ProstCodec::<R, M>::default();
        let mut grpc = Grpc::new(codec).max_decoding_message_size(LARGEST);
        grpc.unary(Asked { control: self, answer }, request).await
    }
}

impl Service<http::Request<Body>> for Control {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let request = match this.trusted(request) {
                Ok(request) => request,
                Err(why) => return Ok(Status::permission_denied(why.to_string()).into_http()),
            };
            Ok(match request.uri().path().strip_prefix(CONTROL) {
                Some("List") => this.answer(request, Self::list).await,
                Some("Set") => this.answer(request, Self::set).await,
                Some("Remove") => this.answer(request, Self::remove).await,
                Some("Clear") => this.answer(request, Self::clear).await,
                Some("Switch") => this.answer(request, Self::switch).await,
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}

impl NamedService for Control {
    const NAME: &'static str = "cinchona.fault.v1.FaultControl";
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("rules", &self.rules).field("trust", &self.trust).finish()
    }
}

// === impl Asked ===

impl<M, R> UnaryService<M> for Asked<M, R> {
    type Response = R;
    type Future = Ready<Result<Response<R>, Status>>;

    fn call(&mut self, request: Request<M>) -> Self::Future {
        ready((self.answer)(&self.control, request.into_inner()).map(Response::new))
    }
}

// === impl messages::Listed ===

impl From<Listed> for messages::Listed {
    fn from(listed: Listed) -> Self {
        Self {
            kind: listed.rule.kind().to_owned(),
            rule: listed.rule.to_string(),
            id: listed.id,
            matched: listed.matched,
            injected: listed.injected,
            age_ms: millis(listed.age),
            ttl_ms: listed.rule.ttl().map(millis),
        }
    }
}

#[cfg(test)]
mod tests;
