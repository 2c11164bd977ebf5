"""A grpcio calculator that fails twice and then answers; prints the port it got."""

import concurrent.futures
import itertools
import struct

import grpc

requests = itertools.count(1)


def add(request, context):
    if next(requests) <= 2:
        context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
    a, b = struct.unpack("<xdxd", request)
    return b"\x09" + struct.pack("<d", a + b)


def main():
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(max_workers=2))
    methods = {"Add": grpc.unary_unary_rpc_method_handler(add)}
    handler = grpc.method_handlers_generic_handler("calculator.Calculator", methods)
    server.add_generic_rpc_handlers([handler])
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    server.wait_for_termination()


main()
