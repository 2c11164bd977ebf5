//! A server that answers by a script and records its requests.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use http_body::Frame;
use http_body_util::BodyExt;
use std::{
    convert::Infallible,
    future,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep};
use tonic::{
    Status,
    body::Body,
    service::{AxumRouter, Routes},
};
use tower::Service;

/// Answers the nth request with the nth [`Answer`] of a script, and the rest with the last one.
///
/// It is the service that a tonic client calls, so a client layer can wrap it directly; for the
/// real client with HTTP/2 in between, pass it to [`Network::serve_service`], or its
/// [`routes`](Self::routes) to a `tonic::transport::Server`. It answers for every path. Clones
/// share the script and the records.
///
/// Requests are numbered in the order of `call`. Each is read to its end before it is answered.
///
/// [`Network::serve_service`]: crate::Network::serve_service
#[derive(Clone, Debug)]
pub struct ScriptedServer {
    script: Arc<[Answer]>,
    record: Arc<Record>,
}

/// One answer of a [`ScriptedServer`].
///
/// Messages are sent unchanged: frame them with [`encode`], or leave them broken on purpose.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Headers, the message, `grpc-status: 0`.
    Ok(Bytes),
    /// A trailers-only response with this status.
    Status(Status),
    /// A wait, then an answer.
    After(Duration, Box<Self>),
    /// Headers, then nothing.
    HeadersThenHang,
    /// Headers, then trailers with this status: not trailers-only.
    HeadersThenStatus(Status),
    /// Headers, the message, then trailers with this status.
    MessageThenStatus(Bytes, Status),
    /// Headers, the message, and 10 ms later the stream reset with this reason.
    MessageThenReset(Bytes, h2::Reason),
    /// Headers, the message, then nothing.
    MessageThenHang(Bytes),
    /// Never an answer.
    Hang,
    /// A trailers-only response with exactly these headers besides `content-type`.
    Raw(HeaderMap),
    /// An HTTP response of a proxy, not gRPC's: status, content type, body.
    Http(http::StatusCode, &'static str, Bytes),
    /// The stream reset with this reason, before any headers when served over a network.
    ///
    /// Without a network the response has headers and its body fails with the `h2::Error`.
    Reset(h2::Reason),
}

/// A request that a [`ScriptedServer`] received.
#[derive(Clone, Debug)]
pub struct Received {
    /// `/package.Service/Method`.
    pub path: String,
    /// Its `:authority`, if it had one.
    pub authority: Option<String>,
    /// The request's headers.
    pub headers: HeaderMap,
    /// The body with its frame prefixes; empty until it was read to its end.
    pub body: Bytes,
    /// Whether the body has ended without an error; false until it was read to its end.
    pub is_complete: bool,
    /// When the call arrived.
    pub at: Instant,
}

#[derive(Debug, Default)]
struct Record {
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    received: Vec<Received>,
    dropped: usize,
}

/// Counts an answer as dropped unless it was completed.
#[derive(Debug)]
struct InFlight {
    record: Arc<Record>,
    completed: bool,
}

#[derive(Debug)]
struct AnswerBody {
    message: Option<Bytes>,
    end: End,
    flight: InFlight,
}

#[derive(Debug)]
enum End {
    Trailers(HeaderMap),
    Reset(h2::Reason),
    LateReset(Pin<Box<Sleep>>, h2::Reason),
    Never,
    Reached,
}

/// Frames a message for gRPC: uncompressed, its length in four bytes, the message.
pub fn encode(message: &impl prost::Message) -> Bytes {
    let message = message.encode_to_vec();
    let mut framed = BytesMut::with_capacity(PREFIX + message.len());
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put_slice(&message);
    framed.freeze()
}

const PREFIX: usize = 5;

// === impl Answer ===

impl Answer {
    /// Headers, this message, `grpc-status: 0`: the answer of a handler that succeeds.
    pub fn message(message: &impl prost::Message) -> Self {
        Self::Ok(encode(message))
    }

    /// This answer after a delay.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self::After(wait, Box::new(self))
    }
}

impl From<Status> for Answer {
    /// The answer of a handler that fails: a trailers-only response.
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

// === impl ScriptedServer ===

impl ScriptedServer {
    /// Answers by `script`, repeating the last answer; with `UNIMPLEMENTED` if it is empty.
    pub fn new(script: impl IntoIterator<Item = Answer>) -> Self {
        Self { script: script.into_iter().collect(), record: Arc::default() }
    }

    /// This server as the routes of a tonic server (`Server::builder().add_routes(..)`), for a test
    /// that needs a socket, a layer or a setting of tonic's. It answers for every service but those
    /// that [`Routes::add_service`] adds.
    pub fn routes(&self) -> Routes {
        AxumRouter::new().fallback_service(self.clone()).into()
    }

    /// The requests so far, in the order of their arrival.
    pub fn received(&self) -> Vec<Received> {
        self.record.lock().received.clone()
    }

    /// How many requests have arrived.
    pub fn attempts(&self) -> usize {
        self.record.lock().received.len()
    }

    /// How many answers were dropped before their end: usually cancellations by the client.
    pub fn dropped(&self) -> usize {
        self.record.lock().dropped
    }
}

impl<B> Service<http::Request<B>> for ScriptedServer
where
    B: http_body::Body + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let (head, body) = request.into_parts();
        let number = self.record.arrived(head);
        let answer = self.script.get(number).or(self.script.last()).cloned();
        let answer = answer.unwrap_or_else(|| Answer::Status(Status::unimplemented("no script")));
        let flight = InFlight { record: Arc::clone(&self.record), completed: false };
        Box::pin(async move {
            let (body, is_complete) = read(body).await;
            flight.record.read(number, body, is_complete);
            Ok(flight.answer(answer).await)
        })
    }
}

/// The data of a body up to its end or its first error, and whether it has ended.
async fn read<B: http_body::Body>(body: B) -> (Bytes, bool) {
    let mut body = pin!(body);
    let mut bytes = BytesMut::new();
    loop {
        match body.frame().await {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    bytes.put(data);
                }
            }
            end => return (bytes.freeze(), end.is_none()),
        }
    }
}

// === impl Received ===

impl Received {
    /// The first message of the body; `None` if it is not an `M` or its frame is incomplete.
    pub fn message<M: prost::Message + Default>(&self) -> Option<M> {
        let length = self.body.get(1..PREFIX)?;
        let length = length.iter().fold(0, |length, byte| (length << 8) | usize::from(*byte));
        M::decode(self.body.get(PREFIX..)?.get(..length)?).ok()
    }
}

// === impl Record ===

impl Record {
    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a call; returns how many came before it.
    fn arrived(&self, head: http::request::Parts) -> usize {
        let mut book = self.lock();
        book.received.push(Received {
            path: head.uri.path().to_owned(),
            authority: head.uri.authority().map(ToString::to_string),
            headers: head.headers,
            body: Bytes::new(),
            is_complete: false,
            at: Instant::now(),
        });
        book.received.len() - 1
    }

    fn read(&self, number: usize, body: Bytes, is_complete: bool) {
        let received = &mut self.lock().received[number];
        (received.body, received.is_complete) = (body, is_complete);
    }
}

// === impl InFlight ===

impl InFlight {
    async fn answer(self, mut answer: Answer) -> http::Response<Body> {
        while let Answer::After(delay, then) = answer {
            sleep(delay).await;
            answer = *then;
        }
        match answer {
            Answer::Ok(message) => self.stream(Some(message), End::status(Status::ok(""))),
            Answer::MessageThenStatus(message, status) => {
                self.stream(Some(message), End::status(status))
            }
            Answer::HeadersThenStatus(status) => self.stream(None, End::status(status)),
            Answer::MessageThenReset(message, reason) => {
                let late = Box::pin(sleep(Duration::from_millis(10)));
                self.stream(Some(message), End::LateReset(late, reason))
            }
            Answer::MessageThenHang(message) => self.stream(Some(message), End::Never),
            Answer::HeadersThenHang => self.stream(None, End::Never),
            Answer::Reset(reason) => self.stream(None, End::Reset(reason)),
            Answer::Status(status) => self.trailers_only(trailers(status)),
            Answer::Raw(headers) => self.trailers_only(headers),
            Answer::Http(status, content_type, page) => self.http(status, content_type, page),
            Answer::Hang | Answer::After(..) => future::pending().await,
        }
    }

    fn stream(self, message: Option<Bytes>, end: End) -> http::Response<Body> {
        let body = AnswerBody { message, end, flight: self };
        response(HeaderMap::new(), Body::new(body))
    }

    fn http(
        mut self,
        status: http::StatusCode,
        content_type: &'static str,
        page: Bytes,
    ) -> http::Response<Body> {
        self.completed = true;
        let mut response = http::Response::new(Body::new(http_body_util::Full::new(page)));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        response
    }

    fn trailers_only(mut self, headers: HeaderMap) -> http::Response<Body> {
        self.completed = true;
        response(headers, Body::empty())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if !self.completed {
            self.record.lock().dropped += 1;
        }
    }
}

fn response(headers: HeaderMap, body: Body) -> http::Response<Body> {
    let mut response = http::Response::new(body);
    *response.headers_mut() = headers;
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(CONTENT_TYPE, grpc);
    response
}

/// A status as trailers. Through tonic, so that messages and details are escaped as tonic does.
fn trailers(status: Status) -> HeaderMap {
    let mut headers = status.into_http::<()>().into_parts().0.headers;
    headers.remove(CONTENT_TYPE);
    headers
}

// === impl AnswerBody ===

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if let Some(message) = self.message.take() {
            return Poll::Ready(Some(Ok(Frame::data(message))));
        }
        match &mut self.end {
            End::Never => return Poll::Pending,
            End::LateReset(late, _) => ready!(late.as_mut().poll(cx)),
            _ => {}
        }
        self.flight.completed = true;
        Poll::Ready(match std::mem::replace(&mut self.end, End::Reached) {
            End::Trailers(trailers) => Some(Ok(Frame::trailers(trailers))),
            End::Reset(reason) | End::LateReset(_, reason) => Some(Err(reason.into())),
            End::Never | End::Reached => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.end, End::Reached)
    }
}

// === impl End ===

impl End {
    fn status(status: Status) -> Self {
        Self::Trailers(trailers(status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Network;
    use tokio::time::timeout;
    use tonic::{Code, transport::Channel};
    use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_client::HealthClient};
    use tower::ServiceExt;

    const SECOND: Duration = Duration::from_secs(1);
    const CHECK: &str = "/grpc.health.v1.Health/Check";

    fn serving() -> Bytes {
        encode(&HealthCheckResponse { status: 1 })
    }

    fn request() -> http::Request<Body> {
        let message = encode(&HealthCheckRequest { service: "calculator".to_owned() });
        let body = Body::new(http_body_util::Full::new(message));
        http::Request::post(CHECK).header("x-key", "7").body(body).unwrap()
    }

    async fn check<S>(service: S) -> Result<i32, Status>
    where
        S: tonic::client::GrpcService<Body, ResponseBody = Body>,
    {
        let message = HealthCheckRequest { service: "calculator".to_owned() };
        Ok(HealthClient::new(service).check(message).await?.into_inner().status)
    }

    /// The codes a tonic client sees, one for each answer, with and without a network between.
    async fn codes(answer: Answer) -> [Code; 2] {
        let net = Network::new();
        let server = ScriptedServer::new([answer]);
        let _serving = net.serve_service(server.clone());
        let direct = check(server).await;
        let remote = check(net.channel()).await;
        [direct, remote].map(|result| result.map_or_else(|status| status.code(), |_| Code::Ok))
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_sees_what_the_script_says_directly_and_over_a_network() {
        let aborted = || Status::aborted("by script");
        let malformed =
            HeaderMap::from_iter([("grpc-status".parse().unwrap(), "x".parse().unwrap())]);
        for (answer, code) in [
            (Answer::Ok(serving()), Code::Ok),
            (Answer::Ok(Bytes::from_static(&[0, 0, 0, 0, 9, 1])), Code::Internal),
            (Answer::Status(aborted()), Code::Aborted),
            (Answer::After(SECOND, Box::new(Answer::Status(aborted()))), Code::Aborted),
            (Answer::HeadersThenStatus(aborted()), Code::Aborted),
            (Answer::MessageThenStatus(serving(), aborted()), Code::Aborted),
            (Answer::Raw(malformed), Code::Unknown),
            (Answer::Reset(h2::Reason::REFUSED_STREAM), Code::Unavailable),
        ] {
            assert_eq!(codes(answer.clone()).await, [code; 2], "{answer:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_recorded_as_it_came() {
        let server = ScriptedServer::new([Answer::Ok(serving())]);
        let begun = Instant::now();
        sleep(SECOND).await;
        server.clone().oneshot(request()).await.unwrap();
        let [got] = &server.received()[..] else { panic!("one request") };
        assert_eq!((got.path.as_str(), got.at - begun), (CHECK, SECOND));
        assert_eq!(got.headers["x-key"], "7");
        assert_eq!(got.message::<HealthCheckRequest>().unwrap().service, "calculator");
        assert_eq!(&got.body[..], b"\0\0\0\0\x0c\x0a\x0acalculator", "flag, length, message");
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_cut_short_is_no_message() {
        let whole = Received {
            path: String::new(),
            authority: None,
            headers: HeaderMap::new(),
            is_complete: true,
            body: encode(&HealthCheckRequest { service: "calculator".to_owned() }),
            at: Instant::now(),
        };
        for cut in [0, PREFIX - 1, PREFIX, whole.body.len() - 1] {
            let body = whole.body.slice(..cut);
            assert_eq!(Received { body, ..whole.clone() }.message::<HealthCheckRequest>(), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_answer_repeats() {
        let server =
            ScriptedServer::new([Answer::Status(Status::aborted("")), Answer::Ok(serving())]);
        assert_eq!(check(server.clone()).await.unwrap_err().code(), Code::Aborted);
        assert_eq!(check(server.clone()).await.unwrap(), 1);
        assert_eq!(check(server.clone()).await.unwrap(), 1);
        assert_eq!((server.attempts(), server.dropped()), (3, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_script_is_unimplemented() {
        let server = ScriptedServer::new([]);
        assert_eq!(check(server).await.unwrap_err().code(), Code::Unimplemented);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_dropped_while_it_hangs_counts_as_dropped() {
        let net = Network::new();
        for answer in [Answer::Hang, Answer::HeadersThenHang] {
            let server = ScriptedServer::new([answer]);
            let _serving = net.serve_service(server.clone());
            assert!(timeout(SECOND, check(server.clone())).await.is_err());
            assert_eq!((server.attempts(), server.dropped()), (1, 1));
            assert!(timeout(SECOND, check(net.channel())).await.is_err());
            sleep(SECOND).await;
            assert_eq!((server.attempts(), server.dropped()), (2, 2));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_whose_connection_is_reset_counts_as_dropped() {
        let net = Network::new();
        let server = ScriptedServer::new([Answer::Hang]);
        let _serving = net.serve_service(server.clone());
        let (result, ()) = tokio::join!(timeout(2 * SECOND, check(net.channel())), async {
            sleep(SECOND).await;
            net.reset();
        });
        result.expect("the reset ends the call").unwrap_err();
        sleep(SECOND).await;
        assert_eq!((server.attempts(), server.dropped()), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_ends_takes_its_calls_along() {
        let net = Network::new();
        let server = ScriptedServer::new([Answer::Hang]);
        let serving = net.serve_service(server.clone());
        let (result, ()) = tokio::join!(timeout(2 * SECOND, check(net.channel())), async {
            sleep(SECOND).await;
            drop(serving);
        });
        result.expect("the server ends the call").unwrap_err();
        sleep(SECOND).await;
        assert_eq!((net.live(), server.dropped()), (0, 1));
        assert_eq!(check(net.channel()).await.unwrap_err().code(), Code::Unavailable);
    }

    /// A story with every knob in it, as the instants at which something could be seen.
    async fn story() -> Vec<(Duration, String)> {
        let begun = Instant::now();
        let net = Network::new();
        net.set_latency(Duration::from_millis(7));
        let server = ScriptedServer::new([
            Answer::Ok(serving()),
            Answer::After(SECOND, Box::new(Answer::Ok(serving()))),
            Answer::Hang,
            Answer::Ok(serving()),
        ]);
        let _serving = net.serve_service(server.clone());
        let channel: Channel = net.channel();
        let mut seen = Vec::new();
        let knobs = async {
            sleep(SECOND / 2).await;
            net.hold();
            sleep(SECOND).await;
            net.release();
            sleep(SECOND).await;
            net.reset();
        };
        let calls = async {
            for _ in 0..6 {
                let pair = tokio::join!(check(channel.clone()), check(channel.clone()));
                seen.push((Instant::now() - begun, format!("{pair:?}")));
            }
        };
        tokio::join!(knobs, calls);
        seen.extend(server.received().into_iter().map(|got| (got.at - begun, got.path)));
        seen
    }

    #[test]
    fn two_runs_of_a_story_see_the_same_at_the_same_instants() {
        let run = || {
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async { timeout(60 * SECOND, story()).await }).unwrap()
        };
        let first = run();
        assert_eq!(first, run());
        assert_eq!(first.len(), 6 + 12);
        assert!(first.iter().any(|(at, _)| *at == SECOND / 2 * 5), "the reset ended a call");
    }
}
