"""Runs scripts with grpcio: tasks as JSON on standard input, codes as JSON on standard output."""

import concurrent.futures
import json
import sys

import grpc


def run(task):
    """The codes of a script's calls."""
    options = [
        ("grpc.service_config", json.dumps(task["config"])),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_send_message_length", -1),
    ]
    size = task.get("size", 0)
    length = []
    left = size
    while left > 127:
        length.append(left & 127 | 128)
        left >>= 7
    length.append(left)
    request = (b"\x0a" + bytes(length) + b"1" * size) if size else b""
    metadata = []
    if "reserved" in task:
        metadata.append(("grpc-previous-rpc-attempts", task["reserved"]))
    codes = []
    with grpc.insecure_channel(f"127.0.0.1:{task['port']}", options) as channel:
        add = channel.unary_unary("/calculator.Calculator/Add")
        for _ in range(task["calls"]):
            try:
                add(request, metadata=metadata, timeout=task.get("deadline"))
                codes.append(0)
            except grpc.RpcError as error:
                codes.append(error.code().value[0])
    return codes


with concurrent.futures.ThreadPoolExecutor(16) as pool:
    print(json.dumps(list(pool.map(run, json.load(sys.stdin)))))
