// Runs scripts with grpc-js: tasks as JSON on standard input, codes as JSON on standard output.
const grpc = require("@grpc/grpc-js");
const same = (bytes) => bytes;

function call(client) {
  return new Promise((resolve) => {
    const path = "/calculator.Calculator/Add";
    client.makeUnaryRequest(path, same, same, Buffer.alloc(0), (error) => {
      resolve(error ? error.code : 0);
    });
  });
}

async function run(task) {
  const options = { "grpc.service_config": JSON.stringify(task.config) };
  const address = `127.0.0.1:${task.port}`;
  const client = new grpc.Client(address, grpc.credentials.createInsecure(), options);
  const codes = [];
  for (let n = 0; n < task.calls; n++) codes.push(await call(client));
  client.close();
  return codes;
}

const tasks = JSON.parse(require("fs").readFileSync(0, "utf8"));
Promise.all(tasks.map(run)).then((codes) => console.log(JSON.stringify(codes)));
