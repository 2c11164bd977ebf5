// grpc-js as a client of the suite: tasks as lines of JSON on standard input, outcomes as lines on
// standard output.
const grpc = require("@grpc/grpc-js");
const { version } = require("@grpc/grpc-js/package.json");
const readline = require("readline");

const ABILITIES = [
  "deadline", "streams", "keepalive", "many", "unix", "send-limit", "retry", "previous", "pushback",
  "throttling", "hedging", "wait-for-ready", "service-config", "balancing", "message-limits",
  "transparent",
];
const same = (bytes) => bytes;
const say = (line) => console.log(JSON.stringify(line));

// A message; what is no buffer cannot be encoded.
function encoded(message) {
  if (!Buffer.isBuffer(message)) throw new Error("this cannot be encoded");
  return message;
}

function open(task) {
  const options = {
    "grpc.use_local_subchannel_pool": 1,
    // As a client that has one server would have it, so that it is found again in a script.
    "grpc.initial_reconnect_backoff_ms": 250,
  };
  const { keepalive_ms, keepalive_timeout_ms, max_send_bytes } = task.settings;
  if (task.config) options["grpc.service_config"] = JSON.stringify(task.config);
  if (keepalive_ms) options["grpc.keepalive_time_ms"] = keepalive_ms;
  if (keepalive_timeout_ms) options["grpc.keepalive_timeout_ms"] = keepalive_timeout_ms;
  if (max_send_bytes) options["grpc.max_send_message_length"] = max_send_bytes;
  const [first, ...others] = task.addresses;
  const target = others.length ? `ipv4:${task.addresses.join(",")}` : first;
  return new grpc.Client(target, grpc.credentials.createInsecure(), options);
}

const ready = (client) =>
  // Where it is not, the call will tell.
  new Promise((resolve) => client.waitForReady(Date.now() + 10000, resolve));

async function call(client, task) {
  const { call, id, path } = task;
  if ((call.connect ?? task.settings.connect) !== false) await ready(client);
  const metadata = new grpc.Metadata({ waitForReady: call.wait_for_ready });
  for (const [name, value] of Object.entries(call.metadata)) metadata.set(name, value);
  const begun = performance.now();
  const options = call.deadline_ms ? { deadline: Date.now() + call.deadline_ms } : {};
  const message = call.cannot_encode ? {} : Buffer.alloc(call.bytes, "1");
  let messages = 0;
  const ended = (error) => {
    const [details] = error?.metadata?.get("grpc-status-details-bin") ?? [];
    const said = { code: error?.code ?? 0, message: error?.details ?? "" };
    if (!error && call.kind !== "server_stream") messages = 1;
    const took_ms = performance.now() - begun;
    say({ id, ...said, details: details?.toString() ?? "", messages, took_ms });
  };
  if (call.kind === "server_stream") {
    const request = [path, encoded, same, message, metadata, options];
    const stream = client.makeServerStreamRequest(...request);
    stream.on("error", ended);
    stream.on("end", () => {});
    stream.on("status", (status) => status.code === 0 && ended(null));
    const read = () => stream.on("data", () => messages++);
    if (call.unread_ms) setTimeout(read, call.unread_ms);
    else read();
  } else if (call.kind === "client_stream") {
    const stream = client.makeClientStreamRequest(path, encoded, same, metadata, options, ended);
    for (let n = 0; n < (call.send ?? 1); n++) stream.write(Buffer.alloc(call.bytes, "1"));
    if (call.cannot_encode) stream.write({});
    stream.end();
  } else {
    client.makeUnaryRequest(path, encoded, same, message, metadata, options, ended);
  }
}

say({ client: "grpc-js", version, can: ABILITIES });
let name;
let client;
readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const task = JSON.parse(line);
  if (task.channel !== name) {
    client?.close();
    [name, client] = [task.channel, open(task)];
  }
  call(client, task);
}).on("close", () => process.exit());
