//! The scripts of `xtask/peers/suite`, with the stack of the calculator, and with other clients:
//! what each must see is written there, and so is where a client is known to differ.
//!
//! `cargo xtask street` runs all of them with more clients. Here are those in which the peers do
//! right but for what is said of them; those that take seconds are `slow`, and left to it.
//!
//! Clocks are real here, and chance is kept out by order: an answer that is due `once_read` so many
//! requests have arrived, one that never comes (`hang`), a connection before the first call.

use crate::{SECOND, seeded};
use bytes::{Buf, BufMut};
use calculator::client::{Settings, Stack, stack};
use cinchona::{
    balance::{self, Balance},
    config::{Client as Configured, ServiceConfig},
    core::{Rng, Target},
};
use http::uri::PathAndQuery;
use outside::{grpc_js, python, within};
use std::{fs, sync::Arc, time::Duration};
use suite::{Call, Caller, Client, File, Kind, Outcome, Script, Seen, Task, judge, run};
use tokio::{
    process::Command,
    sync::Mutex,
    time::{Instant, sleep, timeout},
};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::{Ascii, MetadataKey},
};

#[expect(dead_code, unused_imports, reason = "what reports need")]
#[expect(unreachable_pub, reason = "it is a library elsewhere")]
#[path = "../../../../xtask/peers/src/suite/mod.rs"]
mod suite;

/// The files of which the peers agree.
const FILES: [&str; 7] =
    ["answers", "hedging", "pushback", "requests", "retry", "throttling", "waiting"];
/// How many scripts run at once.
const AT_ONCE: usize = 8;

/// Messages that are bytes, and one that is nothing and cannot be encoded.
#[derive(Clone, Copy, Debug)]
struct Raw;

/// The calculator's stack, for the channel that is open.
#[derive(Clone, Debug, Default)]
struct Ours(Arc<Mutex<Option<(String, Open)>>>);

#[derive(Clone, Debug)]
struct Open {
    balance: Balance,
    stack: Stack<Balance>,
}

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

impl Caller for Ours {
    fn call(&self, task: Task) -> impl Future<Output = Result<Outcome, String>> + Send + 'static {
        let ours = self.clone();
        async move {
            let open = ours.open(&task).await;
            if task.settings.connect.unwrap_or(true) {
                open.connected().await;
            }
            let begun = Instant::now();
            let ended = open.call(&task).await;
            let status = ended.err().unwrap_or_else(|| Status::ok(""));
            Ok(Outcome {
                id: task.id,
                code: status.code() as i64,
                message: status.message().to_owned(),
                details: String::from_utf8_lossy(status.details()).into_owned(),
                messages: usize::from(status.code() == Code::Ok),
                took_ms: (Instant::now() - begun).as_secs_f64() * 1000.0,
            })
        }
    }
}

impl Ours {
    async fn open(&self, task: &Task) -> Open {
        let mut open = self.0.lock().await;
        match &*open {
            Some((name, open)) if *name == task.channel => open.clone(),
            _ => open.insert((task.channel.clone(), Open::new(task))).1.clone(),
        }
    }
}

impl Open {
    fn new(task: &Task) -> Self {
        let settings = Settings { timeout: 60 * SECOND, budget: None, ..seeded() };
        let layers = settings.layers().unwrap();
        let config = task.config.as_ref().map_or("{}".to_owned(), ToString::to_string);
        let config = ServiceConfig::parse(&config).unwrap();
        let client = Configured::new(&layers.deadline, &layers.retry);
        config.apply_to(client.with_limits(&layers.limits)).unwrap();
        let target: Target = format!("http://{}", task.addresses[0]).parse().unwrap();
        let default = balance::Options::of_one_endpoint();
        let most = task.settings.max_header_bytes.unwrap_or(default.max_header_list_size);
        let options =
            balance::Options { rng: Rng::seeded(1), max_header_list_size: most, ..default };
        let balance = Balance::new(vec![target], options).unwrap();
        Self { stack: stack(balance.clone(), &layers), balance }
    }

    async fn connected(&self) {
        let ready = async {
            while self.balance.states()[0].state != balance::State::Ready {
                sleep(Duration::from_millis(2)).await;
            }
        };
        // The call shows whether it is.
        _ = timeout(10 * SECOND, ready).await;
    }

    async fn call(&self, task: &Task) -> Result<(), Status> {
        let mut grpc = Grpc::new(self.stack.clone());
        if let Some(most) = task.settings.max_send_bytes {
            grpc = grpc.max_encoding_message_size(most);
        }
        let path: PathAndQuery = task.path.parse().unwrap();
        grpc.ready().await.unwrap();
        let call = &task.call;
        let count = match call.kind {
            Kind::ClientStream => call.send.unwrap_or(1),
            _ => usize::from(!call.cannot_encode),
        };
        let good = std::iter::repeat_n(Some(vec![b'1'; call.bytes]), count);
        let messages: Vec<_> = good.chain(call.cannot_encode.then_some(None)).collect();
        let request = request(call, tokio_stream::iter(messages));
        grpc.client_streaming(request, path, Raw).await.map(drop)
    }
}

fn request<T>(call: &Call, message: T) -> Request<T> {
    let mut request = Request::new(message);
    for (name, value) in &call.metadata {
        let name = MetadataKey::<Ascii>::from_bytes(name.as_bytes()).unwrap();
        request.metadata_mut().insert(name, value.parse().unwrap());
    }
    if let Some(ms) = call.deadline_ms {
        request.set_timeout(Duration::from_millis(ms));
    }
    request
}

fn scripts() -> Vec<Script> {
    let read = |name| {
        let text =
            fs::read_to_string(within("xtask/peers/suite").join(format!("{name}.json"))).unwrap();
        serde_json::from_str::<File>(&text).unwrap().scripts
    };
    let mut scripts: Vec<_> = FILES.into_iter().flat_map(read).collect();
    scripts.retain(|script| !script.slow);
    assert!(scripts.len() > 150, "{}", scripts.len());
    scripts
}

/// What is wrong of a script; nothing where a client does what it is known to do instead.
fn wrong_of(script: &Script, client: &str, seen: &Seen) -> Option<String> {
    let wrong = match script.differs.get(client) {
        None => judge(script, seen, true),
        Some(known) => {
            let is_it =
                (seen.attempts.len(), seen.codes()) == (known.attempts, known.codes.clone());
            let instead = format!("not as it is known to do: {} ({seen:?})", known.why);
            if is_it { Vec::new() } else { vec![instead] }
        }
    };
    (!wrong.is_empty()).then(|| format!("\n{}: {}", script.id, wrong.join("; ")))
}

/// Runs the scripts with clients that are alike, each with one script at a time, and says what is
/// wrong.
async fn wrong_with<C>(name: &'static str, callers: Vec<C>, can: fn(&C, &str) -> bool) -> String
where
    C: Caller + Send + Sync + 'static,
{
    let scripts = Arc::new(Mutex::new(scripts().into_iter()));
    let mut workers = Vec::new();
    for caller in callers {
        let scripts = scripts.clone();
        workers.push(tokio::spawn(async move {
            let (mut wrong, mut ran) = (String::new(), 0);
            loop {
                let Some(script) = scripts.lock().await.next() else { return (wrong, ran) };
                let is_able = script.needs.iter().all(|need| can(&caller, need));
                let dies = script.differs.get(name).is_some_and(|known| known.codes.is_empty());
                if !is_able || dies || script.spare.contains_key(name) {
                    continue;
                }
                ran += 1;
                wrong.extend(match run(&script, &caller).await {
                    Ok(seen) => wrong_of(&script, name, &seen),
                    Err(error) => Some(format!("\n{}: {error}", script.id)),
                });
            }
        }));
    }
    let (mut wrong, mut ran) = (String::new(), 0);
    for worker in workers {
        let (of_worker, count) = worker.await.unwrap();
        wrong += &of_worker;
        ran += count;
    }
    println!("{ran} scripts with {name}");
    assert!(ran > 100, "{ran}");
    wrong
}

async fn wrong_with_process(name: &'static str, start: impl Fn() -> Command) -> String {
    let mut clients = Vec::new();
    for _ in 0..AT_ONCE {
        clients.push(Client::start(start()).await.unwrap());
    }
    wrong_with(name, clients, |client, need| client.hello.can(need)).await
}

// real clock: sockets.
#[tokio::test]
async fn our_client_does_what_the_scripts_say() {
    let clients = (0..AT_ONCE).map(|_| Ours::default()).collect();
    let wrong = wrong_with("cinchona", clients, |_, _| true).await;
    assert!(wrong.is_empty(), "{wrong}");
}

// real clock: the other client is a process.
#[tokio::test]
#[ignore = "needs python3 with grpcio"]
async fn grpcs_c_core_does_what_the_scripts_say_or_what_it_is_known_to_do() {
    let python = python();
    let wrong = wrong_with_process("grpcio", || {
        let mut client = Command::new(python);
        client.arg(within("xtask/peers/suite/clients/grpcio.py"));
        client
    });
    let wrong = wrong.await;
    assert!(wrong.is_empty(), "{wrong}");
}

// real clock: the other client is a process.
#[tokio::test]
#[ignore = "needs node with grpc-js"]
async fn grpc_js_does_what_the_scripts_say_or_what_it_is_known_to_do() {
    let modules = grpc_js();
    let wrong = wrong_with_process("grpc-js", || {
        let mut client = Command::new("node");
        client.arg(within("xtask/peers/suite/clients/grpc-js.js")).env("NODE_PATH", &modules);
        client
    });
    let wrong = wrong.await;
    assert!(wrong.is_empty(), "{wrong}");
}
