"""A stock grpcio server of calls that last: `Add` answers after `a` seconds, `Range` says nothing
for `last` seconds and then one number. Prints the port it got."""

import concurrent.futures
import struct
import time

import grpc


def add(request, context):
    seconds, _ = struct.unpack("<xdxd", request)
    time.sleep(seconds)
    return b"\x09" + struct.pack("<d", seconds)


def count(request, context):
    _, seconds = struct.unpack("<xdxd", request)
    time.sleep(seconds)
    yield b"\x09" + struct.pack("<d", seconds)


def main():
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(max_workers=16))
    methods = {
        "Add": grpc.unary_unary_rpc_method_handler(add),
        "Range": grpc.unary_stream_rpc_method_handler(count),
    }
    handler = grpc.method_handlers_generic_handler("calculator.Calculator", methods)
    server.add_generic_rpc_handlers([handler])
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    server.wait_for_termination()


main()
