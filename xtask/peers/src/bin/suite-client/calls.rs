//! A call of a script, through any stack of layers.

use bytes::{Buf, BufMut};
use cinchona::{balance::State, core::BoxError};
use cinchona_peers::suite::{Call, Kind, Outcome, Task};
use http::{Request as HttpRequest, Response as HttpResponse, uri::PathAndQuery};
use std::{fmt, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, timeout};
use tonic::{
    Request, Status,
    body::Body,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::{Ascii, MetadataKey},
};
use tower::util::BoxCloneSyncService;

pub(crate) type Stack = BoxCloneSyncService<HttpRequest<Body>, HttpResponse<Body>, BoxError>;

/// A stack of layers over its connections.
#[derive(Clone)]
pub(crate) struct Channel {
    pub(crate) stack: Stack,
    /// The state of each endpoint, where it is known.
    pub(crate) states: Option<Arc<dyn Fn() -> Vec<State> + Send + Sync>>,
    pub(crate) max_send_bytes: Option<usize>,
}

/// Messages that are bytes, and one that is nothing and cannot be encoded.
#[derive(Clone, Copy, Debug)]
struct Raw;

/// The messages of the request.
fn messages(call: &Call) -> Vec<Option<Vec<u8>>> {
    let count = match call.kind {
        Kind::ClientStream => call.send.unwrap_or(1),
        Kind::Unary | Kind::ServerStream => usize::from(!call.cannot_encode),
    };
    let good = std::iter::repeat_n(Some(vec![b'1'; call.bytes]), count);
    good.chain(call.cannot_encode.then_some(None)).collect()
}

fn request<T>(call: &Call, message: T) -> Result<Request<T>, BoxError> {
    let mut request = Request::new(message);
    for (name, value) in &call.metadata {
        let name = MetadataKey::<Ascii>::from_bytes(name.as_bytes())?;
        request.metadata_mut().insert(name, value.parse()?);
    }
    if let Some(ms) = call.deadline_ms {
        request.set_timeout(Duration::from_millis(ms));
    }
    Ok(request)
}

// === impl Channel ===

impl Channel {
    /// Waits until there is a connection, for at most so long.
    pub(crate) async fn is_connected(&self, most: Duration) {
        let Some(states) = &self.states else { return };
        let ready = async {
            while !states().contains(&State::Ready) {
                sleep(Duration::from_millis(2)).await;
            }
        };
        // If it is not, the call shows it.
        _ = timeout(most, ready).await;
    }

    pub(crate) async fn call(&self, task: &Task) -> Outcome {
        let begun = Instant::now();
        let (status, messages) = match self.messages(task).await {
            Ok(messages) => (Status::ok(""), messages),
            Err((status, messages)) => (status, messages),
        };
        Outcome {
            id: task.id,
            code: status.code() as i64,
            message: status.message().to_owned(),
            details: String::from_utf8_lossy(status.details()).into_owned(),
            messages,
            took_ms: (Instant::now() - begun).as_secs_f64() * 1000.0,
        }
    }

    /// How many messages came, and how it ended.
    async fn messages(&self, task: &Task) -> Result<usize, (Status, usize)> {
        let none = |status: Status| (status, 0);
        let invalid = |error: BoxError| none(Status::invalid_argument(error.to_string()));
        let mut grpc = Grpc::new(self.stack.clone());
        if let Some(most) = self.max_send_bytes {
            grpc = grpc.max_encoding_message_size(most);
        }
        let path: PathAndQuery = task.path.parse().map_err(|error| invalid(Box::new(error)))?;
        grpc.ready().await.map_err(|error| none(Status::from_error(error)))?;
        let call = &task.call;
        let mut sent = messages(call);
        match call.kind {
            Kind::Unary => {
                let message = request(call, sent.pop().flatten()).map_err(invalid)?;
                grpc.unary(message, path, Raw).await.map(|_| 1).map_err(none)
            }
            Kind::ClientStream => {
                let messages = request(call, tokio_stream::iter(sent)).map_err(invalid)?;
                grpc.client_streaming(messages, path, Raw).await.map(|_| 1).map_err(none)
            }
            Kind::ServerStream => {
                let message = request(call, sent.pop().flatten()).map_err(invalid)?;
                let response = grpc.server_streaming(message, path, Raw).await.map_err(none)?;
                sleep(Duration::from_millis(call.unread_ms)).await;
                let (mut stream, mut messages) = (response.into_inner(), 0);
                while stream.message().await.map_err(|status| (status, messages))?.is_some() {
                    messages += 1;
                }
                Ok(messages)
            }
        }
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").finish_non_exhaustive()
    }
}

// === impl Raw ===

impl Codec for Raw {
    type Encode = Option<Vec<u8>>;
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Option<Vec<u8>>;
    type Error = Status;

    fn encode(&mut self, message: Self::Item, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let message = message.ok_or_else(|| Status::internal("this cannot be encoded"))?;
        into.put_slice(&message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        from.advance(from.remaining());
        Ok(Some(()))
    }
}
