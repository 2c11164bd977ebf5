//! What a program has around the server's stack, such as another protocol for the same calls.

use cinchona::observe::ResponseBody;
use http::{Request, Response};
use std::convert::Infallible;
use tonic::body::Body;
use tower::{
    Layer, Service,
    util::{BoxCloneSyncService, BoxCloneSyncServiceLayer, Either},
};

/// The whole stack of the server, with all that it serves.
pub type Stack = BoxCloneSyncService<Request<Body>, Response<ResponseBody>, Infallible>;

type Boxed = BoxCloneSyncServiceLayer<Stack, Request<Body>, Response<ResponseBody>, Infallible>;

/// A layer around the whole stack. It sees each request first, and passes on gRPC calls; with it
/// the server accepts HTTP/1.1 as well.
#[derive(Clone, Debug)]
pub struct Around {
    opens: &'static str,
    layer: Boxed,
}

/// Applies an [`Around`], if there is one; else the stack stays as it is, without a box.
#[derive(Clone, Debug)]
pub(crate) struct AroundLayer(pub(crate) Option<Around>);

// === impl Around ===

impl Around {
    /// This layer, which lets clients make the calls that `opens` names; the server logs that.
    pub fn new<L>(opens: &'static str, layer: L) -> Self
    where
        L: Layer<Stack> + Send + Sync + 'static,
        L::Service: Service<Request<Body>, Response = Response<ResponseBody>, Error = Infallible>
            + Clone
            + Send
            + Sync
            + 'static,
        <L::Service as Service<Request<Body>>>::Future: Send,
    {
        Self { opens, layer: Boxed::new(layer) }
    }

    /// What clients can call by it.
    pub const fn opens(&self) -> &'static str {
        self.opens
    }
}

// === impl AroundLayer ===

impl<S> Layer<S> for AroundLayer
where
    S: Service<Request<Body>, Response = Response<ResponseBody>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
{
    type Service = Either<Stack, S>;

    fn layer(&self, stack: S) -> Self::Service {
        match &self.0 {
            Some(around) => Either::Left(around.layer.layer(Stack::new(stack))),
            None => Either::Right(stack),
        }
    }
}
