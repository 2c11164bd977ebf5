// Runs scripts with grpc-js: tasks as JSON on standard input, outcomes as JSON on standard output.
const grpc = require("@grpc/grpc-js");
const same = (bytes) => bytes;

// Code, message and details of a call.
function call(client, method, task) {
  return new Promise((resolve) => {
    const path = `/calculator.Calculator/${method}`;
    const metadata = new grpc.Metadata();
    for (const [name, value] of Object.entries(task.metadata ?? {})) metadata.set(name, value);
    client.makeUnaryRequest(path, same, same, Buffer.alloc(0), metadata, (error) => {
      const [details] = error?.metadata?.get("grpc-status-details-bin") ?? [];
      resolve(error ? [error.code, error.details, details?.toString() ?? ""] : [0, "", ""]);
    });
  });
}

async function run(task) {
  const options = { "grpc.service_config": JSON.stringify(task.config) };
  const address = `127.0.0.1:${task.port}`;
  const client = new grpc.Client(address, grpc.credentials.createInsecure(), options);
  const methods = task.methods ?? ["Add"];
  const outcomes = [];
  for (let n = 0; n < task.calls; n++) {
    outcomes.push(await call(client, methods[n % methods.length], task));
  }
  client.close();
  return outcomes;
}

const tasks = JSON.parse(require("fs").readFileSync(0, "utf8"));
Promise.all(tasks.map(run)).then((outcomes) => console.log(JSON.stringify(outcomes)));
