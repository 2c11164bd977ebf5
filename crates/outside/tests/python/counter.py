"""Counts with grpcio, which retries by its own rules: `counter.py HOST:PORT`.

Each call is named by the field `request_id` of its message, and by nothing else.
"""

import json
import sys

import grpc

CONFIG = {
    "methodConfig": [
        {
            "name": [{"service": "calculator.Calculator"}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.001s",
                "maxBackoff": "0.01s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}


def fields(message):
    """The varint fields of a message by number; an int32 above 127 has two bytes here."""
    found = {}
    at = 0
    while at < len(message):
        number, at = message[at] >> 3, at + 1
        value, shift = 0, 0
        while True:
            byte, at = message[at], at + 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        found[number] = value
    return found


def main():
    options = [("grpc.service_config", json.dumps(CONFIG))]
    failed = duplicates = 0
    with grpc.insecure_channel(sys.argv[1], options) as channel:
        increment = channel.unary_unary("/calculator.Calculator/IncrementCounter")
        for n in range(100):
            name = f"python {n}".encode()
            request = bytes([0x0A, len(name)]) + name
            while True:
                try:
                    duplicates += fields(increment(request, timeout=10)).get(2, 0)
                    break
                except grpc.RpcError as error:
                    assert error.code() == grpc.StatusCode.UNAVAILABLE, error
                    failed += 1
        counter = channel.unary_unary("/calculator.Calculator/GetCounter")
        while True:
            try:
                print("counter", fields(counter(b"", timeout=10))[1])
                break
            except grpc.RpcError:
                pass
    print("duplicates", duplicates)
    print("calls that failed for good", failed, file=sys.stderr)


main()
