"""Runs scripts with grpcio: tasks as JSON on standard input, outcomes as JSON on standard output."""

import concurrent.futures
import itertools
import json
import os
import socket
import sys
import time

import grpc


def encoded(message):
    """A message, or `None` for one that cannot be encoded."""
    if message is None:
        raise ValueError("this cannot be encoded")
    return message


def message(size):
    """A message of one field that is so long."""
    length = []
    left = size
    while left > 127:
        length.append(left & 127 | 128)
        left >>= 7
    length.append(left)
    return (b"\x0a" + bytes(length) + b"1" * size) if size else b""


def begin(channel, path, task):
    """Begins a call of the script."""
    metadata = list(task.get("metadata", {}).items())
    timeout = task.get("deadline")
    if "stream" in task:
        messages = iter([b""] * task["stream"] + [None])
        call = channel.stream_unary(path, encoded)
        return call.future(messages, metadata=metadata, timeout=timeout)
    request = None if "request" in task else message(task.get("size", 0))
    wait = task.get("down") or None
    call = channel.unary_unary(path, encoded)
    return call.future(request, metadata=metadata, timeout=timeout, wait_for_ready=wait)


def ended(channel, path, task):
    """Code, message and details of a call, and how many milliseconds it took."""
    begun = time.monotonic()
    took = lambda: 1000 * (time.monotonic() - begun)
    try:
        call = begin(channel, path, task)
        if "down_ms" in task:
            time.sleep(task["down_ms"] / 1000)
            socket.create_connection(("127.0.0.1", task["control"])).close()
        call.result()
        return (0, "", "", took())
    except grpc.RpcError as error:
        trailers = dict(error.trailing_metadata() or ())
        details = trailers.get("grpc-status-details-bin", b"").decode()
        return (error.code().value[0], error.details() or "", details, took())


def run(task):
    """The outcomes of a script's calls."""
    options = [
        ("grpc.service_config", json.dumps(task["config"])),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_send_message_length", -1),
        ("grpc.initial_reconnect_backoff_ms", 100),
    ]
    methods = itertools.cycle(task.get("methods", ["Add"]))
    outcomes = []
    with grpc.insecure_channel(f"127.0.0.1:{task['port']}", options) as channel:
        # Calls are what is compared: they begin when there is a connection.
        if "down" not in task:
            grpc.channel_ready_future(channel).result(timeout=20)
        for method in itertools.islice(methods, task["calls"]):
            outcomes.append(ended(channel, f"/calculator.Calculator/{method}", task))
    return outcomes


with concurrent.futures.ThreadPoolExecutor(16) as pool:
    print(json.dumps(list(pool.map(run, json.load(sys.stdin)))), flush=True)
# Threads of closed channels may still poll: the interpreter does not wait, or fall, for them.
os._exit(0)
