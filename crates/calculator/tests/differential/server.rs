//! The server of a script, on a port of its own.

use crate::{SECOND, encode, ok};
use bytes::Bytes;
use calculator::pb::Result as Value;
use cinchona_testkit::{Answer, ScriptedServer};
use http::{HeaderMap, HeaderValue, StatusCode, header::CONTENT_TYPE};
use serde_json::Value as Json;
use std::{
    convert::Infallible,
    future::Future,
    net::Shutdown,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    time::sleep,
};
use tokio_stream::StreamExt;
use tonic::{
    Code, Status,
    body::Body,
    metadata::MetadataMap,
    server::NamedService,
    service::Routes,
    transport::{Server, server::TcpIncoming},
};
use tower::Service;

/// What a script's server has got, and where it is.
pub(super) struct Serving {
    pub server: ScriptedServer,
    pub port: u16,
    /// Who connects here lets a server that is down begin to listen.
    pub control: u16,
}

/// The scripted calculator, for tonic's own server.
#[derive(Clone, Debug)]
struct Calculator {
    server: ScriptedServer,
    answers: Arc<Vec<Json>>,
    /// How many requests have been read.
    read: watch::Sender<usize>,
    lines: Lines,
}

/// The connections so far, to be cut.
#[derive(Clone, Debug, Default)]
struct Lines(Arc<Mutex<Vec<std::net::TcpStream>>>);

/// A fresh server for a script; one that is `down` refuses connections, at first or for ever.
pub(super) fn serve_script(script: &Json) -> Serving {
    let answers = script["answers"].as_array().cloned().unwrap_or_default();
    let server = ScriptedServer::new(answers.iter().map(answer));
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let port = socket.local_addr().unwrap().port();
    let control = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    control.set_nonblocking(true).unwrap();
    let control = TcpListener::from_std(control).unwrap();
    let control_port = control.local_addr().unwrap().port();
    let calculator = Calculator {
        server: server.clone(),
        answers: Arc::new(answers),
        read: watch::Sender::new(0),
        lines: Lines::default(),
    };
    if script["down"].as_bool() == Some(true) {
        tokio::spawn(async move {
            // Until then the port is bound, so that nobody else has it, and refuses.
            control.accept().await.unwrap();
            calculator.serve(socket.listen(1024).unwrap()).await;
        });
    } else {
        tokio::spawn(calculator.serve(socket.listen(1024).unwrap()));
    }
    Serving { server, port, control: control_port }
}

fn status(code: &Json, answer: &Json) -> Status {
    let code = Code::from_i32(code.as_i64().unwrap() as i32);
    let text = |field: &str| answer[field].as_str().unwrap_or_default().to_owned();
    let long = "m".repeat(answer["message_len"].as_u64().unwrap_or(0) as usize);
    let mut headers = HeaderMap::new();
    if let Some(pushback) = answer["pushback"].as_str() {
        headers.insert("grpc-retry-pushback-ms", pushback.parse().unwrap());
    }
    let metadata = MetadataMap::from_headers(headers);
    let message = text("message") + &long;
    Status::with_details_and_metadata(code, message, text("details").into(), metadata)
}

fn answer(json: &Json) -> Answer {
    let mut given = None;
    let reason = |value: &Json| value.as_u64().unwrap() as u32;
    for (field, value) in json.as_object().unwrap() {
        given = Some(match field.as_str() {
            "ok" => ok(7.0),
            "status" => Answer::Status(status(value, json)),
            "headers_then_status" => Answer::HeadersThenStatus(status(value, json)),
            "message_then_status" => {
                Answer::MessageThenStatus(encode(&Value { value: 1.0 }), status(value, json))
            }
            "rst" => Answer::Reset(reason(value).into()),
            "headers_then_rst" => Answer::MessageThenReset(Bytes::new(), reason(value).into()),
            "headers_then_lost" => Answer::HeadersThenHang,
            "hang" => Answer::Hang,
            "http" => {
                let code = StatusCode::from_u16(value.as_u64().unwrap() as u16).unwrap();
                let page = json["page"].as_str().unwrap_or_default().to_owned();
                Answer::Http(code, "", page.into())
            }
            "once_read" | "pushback" | "message" | "message_len" | "details" | "content_type"
            | "page" => continue,
            unknown => panic!("an answer has no {unknown}"),
        });
    }
    given.unwrap()
}

// === impl Calculator ===

impl NamedService for Calculator {
    const NAME: &'static str = "calculator.Calculator";
}

impl Service<http::Request<Body>> for Calculator {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let number = self.server.attempts();
        let answer = self.answers.get(number).or(self.answers.last()).cloned().unwrap_or_default();
        let answered = self.server.call(request);
        let (read, lines) = (self.read.clone(), self.lines.clone());
        Box::pin(async move {
            let mut response = answered.await?;
            read.send_modify(|read| *read += 1);
            if let Some(least) = answer["once_read"].as_u64() {
                let enough = |read: &usize| *read as u64 >= least;
                read.subscribe().wait_for(enough).await.unwrap();
            }
            if !answer["http"].is_null() {
                response.headers_mut().remove(CONTENT_TYPE);
                if let Some(content_type) = answer["content_type"].as_str() {
                    let content_type = HeaderValue::from_str(content_type).unwrap();
                    response.headers_mut().insert(CONTENT_TYPE, content_type);
                }
            }
            if !answer["headers_then_lost"].is_null() {
                tokio::spawn(async move {
                    // The headers leave first: before this timer, on the one thread there is.
                    sleep(SECOND / 20).await;
                    lines.cut();
                });
            }
            Ok(response)
        })
    }
}

impl Calculator {
    async fn serve(self, listener: TcpListener) {
        let lines = self.lines.clone();
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let incoming = incoming.map(move |tcp| tcp.map(|tcp| lines.keep(tcp)));
        let routes = Routes::new(self);
        Server::builder().add_routes(routes).serve_with_incoming(incoming).await.unwrap();
    }
}

// === impl Lines ===

impl Lines {
    fn keep(&self, tcp: TcpStream) -> TcpStream {
        let tcp = tcp.into_std().unwrap();
        self.0.lock().unwrap().push(tcp.try_clone().unwrap());
        TcpStream::from_std(tcp).unwrap()
    }

    fn cut(&self) {
        for line in self.0.lock().unwrap().drain(..) {
            // One that is closed already is cut as well.
            line.shutdown(Shutdown::Both).ok();
        }
    }
}

/// `[least, most]` in milliseconds, the latter included.
pub(super) fn is_within(range: &Json, duration: Duration) -> bool {
    let millis = |n: usize| u128::from(range[n].as_u64().unwrap());
    range.is_null() || (millis(0)..=millis(1)).contains(&duration.as_millis())
}
