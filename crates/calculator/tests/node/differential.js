// Runs scripts with grpc-js: tasks as JSON on standard input, outcomes as JSON on standard output.
const grpc = require("@grpc/grpc-js");
const net = require("net");
const PATIENCE = 60000; // milliseconds, for a call that does not end
const same = (bytes) => bytes;

// A message; what is no buffer cannot be encoded.
function encoded(message) {
  if (!Buffer.isBuffer(message)) throw new Error("this cannot be encoded");
  return message;
}

// Code, message and details of a call, and how many milliseconds it took.
function call(client, method, task) {
  return new Promise((resolve) => {
    const path = `/calculator.Calculator/${method}`;
    const metadata = new grpc.Metadata({ waitForReady: task.down === true });
    for (const [name, value] of Object.entries(task.metadata ?? {})) metadata.set(name, value);
    const begun = performance.now();
    const options = task.deadline ? { deadline: Date.now() + 1000 * task.deadline } : {};
    const ended = (error) => {
      const took = performance.now() - begun;
      const [details] = error?.metadata?.get("grpc-status-details-bin") ?? [];
      const said = error ? [error.code, error.details, details?.toString() ?? ""] : [0, "", ""];
      resolve([...said, took]);
    };
    setTimeout(() => resolve([-1, "it does not end", "", PATIENCE]), PATIENCE).unref();
    if (task.stream === undefined) {
      const message = task.request === undefined ? Buffer.alloc(0) : {};
      client.makeUnaryRequest(path, encoded, same, message, metadata, options, ended);
    } else {
      const stream = client.makeClientStreamRequest(path, encoded, same, metadata, options, ended);
      for (let n = 0; n < task.stream; n++) stream.write(Buffer.alloc(0));
      stream.write({});
      stream.end();
    }
    if (task.down_ms) setTimeout(() => net.connect(task.control, "127.0.0.1").end(), task.down_ms);
  });
}

const ready = (client) =>
  new Promise((resolve, reject) =>
    client.waitForReady(Date.now() + 20000, (error) => (error ? reject(error) : resolve())),
  );

// Until the client knows that its connection is lost, of which the call hears first, or has another.
const lost = (client) =>
  new Promise((resolve) => {
    const channel = client.getChannel();
    channel.watchConnectivityState(grpc.connectivityState.READY, Date.now() + 2000, resolve);
  });

async function run(task) {
  const options = {
    "grpc.service_config": JSON.stringify(task.config),
    "grpc.initial_reconnect_backoff_ms": 100,
  };
  const address = `127.0.0.1:${task.port}`;
  const client = new grpc.Client(address, grpc.credentials.createInsecure(), options);
  const methods = task.methods ?? ["Add"];
  const outcomes = [];
  for (let n = 0; n < task.calls; n++) {
    // Calls are what is compared: they begin when there is a connection.
    if (!task.down) await ready(client);
    outcomes.push(await call(client, methods[n % methods.length], task));
    if (task.answers[n]?.headers_then_lost) await lost(client);
  }
  client.close();
  return outcomes;
}

const tasks = JSON.parse(require("fs").readFileSync(0, "utf8"));
Promise.all(tasks.map(run)).then((outcomes) => {
  console.log(JSON.stringify(outcomes));
  process.exit();
});
