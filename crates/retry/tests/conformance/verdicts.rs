//! The verdict on each fault on the wire, produced by real HTTP/2.

use super::*;
use cinchona_core::{Stage, Verdict};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper_util::rt::TokioIo;
use std::{
    error::Error,
    fmt, io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tonic::{body::Body, transport::Endpoint};

/// The verdict on a call to a server with this answer: on its head, or else on its body's end.
async fn verdict(answer: Answer) -> Verdict {
    let network = Network::new();
    let _serving = network.serve_service(ScriptedServer::new([answer]));
    judge(&network).await
}

async fn judge(network: &Network) -> Verdict {
    let request = http::Request::builder().uri("http://s/a.B/C").body(Body::empty()).unwrap();
    let outcome = tower::ServiceExt::oneshot(network.channel(), request).await;
    let outcome = outcome.map_err(cinchona_core::BoxError::from);
    let head = Verdict::of(&outcome);
    let (Verdict::Ok, Ok(response)) = (head, outcome) else { return head };
    if response.headers().contains_key("grpc-status") {
        return head;
    }
    let mut body = response.into_body();
    loop {
        match body.frame().await {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    return Verdict::of_trailers(trailers);
                }
            }
            Some(Err(error)) => return Verdict::of_error(&error),
            None => return Verdict::of_trailers(&HeaderMap::new()),
        }
    }
}

/// The verdict if a server layer fails with this error.
async fn failing_layer(
    error: impl Fn() -> cinchona_core::BoxError + Send + Clone + 'static,
) -> Verdict {
    let network = Network::new();
    let service = tower::service_fn(move |_: http::Request<Body>| {
        std::future::ready(Err::<http::Response<Body>, _>(error()))
    });
    let _serving = network.serve_service(service);
    judge(&network).await
}

#[derive(Debug)]
struct Wrapped(h2::Error);

impl fmt::Display for Wrapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Wrapped {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

const fn maybe(code: Code) -> Verdict {
    Verdict::MaybeProcessed(code)
}

// catalogue: X-verdicts
#[tokio::test(start_paused = true)]
async fn answers_that_are_statuses() {
    for (code, expected) in [
        (Code::Ok, Verdict::Ok),
        (Code::InvalidArgument, Verdict::Refused(Code::InvalidArgument)),
        (Code::NotFound, Verdict::Refused(Code::NotFound)),
        (Code::FailedPrecondition, Verdict::Refused(Code::FailedPrecondition)),
        (Code::Unavailable, maybe(Code::Unavailable)),
        (Code::ResourceExhausted, maybe(Code::ResourceExhausted)),
        (Code::DeadlineExceeded, maybe(Code::DeadlineExceeded)),
    ] {
        let status = || Status::new(code, "said");
        assert_eq!(verdict(Answer::Status(status())).await, expected, "trailers-only {code}");
        assert_eq!(verdict(Answer::HeadersThenStatus(status())).await, expected, "trailers {code}");
        let message = encode(&message(1));
        assert_eq!(verdict(Answer::MessageThenStatus(message, status())).await, expected, "{code}");
    }
    // Whose timer that was, only the layer knows that has set the time.
    let expired = Answer::Status(Status::cancelled("Timeout expired"));
    assert_eq!(verdict(expired).await, maybe(Code::Cancelled));
    let mut unknown = HeaderMap::new();
    unknown.insert("grpc-status", "99".parse().unwrap());
    assert_eq!(verdict(Answer::Raw(unknown)).await, maybe(Code::Unknown));
}

// catalogue: X-verdicts
#[tokio::test(start_paused = true)]
async fn resets_by_their_reason() {
    use h2::Reason;
    for (reason, expected) in [
        (Reason::REFUSED_STREAM, Verdict::NotProcessed(Stage::RefusedStream)),
        (Reason::CANCEL, maybe(Code::Cancelled)),
        (Reason::INTERNAL_ERROR, maybe(Code::Internal)),
        (Reason::ENHANCE_YOUR_CALM, maybe(Code::ResourceExhausted)),
        (Reason::INADEQUATE_SECURITY, maybe(Code::PermissionDenied)),
        (Reason::PROTOCOL_ERROR, maybe(Code::Internal)),
    ] {
        assert_eq!(verdict(Answer::Reset(reason)).await, expected, "{reason:?}");
        assert_eq!(
            failing_layer(move || Wrapped(reason.into()).into()).await,
            expected,
            "{reason:?}"
        );
    }
    assert_eq!(failing_layer(|| "any".into()).await, maybe(Code::Internal));
}

// catalogue: X-verdicts
#[tokio::test(start_paused = true)]
async fn http_answers_of_proxies() {
    for (http, expected) in [
        (503, maybe(Code::Unavailable)),
        (502, maybe(Code::Unavailable)),
        (504, maybe(Code::Unavailable)),
        (429, maybe(Code::Unavailable)),
        (401, Verdict::Refused(Code::Unauthenticated)),
        (403, Verdict::Refused(Code::PermissionDenied)),
        (404, Verdict::Refused(Code::Unimplemented)),
        (431, maybe(Code::Internal)),
        (500, maybe(Code::Unknown)),
    ] {
        let network = Network::new();
        let service = tower::service_fn(move |_: http::Request<Body>| {
            let response = http::Response::builder().status(http).body(Body::empty()).unwrap();
            std::future::ready(Ok::<_, std::convert::Infallible>(response))
        });
        let _serving = network.serve_service(service);
        assert_eq!(judge(&network).await, expected, "{http}");
    }
}

// catalogue: X-verdicts
#[tokio::test(start_paused = true)]
async fn bodies_that_break_off() {
    for (error, expected) in [
        (None, maybe(Code::Unknown)),
        (Some(h2::Reason::REFUSED_STREAM), Verdict::NotProcessed(Stage::RefusedStream)),
        (Some(h2::Reason::INTERNAL_ERROR), maybe(Code::Internal)),
        (Some(h2::Reason::ENHANCE_YOUR_CALM), maybe(Code::ResourceExhausted)),
    ] {
        let network = Network::new();
        let service = tower::service_fn(move |_: http::Request<Body>| {
            let message = Ok(Frame::data(encode(&message(1))));
            let end = error.map(|reason| Err(Wrapped(reason.into())));
            let frames = tokio_stream::iter([Some(message), end].into_iter().flatten());
            let mut response = http::Response::new(Body::new(StreamBody::new(frames)));
            let grpc = http::HeaderValue::from_static("application/grpc");
            response.headers_mut().insert(http::header::CONTENT_TYPE, grpc);
            std::future::ready(Ok::<_, std::convert::Infallible>(response))
        });
        let _serving = network.serve_service(service);
        let seen = judge(&network).await;
        // Once a response has begun, `core` still distinguishes a refused stream.
        assert_eq!(seen, expected, "{error:?}");
    }
}

// catalogue: X-verdicts
#[tokio::test(start_paused = true)]
async fn connections_that_fail() {
    let network = Network::new();
    assert_eq!(judge(&network).await, Verdict::NotProcessed(Stage::NoConnection), "nobody listens");
    let _listening = network.incoming();
    network.refuse(true);
    assert_eq!(judge(&network).await, Verdict::NotProcessed(Stage::NoConnection), "refused");

    let network = Network::new();
    let server = ScriptedServer::new([Answer::Hang]);
    let _serving = network.serve_service(server.clone());
    let cut = async {
        while server.attempts() == 0 {
            tokio::task::yield_now().await;
        }
        network.reset();
    };
    let (lost, ()) = tokio::join!(judge(&network), cut);
    assert_eq!(lost, maybe(Code::Unavailable), "lost in flight");
}

async fn call(endpoint: Endpoint, network: &Network) -> Verdict {
    let channel = endpoint.connect_with_connector_lazy(network.connector());
    let request = http::Request::builder().uri("http://s/a.B/C").body(Body::empty()).unwrap();
    let outcome = tower::ServiceExt::oneshot(channel, request).await;
    Verdict::of(&outcome.map_err(cinchona_core::BoxError::from))
}

// catalogue: X-verdicts
// real clock: hyper's keepalive reads the system's.
#[tokio::test]
async fn a_keepalive_that_is_not_answered() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::from_shared(format!("http://{}", listener.local_addr().unwrap()));
    let endpoint = endpoint.unwrap().http2_keep_alive_interval(ms(200)).keep_alive_timeout(ms(200));
    // Without `while_idle` hyper does not ping: to it a call without a response yet is idle.
    let endpoint = endpoint.keep_alive_while_idle(true);
    // Speaks HTTP/2 until it has read the request, and then falls silent.
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let request = connection.accept().await.unwrap().unwrap();
        tokio::time::sleep(ms(60_000)).await;
        drop((request, connection));
    });
    let request = http::Request::builder().uri("http://s/a.B/C").body(Body::empty()).unwrap();
    let outcome = tower::ServiceExt::oneshot(endpoint.connect_lazy(), request).await;
    let verdict = Verdict::of(&outcome.map_err(cinchona_core::BoxError::from));
    assert_eq!(verdict, maybe(Code::Unavailable));
    server.abort();
}

// catalogue: X-verdicts
#[tokio::test(start_paused = true)]
async fn timers_of_the_client() {
    let network = Network::new();
    let _serving = network.serve_service(ScriptedServer::new([Answer::Hang]));
    let endpoint = Endpoint::from_static("http://s");
    assert_eq!(call(endpoint.clone().timeout(ms(100)), &network).await, Verdict::Deadline);

    let nowhere = Network::new();
    nowhere.blackhole(true);
    let slow = endpoint.connect_timeout(ms(100));
    assert_eq!(
        call(slow, &nowhere).await,
        Verdict::NotProcessed(Stage::NoConnection),
        "connecting"
    );
}

/// A connection that the kernel gives up once it is told to.
struct GivenUp {
    inner: DuplexStream,
    is_given_up: Arc<AtomicBool>,
}

impl AsyncRead for GivenUp {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.is_given_up.load(Ordering::Relaxed) {
            true => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            false => Pin::new(&mut self.inner).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for GivenUp {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// The same error from a connector would mean that nothing was sent.
// catalogue: X-verdicts
#[tokio::test(start_paused = true)]
async fn a_connection_that_times_out_after_the_request() {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let is_given_up = Arc::new(AtomicBool::new(false));
    let mut ours = Some(GivenUp { inner: ours, is_given_up: is_given_up.clone() });
    let connector = tower::service_fn(move |_: http::Uri| {
        let next = ours.take().map(TokioIo::new);
        std::future::ready(next.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionRefused)))
    });
    let channel = Endpoint::from_static("http://s").connect_with_connector_lazy(connector);
    let server = async {
        let mut connection = h2::server::handshake(theirs).await.unwrap();
        let request = connection.accept().await.unwrap().unwrap();
        is_given_up.store(true, Ordering::Relaxed);
        // Closes it, so that the client reads.
        drop((request, connection));
    };
    let request = http::Request::builder().uri("http://s/a.B/C").body(Body::empty()).unwrap();
    let (outcome, ()) = tokio::join!(tower::ServiceExt::oneshot(channel, request), server);
    let verdict = Verdict::of(&outcome.map_err(cinchona_core::BoxError::from));
    assert_eq!(verdict, maybe(Code::Unavailable));
}

/// The message of the status of a call of `endpoint` with this body.
async fn explained(endpoint: Endpoint, network: &Network, body: Body) -> String {
    let channel = endpoint.connect_with_connector_lazy(network.connector());
    let request = http::Request::builder().uri("http://s/a.B/C").body(body).unwrap();
    let error = tower::ServiceExt::oneshot(channel, request).await.unwrap_err();
    Verdict::status_of(error.into()).message().to_owned()
}

// catalogue: X-verdicts
#[tokio::test(start_paused = true)]
async fn a_stream_that_the_client_itself_resets_says_so_and_why() {
    let network = Network::new();
    let _serving = network.serve_service(ScriptedServer::new([Answer::Hang]));
    let fails = tokio_stream::iter([Err::<Frame<Bytes>, _>(io::Error::other("no more"))]);
    let body = Body::new(StreamBody::new(fails));
    let said = explained(Endpoint::from_static("http://s"), &network, body).await;
    assert!(said.starts_with("this client has reset the stream ("), "{said}");
    assert!(said.ends_with("): the request's body has failed"), "{said}");

    let network = Network::new();
    let status = Status::internal("x".repeat(2000));
    let _serving = network.serve_service(ScriptedServer::new([Answer::Status(status)]));
    let strict = Endpoint::from_static("http://s").http2_max_header_list_size(1000);
    let said = explained(strict, &network, Body::empty()).await;
    assert!(said.starts_with("this client has reset the stream ("), "{said}");
    assert!(said.contains("(max_header_list_size)"), "{said}");
}
