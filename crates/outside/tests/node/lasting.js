// A stock grpc-js server of calls that last: `Add` answers after `a` seconds, `Range` says nothing
// for `last` seconds and then one number. Prints the port it got.
const grpc = require("@grpc/grpc-js");
const same = (bytes) => bytes;

function number(value) {
  const bytes = Buffer.alloc(9);
  bytes[0] = 9;
  bytes.writeDoubleLE(value, 1);
  return bytes;
}

function method(name, responseStream) {
  return {
    path: `/calculator.Calculator/${name}`,
    requestStream: false,
    responseStream,
    requestSerialize: same,
    requestDeserialize: same,
    responseSerialize: same,
    responseDeserialize: same,
  };
}

const server = new grpc.Server();
server.addService(
  { Add: method("Add", false), Range: method("Range", true) },
  {
    Add: (call, answer) => {
      const seconds = call.request.readDoubleLE(1);
      setTimeout(() => answer(null, number(seconds)), 1000 * seconds);
    },
    Range: (call) => {
      const seconds = call.request.readDoubleLE(10);
      setTimeout(() => {
        call.write(number(seconds));
        call.end();
      }, 1000 * seconds);
    },
  },
);
server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  console.log(port);
});
