//! The format of the scripts, as `peers/suite/README.md` describes it.

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// A file of scripts about one thing.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub about: String,
    pub scripts: Vec<Script>,
}

/// Servers that act, calls that are made, and what is right.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    pub id: String,
    /// What is right, in a sentence, and who says so.
    pub what: String,
    /// What a client must be able to do.
    #[serde(default)]
    pub needs: Vec<String>,
    /// gRPC's service config.
    #[serde(default)]
    pub config: Option<Json>,
    #[serde(default)]
    pub client: Settings,
    #[serde(default = "one_server")]
    pub servers: Vec<Server>,
    pub calls: Vec<Call>,
    pub expect: Expect,
    /// The clients that are known to do something else, and why.
    #[serde(default)]
    pub differs: BTreeMap<String, Differs>,
    /// Clients that are not asked, and why: those whose process dies, say.
    #[serde(default)]
    pub spare: BTreeMap<String, String>,
    /// Left out of a quick run.
    #[serde(default)]
    pub slow: bool,
}

/// How the client's channel is set up; what is not said is the client's own default.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Whether the channel is connected before the first call; default yes.
    pub connect: Option<bool>,
    /// After how much silence a connection with calls is pinged, and how long that may take.
    pub keepalive_ms: Option<u64>,
    pub keepalive_timeout_ms: Option<u64>,
    /// The largest message that may be sent.
    pub max_send_bytes: Option<usize>,
    /// The largest list of headers that is taken.
    pub max_header_bytes: Option<u32>,
}

/// One server.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// What becomes of one request after the other; the last for ever. None: a message and OK.
    pub answers: Vec<Vec<Step>>,
    /// After the last answer comes the first.
    pub cycle: bool,
    /// What becomes of one connection after the other; the last for ever. None: it is served.
    pub connections: Vec<Line>,
    /// Refuses connections until the first call is so old.
    pub down_ms: Option<u64>,
    /// Refuses connections for ever.
    pub down: bool,
    /// Refuses connections from then on, and cuts those that there are: after so many requests, for
    /// so long.
    pub restart: Option<Restart>,
    /// How it is named to the client: by number where nothing is said.
    pub address: Address,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restart {
    pub after_requests: usize,
    pub down_ms: u64,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Address {
    /// `127.0.0.1:port`.
    #[default]
    Ip,
    /// `localhost:port`.
    Localhost,
    /// `unix:///path`.
    Unix,
    /// `nowhere.invalid:port`, which no name server knows.
    Nowhere,
}

/// What becomes of a connection.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Line {
    /// HTTP/2.
    #[default]
    Serve,
    /// It is accepted, and nothing is ever said.
    Silent,
    /// It is accepted and closed.
    Close,
    /// It is accepted and reset.
    Reset,
    /// This is said, whatever comes, and then it is closed.
    Say(String),
    /// HTTP/2 with settings of its own.
    With(With),
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct With {
    /// `SETTINGS_MAX_CONCURRENT_STREAMS`.
    pub max_streams: Option<u32>,
    /// Nothing is read or written any more once it is so old; neither end sees an error.
    pub freeze_ms: Option<u64>,
    /// It is cut once it is so old.
    pub cut_ms: Option<u64>,
    /// A GOAWAY once it is so old.
    pub goaway_ms: Option<u64>,
    pub goaway: Option<Goaway>,
}

/// A step of an answer. It begins when the request has been read to its end.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// Not when the request has ended, but at its head. Is the first.
    AtHead,
    /// Headers, a message, and status 0.
    Ok,
    WaitMs(u64),
    /// Until the server has read so many requests in all.
    OnceRead(usize),
    /// The response's headers.
    Headers,
    /// Others.
    Http(Http),
    /// A message of 9 bytes.
    Message,
    /// So many of so many bytes: `[count, bytes]`.
    Messages(usize, usize),
    /// These bytes as they are.
    Data(String),
    /// The length of a message of 9 bytes, and three of them.
    HalfMessage,
    /// Trailers, or without headers a response of trailers alone.
    Status(Status),
    /// The stream ends with no status.
    End,
    /// RST_STREAM with this code.
    Reset(u32),
    Goaway(Goaway),
    /// The connection is closed.
    Cut,
    /// The connection is reset.
    CutHard,
    /// Nothing is read or written on it any more; neither end sees an error.
    Freeze,
    /// Nothing else is said.
    Hang,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    pub status: u16,
    #[serde(default)]
    pub content_type: Option<String>,
    /// Whether the stream ends with them.
    #[serde(default)]
    pub end: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Status {
    pub code: u32,
    /// Escaped for the header.
    pub message: String,
    /// The message is so many letters longer.
    pub message_len: usize,
    /// The type of a message among the details.
    pub details: String,
    /// `grpc-retry-pushback-ms`.
    pub pushback: Option<String>,
    /// A `google.rpc.RetryInfo` among the details.
    pub retry_info_ms: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Goaway {
    pub code: u32,
    /// Whether the stream of this request, and those before it, will be served. Default: yes.
    pub turns_away: bool,
    pub debug: String,
}

/// Calls that are alike.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Call {
    /// How many, one after the other; default 1.
    pub times: Option<usize>,
    /// All of them at once.
    pub at_once: bool,
    /// They begin, and the next ones do not wait for them.
    pub go_on: bool,
    /// Wait before each.
    pub pause_ms: u64,
    /// Whether the channel is to be connected before each; default as in the settings.
    pub connect: Option<bool>,
    /// Of `calculator.Calculator`. Default `Add`.
    pub method: Option<String>,
    pub kind: Kind,
    pub metadata: BTreeMap<String, String>,
    pub deadline_ms: Option<u64>,
    /// For clients that have it by call; it is in the service config as well.
    pub wait_for_ready: bool,
    /// How many bytes each message of the request has.
    pub bytes: usize,
    /// How many messages a stream of requests has; default 1.
    pub send: Option<usize>,
    /// After them comes one that cannot be encoded.
    pub cannot_encode: bool,
    /// For how long no message of the response is read.
    pub unread_ms: u64,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    #[default]
    Unary,
    ClientStream,
    ServerStream,
}

/// What must be seen. What is not said is not compared.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    /// How the calls end, in their order; the last stands for those that follow.
    pub calls: Vec<Ends>,
    /// How many calls end with OK: `[least, most]`.
    pub ok: Option<Range>,
    /// How many requests the servers have seen.
    pub attempts: Option<Range>,
    /// How many of them were complete.
    pub complete: Option<Range>,
    /// The same by server.
    pub per_server: Vec<Range>,
    /// `grpc-previous-rpc-attempts`, in the order in which the requests came.
    pub previous: Option<Vec<Option<String>>>,
    /// From the arrival of a request to that of the next, in milliseconds; the last stands for
    /// those that follow.
    pub gap_ms: Vec<Range>,
    /// What a request says that remains (`grpc-timeout`), request by request; the last stands for
    /// those that follow.
    pub told_ms: Vec<Range>,
    /// What each request carries; `null`: it has no such header. `:host` is the `:authority`
    /// without the port.
    pub metadata: BTreeMap<String, Option<String>>,
    /// How many bytes the body of each request has, with the five before each message.
    pub body_bytes: Option<usize>,
    /// Method by method.
    pub methods: Vec<String>,
    pub connections: Option<Range>,
    /// PINGs that are no acknowledgement.
    pub pings: Option<Range>,
    /// Requests that the client has reset.
    pub resets: Option<Range>,
}

pub(super) type Range = (u64, u64);

/// How a call ends.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ends {
    /// Any of these.
    pub code: Vec<i64>,
    pub message: Option<String>,
    /// This is somewhere in the details.
    pub details: Option<String>,
    pub messages: Option<usize>,
    pub took_ms: Option<Range>,
    /// As many calls end so; default 1.
    pub times: Option<usize>,
}

/// What a client is known to do instead.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Differs {
    pub attempts: usize,
    /// None where its process dies.
    pub codes: Vec<i64>,
    pub why: String,
}

fn one_server() -> Vec<Server> {
    vec![Server::default()]
}

// === impl Script ===

impl Script {
    /// How many calls there are.
    pub fn call_count(&self) -> usize {
        self.calls.iter().map(Call::count).sum()
    }
}

// === impl Call ===

impl Call {
    pub fn count(&self) -> usize {
        self.times.unwrap_or(1)
    }

    /// The path of the method.
    pub fn path(&self) -> String {
        format!("/calculator.Calculator/{}", self.method.as_deref().unwrap_or("Add"))
    }
}
