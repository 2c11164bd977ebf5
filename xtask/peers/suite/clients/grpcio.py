"""grpcio as a client of the suite: tasks as lines of JSON on standard input, outcomes as lines on
standard output."""

import json
import os
import sys
import threading
import time

import grpc

ABILITIES = [
    "deadline", "streams", "keepalive", "many", "unix", "send-limit", "header-limit", "retry",
    "previous", "pushback", "throttling", "wait-for-ready", "service-config", "balancing",
    "message-limits", "transparent",
]
speaking = threading.Lock()


def say(line):
    with speaking:
        print(json.dumps(line), flush=True)


def encoded(message):
    """A message, or `None` for one that cannot be encoded."""
    if message is None:
        raise ValueError("this cannot be encoded")
    return message


def target(addresses):
    """One address, or a list of IP addresses."""
    if len(addresses) == 1:
        return addresses[0]
    return "ipv4:" + ",".join(addresses)


def channel(task):
    settings = task["settings"]
    options = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_send_message_length", settings["max_send_bytes"] or -1),
        # As a client that has one server would have it, so that it is found again in a script.
        ("grpc.initial_reconnect_backoff_ms", 250),
    ]
    if len(task["addresses"]) > 1:
        # It would be the list.
        options.append(("grpc.default_authority", "localhost"))
    if task["config"] is not None:
        options.append(("grpc.service_config", json.dumps(task["config"])))
    names = {
        "keepalive_ms": "grpc.keepalive_time_ms",
        "keepalive_timeout_ms": "grpc.keepalive_timeout_ms",
        "max_header_bytes": "grpc.max_metadata_size",
    }
    options += [(name, settings[key]) for key, name in names.items() if settings[key] is not None]
    return grpc.insecure_channel(target(task["addresses"]), options)


def begin(channel, task):
    """Begins a call; an iterator of the answer's messages, and the call."""
    call, path = task["call"], task["path"]
    metadata = list(call["metadata"].items())
    timeout = call["deadline_ms"] and call["deadline_ms"] / 1000
    bad = [None] if call["cannot_encode"] else []
    if call["kind"] == "client_stream":
        count = 1 if call["send"] is None else call["send"]
        messages = iter([b"1" * call["bytes"]] * count + bad)
        stream = channel.stream_unary(path, encoded)
        return stream.future(messages, metadata=metadata, timeout=timeout)
    message = None if bad else b"1" * call["bytes"]
    if call["kind"] == "server_stream":
        return channel.unary_stream(path, encoded)(message, metadata=metadata, timeout=timeout)
    wait = call["wait_for_ready"] or None
    begin = channel.unary_unary(path, encoded).future
    return begin(message, metadata=metadata, timeout=timeout, wait_for_ready=wait)


def ended(channel, task):
    begun, messages, details = time.monotonic(), 0, ""
    try:
        call = begin(channel, task)
        if task["call"]["kind"] == "server_stream":
            time.sleep(task["call"]["unread_ms"] / 1000)
            for _ in call:
                messages += 1
        else:
            call.result()
            messages = 1
        code, message = 0, ""
    except grpc.RpcError as error:
        trailers = dict(error.trailing_metadata() or ())
        details = trailers.get("grpc-status-details-bin", b"").decode(errors="replace")
        code, message = error.code().value[0], error.details() or ""
    took = 1000 * (time.monotonic() - begun)
    return {"id": task["id"], "code": code, "message": message, "details": details,
            "messages": messages, "took_ms": took}


def run(channel, task):
    connect = task["call"]["connect"]
    connect = task["settings"]["connect"] if connect is None else connect
    if connect is not False:
        try:
            grpc.channel_ready_future(channel).result(timeout=10)
        except grpc.FutureTimeoutError:
            pass  # The call will tell.
    say(ended(channel, task))


def main():
    say({"client": "grpcio", "version": grpc.__version__, "can": ABILITIES})
    name, current = None, None
    for line in sys.stdin:
        task = json.loads(line)
        if task["channel"] != name:
            if current is not None:
                current.close()
            name, current = task["channel"], channel(task)
        threading.Thread(target=run, args=(current, task), daemon=True).start()


main()
# Threads of closed channels may still poll: the interpreter does not wait, or fall, for them.
os._exit(0)
