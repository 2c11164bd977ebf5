"""Calls a calculator with grpcio: `client.py HOST:PORT`.

The messages are encoded by hand, so that neither protobuf nor generated code is needed.
"""

import struct
import sys

import grpc


def doubles(*values):
    """A message whose fields 1, 2, ... are these doubles."""
    fields = enumerate(values, start=1)
    return b"".join(bytes([number << 3 | 1]) + struct.pack("<d", value) for number, value in fields)


def value(message):
    """The double in field 1; proto3 leaves out a zero."""
    return struct.unpack("<d", message[1:9])[0] if message else 0.0


def main():
    with grpc.insecure_channel(sys.argv[1]) as channel:
        service = "/calculator.Calculator/"
        for method in ["Add", "Subtract", "Multiply", "Divide"]:
            answer = channel.unary_unary(service + method)(doubles(10, 5), timeout=10)
            print(method, value(answer))
        try:
            channel.unary_unary(service + "Divide")(doubles(1, 0), timeout=10)
        except grpc.RpcError as error:
            print(error.code().name, error.details())
        streamed = channel.unary_stream(service + "Range")(doubles(1, 3), timeout=10)
        print("Range", [value(message) for message in streamed])
        numbers = iter([doubles(1), doubles(2), doubles(3)])
        print("Sum", value(channel.stream_unary(service + "Sum")(numbers, timeout=10)))


main()
