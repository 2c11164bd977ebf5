//! One connection, and the answers to the requests on it.

use super::{
    script::{Goaway, Http, Line, Status, Step, With},
    seen::Attempt,
    server::Shared,
    tap::{Socket, Tap, Tapped},
};
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use bytes::Bytes;
use h2::{
    Reason, RecvStream, SendStream,
    server::{self, SendResponse},
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header::CONTENT_TYPE,
};
use std::{future::poll_fn, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
    time::{Instant, sleep},
};

/// `Result { value: 7 }`, with the five bytes before it.
const MESSAGE: [u8; 14] = [0, 0, 0, 0, 9, 9, 0, 0, 0, 0, 0, 0, 0x1c, 0x40];

/// An answer that is being given.
#[derive(Debug)]
struct Answer {
    shared: Arc<Shared>,
    tap: Arc<Tap>,
    /// Which of the server's requests it is for.
    number: usize,
    respond: SendResponse<Bytes>,
    stream: Option<SendStream<Bytes>>,
    /// The answer has ended; what is left may be done to the connection.
    is_over: bool,
    /// The client has reset the request.
    is_gone: bool,
}

/// Does with a connection what its script says.
pub(super) async fn serve<S: Socket>(
    mut socket: S,
    line: Line,
    shared: Arc<Shared>,
    tap: Arc<Tap>,
) {
    match line {
        Line::Serve => http2(socket, With::default(), shared, tap).await,
        Line::With(with) => http2(socket, with, shared, tap).await,
        Line::Silent => {
            // It is read, so that it ends when the other end does.
            let mut bytes = [0; 1024];
            while matches!(socket.read(&mut bytes).await, Ok(1..)) {}
        }
        Line::Close => drop(socket),
        Line::Reset => socket.make_hard(),
        Line::Say(text) => {
            let mut bytes = [0; 1024];
            // The other end begins.
            _ = socket.read(&mut bytes).await;
            _ = socket.write_all(text.as_bytes()).await;
            _ = socket.shutdown().await;
            while matches!(socket.read(&mut bytes).await, Ok(1..)) {}
        }
    }
}

async fn http2<S: Socket>(socket: S, with: With, shared: Arc<Shared>, tap: Arc<Tap>) {
    let mut builder = server::Builder::new();
    if let Some(streams) = with.max_streams {
        builder.max_concurrent_streams(streams);
    }
    let connection = builder.handshake(Tapped::new(socket, tap.clone())).await;
    let Ok(mut connection) = connection else { return };
    let ageing = age(with, tap.clone());
    let serving = async {
        while let Some(Ok((request, respond))) = connection.accept().await {
            let answer = Answer::new(&request, respond, &shared, &tap);
            shared.spawn(answer.answered(request.into_body()));
        }
    };
    // What is left to do at an age ends with the connection.
    tokio::select! {
        () = serving => {}
        () = ageing => {}
    }
}

/// Does what is due at an age of the connection; does not end.
async fn age(with: With, tap: Arc<Tap>) {
    let begun = Instant::now();
    let at = |ms: Option<u64>| async move {
        match ms {
            Some(ms) => tokio::time::sleep_until(begun + Duration::from_millis(ms)).await,
            None => std::future::pending().await,
        }
    };
    let frozen = async {
        at(with.freeze_ms).await;
        tap.freeze();
    };
    let cut = async {
        at(with.cut_ms).await;
        tap.cut();
    };
    let gone_away = async {
        at(with.goaway_ms).await;
        tap.go_away(&with.goaway.clone().unwrap_or_default(), 0);
    };
    tokio::join!(frozen, cut, gone_away, std::future::pending::<()>());
}

fn frame(message: &[u8]) -> Bytes {
    let mut frame = vec![0];
    frame.extend((message.len() as u32).to_be_bytes());
    frame.extend(message);
    frame.into()
}

/// Reads a request to its end; says whether it has come to it.
async fn read(mut body: RecvStream, shared: Arc<Shared>, number: usize, done: watch::Sender<bool>) {
    while let Some(chunk) = body.data().await {
        let Ok(chunk) = chunk else {
            return shared.note(number, |attempt| attempt.is_reset = true);
        };
        shared.note(number, |attempt| attempt.body_bytes += chunk.len());
        // One that is over gives nothing back.
        _ = body.flow_control().release_capacity(chunk.len());
    }
    shared.note(number, |attempt| attempt.is_complete = true);
    shared.read.send_modify(|read| *read += 1);
    done.send_replace(true);
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 127 {
        bytes.push(number as u8 & 127 | 128);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// A field of bytes, in protobuf.
fn field(number: u8, value: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2][..], &varint(value.len() as u64), value].concat()
}

/// The `google.protobuf.Any` of a `RetryInfo`.
fn retry_info(ms: u64) -> Vec<u8> {
    let (seconds, nanos) = (ms / 1000, ms % 1000 * 1_000_000);
    let delay = [vec![8], varint(seconds), vec![16], varint(nanos)].concat();
    let name = field(1, b"type.googleapis.com/google.rpc.RetryInfo");
    [name, field(2, &field(1, &delay))].concat()
}

/// As gRPC escapes `grpc-message`.
fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b' '..=b'~' if byte != b'%' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

// === impl Status ===

impl Status {
    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mut insert = |name: &'static str, value: String| {
            let value = HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static("?"));
            headers.insert(HeaderName::from_static(name), value);
        };
        insert("grpc-status", self.code.to_string());
        let message = escaped(&self.message) + &"m".repeat(self.message_len);
        if !message.is_empty() {
            insert("grpc-message", message);
        }
        let info = self.retry_info_ms.map(retry_info);
        let named = (!self.details.is_empty()).then(|| field(1, self.details.as_bytes()));
        if let Some(any) = info.or(named) {
            let code = [vec![8], varint(u64::from(self.code))].concat();
            let said = [code, field(2, self.message.as_bytes()), field(3, &any)].concat();
            insert("grpc-status-details-bin", STANDARD_NO_PAD.encode(said));
        }
        if let Some(pushback) = &self.pushback {
            insert("grpc-retry-pushback-ms", pushback.clone());
        }
        headers
    }
}

// === impl Answer ===

impl Answer {
    fn new(
        request: &Request<RecvStream>,
        respond: SendResponse<Bytes>,
        shared: &Arc<Shared>,
        tap: &Arc<Tap>,
    ) -> Self {
        let number = shared.arrived(Attempt {
            server: shared.index,
            at: Instant::now(),
            path: request.uri().path().to_owned(),
            authority: request.uri().authority().map(ToString::to_string),
            headers: request.headers().clone(),
            body_bytes: 0,
            is_complete: false,
            is_reset: false,
        });
        let (shared, tap) = (shared.clone(), tap.clone());
        Self { shared, tap, number, respond, stream: None, is_over: false, is_gone: false }
    }

    async fn answered(mut self, body: RecvStream) {
        let mut steps = self.shared.answer(self.number);
        let (done, mut is_read) = watch::channel(false);
        self.shared.spawn(read(body, self.shared.clone(), self.number, done));
        if matches!(steps.first(), Some(Step::AtHead)) {
            steps.remove(0);
        } else if is_read.wait_for(|done| *done).await.is_err() {
            return;
        }
        for step in steps {
            self.step(step).await;
            if self.is_gone {
                return;
            }
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::AtHead => {}
            Step::Ok => {
                self.headers();
                self.data(Bytes::from_static(&MESSAGE));
                self.status(&Status::default());
            }
            Step::WaitMs(ms) => self.unless_reset(sleep(Duration::from_millis(ms))).await,
            Step::OnceRead(least) => {
                let mut read = self.shared.read.subscribe();
                // The sender is ours, and so there until then.
                self.unless_reset(async { _ = read.wait_for(|read| *read >= least).await }).await;
            }
            Step::Headers => self.headers(),
            Step::Http(http) => self.http(&http),
            Step::Message => self.data(Bytes::from_static(&MESSAGE)),
            Step::Messages(count, bytes) => {
                let frame = frame(&vec![0; bytes]);
                (0..count).for_each(|_| self.data(frame.clone()));
            }
            Step::Data(text) => self.data(text.into()),
            Step::HalfMessage => self.data(Bytes::from_static(&MESSAGE[..8])),
            Step::Status(status) => self.status(&status),
            Step::End => self.end(),
            Step::Reset(code) => self.reset(code.into()),
            Step::Goaway(goaway) => self.go_away(&goaway).await,
            // What was said before leaves first.
            Step::Cut => self.cut(Tap::cut).await,
            Step::CutHard => self.cut(Tap::cut_hard).await,
            Step::Freeze => self.cut(Tap::freeze).await,
            Step::Hang => self.unless_reset(std::future::pending()).await,
        }
    }

    fn headers(&mut self) {
        if self.stream.is_none() {
            let content_type = Some("application/grpc".to_owned());
            self.http(&Http { status: 200, content_type, end: false });
        }
    }

    fn http(&mut self, http: &Http) {
        let mut headers = HeaderMap::new();
        let content_type = http.content_type.as_deref().map(HeaderValue::from_str);
        headers.extend(content_type.and_then(Result::ok).map(|value| (CONTENT_TYPE, value)));
        self.respond(http.status, headers, http.end);
    }

    fn respond(&mut self, status: u16, headers: HeaderMap, end: bool) {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
        *response.headers_mut() = headers;
        // An error means that the client has gone.
        self.stream = self.respond.send_response(response, end).ok();
        self.is_gone = self.stream.is_none();
        self.is_over = end;
    }

    fn data(&mut self, data: Bytes) {
        if let Some(stream) = &mut self.stream {
            self.is_gone |= stream.send_data(data, false).is_err();
        }
    }

    fn status(&mut self, status: &Status) {
        let mut trailers = status.headers();
        match &mut self.stream {
            Some(stream) => _ = stream.send_trailers(trailers),
            None => {
                trailers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                self.respond(200, trailers, true);
            }
        }
        self.is_over = true;
    }

    fn end(&mut self) {
        if let Some(stream) = &mut self.stream {
            _ = stream.send_data(Bytes::new(), true);
        }
        self.is_over = true;
    }

    fn reset(&mut self, reason: Reason) {
        match &mut self.stream {
            Some(stream) => stream.send_reset(reason),
            None => self.respond.send_reset(reason),
        }
        self.is_over = true;
    }

    async fn go_away(&self, goaway: &Goaway) {
        self.tap.go_away(goaway, self.respond.stream_id().as_u32());
        sleep(Duration::from_millis(5)).await;
    }

    async fn cut(&mut self, how: fn(&Tap)) {
        sleep(Duration::from_millis(50)).await;
        how(&self.tap);
        self.unless_reset(std::future::pending()).await;
    }

    /// Waits, and no longer than until the client goes.
    async fn unless_reset(&mut self, wait: impl Future<Output = ()>) {
        if self.is_over {
            return wait.await;
        }
        let (respond, stream) = (&mut self.respond, &mut self.stream);
        let reset = poll_fn(|cx| match stream {
            Some(stream) => stream.poll_reset(cx),
            None => respond.poll_reset(cx),
        });
        tokio::select! {
            reset = reset => {
                self.is_gone = true;
                // An error is the end of the connection.
                if reset.is_ok() {
                    self.shared.note(self.number, |attempt| attempt.is_reset = true);
                }
            }
            () = wait => {}
        }
    }
}
